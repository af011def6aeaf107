"""A sink that is new, empty or restored is filled from the stream, else from the other sink.

Each test ends with `dlq verify`: stream, lake and PostgreSQL are the same.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from test_verify import _NOW, lose_stream

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.drain.run import DrainReport
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from support.platform_log import (
    InjectedError,
    check_exact,
    execute,
    failures,
    in_lake,
    letter,
    publish,
    query,
    stop_sink,
)

_LOG = "failed_events, drain_checkpoints, drain_epochs, drain_anchors, stream_gaps"
_CASE = ("id", "status", "epoch", "dlq_sequence", "published_at", "discarded_at", "original_data")


async def fill(settings: Settings, client: Client) -> dict[int, bytes]:
    """Sixty dead letters, then five of them discarded, drained in several batches."""
    stored = await publish(client, settings, map(letter, range(60)))
    await drained(settings)
    bodies = [
        encode_case_event(failure_id=str(row["id"]), at=_NOW, actor="ann", reason="a test")
        for row in failures(settings)[:5]
    ]
    await publish(client, settings, bodies, "triage.discarded")
    await drained(settings)
    return stored


async def drained(settings: Settings) -> DrainReport:
    return await drain_log(settings.model_copy(update={"drain_batch_messages": 20}))


def cases(settings: Settings) -> list[dict[str, Any]]:
    return [{name: row[name] for name in _CASE} for row in failures(settings)]


async def sound(settings: Settings) -> bool:
    return (await verify_stores(settings)).findings == () and (await drained(settings)).drained == 0


async def recreate(client: Client, settings: Settings) -> None:
    await client.jetstream().delete_stream(settings.dlq_stream)
    await ensure_streams(client.jetstream(), settings.stream_names)


@pytest.mark.parametrize("aged", [0, 30, 62, 65])
async def test_an_emptied_database_is_filled_from_the_stream_and_else_from_the_lake(
    settings: Settings, client: Client, aged: int
) -> None:
    stored = await fill(settings, client)
    before = cases(settings)
    await lose_stream(client, settings, aged)
    execute(settings, f"TRUNCATE {_LOG} CASCADE")
    report = await drained(settings)
    assert (report.drained, report.gaps, report.last_sequence) == (65, 0, 65)
    assert cases(settings) == before
    check_exact(settings, stored)
    assert await sound(settings)


async def test_a_message_deleted_by_hand_after_it_was_drained_comes_back_from_the_lake(
    settings: Settings, client: Client
) -> None:
    stored = await fill(settings, client)
    for sequence in (7, 30):
        await client.jetstream().delete_msg(settings.dlq_stream, sequence)
    execute(settings, f"TRUNCATE {_LOG} CASCADE")
    assert (await drained(settings)).gaps == 0
    check_exact(settings, stored)
    assert await sound(settings)


async def test_a_database_restored_older_takes_what_it_lost(
    settings: Settings, client: Client
) -> None:
    stored = await publish(client, settings, map(letter, range(30)))
    await drained(settings)
    tables = _LOG.split(", ")
    for table in tables:
        execute(settings, f"CREATE TABLE old_{table} AS TABLE {table}")
    stored |= await publish(client, settings, map(letter, range(30, 70)))
    await drained(settings)
    before = cases(settings)
    await lose_stream(client, settings, 50)
    execute(settings, f"TRUNCATE {_LOG} CASCADE")
    for table in tables:
        execute(settings, f"INSERT INTO {table} SELECT * FROM old_{table}")
    report = await drained(settings)
    assert (report.drained, report.gaps) == (40, 0)
    assert cases(settings) == before
    check_exact(settings, stored)
    assert await sound(settings)


async def test_earlier_lives_of_the_stream_come_back_too(
    settings: Settings, client: Client
) -> None:
    first = await fill(settings, client)
    await recreate(client, settings)
    second = await publish(client, settings, map(letter, range(100, 140)))
    await drained(settings)
    before = cases(settings)
    execute(settings, f"TRUNCATE {_LOG} CASCADE")
    report = await drained(settings)
    assert (report.drained, report.gaps) == (105, 0)
    assert cases(settings) == before
    assert len(before) == len(first) + len(second)
    assert await sound(settings)


@pytest.mark.parametrize("aged", [0, 30, 64])
async def test_an_emptied_lake_is_filled_from_the_stream_and_else_from_postgres(
    settings: Settings, client: Client, aged: int
) -> None:
    await fill(settings, client)
    lake, events = in_lake(settings), in_lake(settings, "case_events")
    await lose_stream(client, settings, aged)
    shutil.rmtree(settings.lake)
    report = await drained(settings)
    assert report.last_sequence == 65
    again = in_lake(settings)
    assert again["envelope"].to_list() == ["restored"] * min(aged, 60) + ["canonical"] * (
        60 - min(aged, 60)
    )
    same = ["dlq_sequence", "failure_id", "published_at", "event_id", "group_id", "template"]
    assert again.select(same).equals(lake.select(same))
    lost = [s for s in events["dlq_sequence"] if s <= aged]  # Postgres has their outcome only
    assert in_lake(settings, "case_events")["dlq_sequence"].to_list() == list(
        range(61 + len(lost), 66)
    )
    assert report.gaps == (1 if lost else 0)
    assert await sound(settings)


async def test_a_lake_restored_older_takes_what_it_lost(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    stored = await publish(client, settings, map(letter, range(30)))
    await drained(settings)
    shutil.copytree(settings.lake, tmp_path / "old")
    stored |= await publish(client, settings, map(letter, range(30, 60)))
    await drained(settings)
    await recreate(client, settings)
    stored_later = await publish(client, settings, map(letter, range(100, 120)))
    await drained(settings)
    shutil.rmtree(settings.lake)
    shutil.copytree(tmp_path / "old", settings.lake)
    report = await drained(settings)
    assert (report.gaps, report.last_sequence) == (0, 20)
    events = sorted(json.loads(b)["event_id"] for b in [*stored.values(), *stored_later.values()])
    assert sorted(in_lake(settings)["event_id"]) == events
    assert await sound(settings)


@pytest.mark.parametrize("behind", ["lake", "postgres"])
async def test_a_sink_that_lagged_when_the_stream_was_recreated_lacks_nothing(
    settings: Settings, client: Client, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(client, settings, map(letter, range(60)))
    with monkeypatch.context() as patched:
        stop_sink(patched, behind, after=20)
        with pytest.raises(InjectedError):
            await drained(settings)
    await recreate(client, settings)
    await publish(client, settings, map(letter, range(100, 110)))
    report = await drained(settings)
    assert "recreated" in " ".join(report.notes)
    held = sorted(row["event_id"] for row in failures(settings))
    assert sorted(in_lake(settings)["event_id"]) == held
    assert len(held) == 50  # the batch that one sink took, and what it had before, and the new ones
    assert await sound(settings)


async def test_a_fresh_sink_on_an_aged_stream_reports_only_what_no_sink_has(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, map(letter, range(20)))
    await drained(settings)
    await publish(client, settings, map(letter, range(20, 60)))
    await lose_stream(client, settings, 40)
    execute(settings, f"TRUNCATE {_LOG} CASCADE")
    report = await drained(settings)
    assert (report.gaps, report.drained) == (1, 40)
    (gap,) = query(settings, "SELECT first_sequence, last_sequence FROM stream_gaps")
    assert gap == {"first_sequence": 21, "last_sequence": 40}
    assert [row["dlq_sequence"] for row in failures(settings)] == [*range(1, 21), *range(41, 61)]
    assert await sound(settings)
