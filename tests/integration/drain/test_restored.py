"""A stream that was restored from a backup is recognised as the same log, up to the backup."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.drain.run import DrainReport
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.decisions import decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate
from support.backups import back_up, restore
from support.erasing import World
from support.platform_log import (
    InjectedError,
    check_exact,
    execute,
    failures,
    in_lake,
    letter,
    publish,
    query,
    state_of,
    stop_sink,
)


async def drained(
    settings: Settings, batch: int = 20, *, is_lake_adopted: bool = False
) -> DrainReport:
    batches = settings.model_copy(update={"drain_batch_messages": batch})
    return await drain_log(batches, is_lake_adopted=is_lake_adopted)


def check_once(settings: Settings, bodies: list[bytes]) -> None:
    """Each of these is once in the lake and once in PostgreSQL."""
    events = sorted(json.loads(body)["event_id"] for body in bodies)
    assert sorted(in_lake(settings)["event_id"]) == events
    rows = failures(settings)
    assert sorted(row["event_id"] for row in rows) == events
    assert {row["seen_count"] for row in rows} == {1}


async def discard(settings: Settings, count: int) -> dict[str, str]:
    """Discard the first failures; the status of every one, by id."""
    chosen = tuple(str(row["id"]) for row in failures(settings)[:count])
    await decide(settings, Selection(failure_ids=chosen), "discarded", actor="ana", reason="known")
    return statuses(settings)


def statuses(settings: Settings) -> dict[str, str]:
    return {str(row["id"]): row["status"] for row in failures(settings)}


@pytest.mark.parametrize("batch", [20, 37])  # the backup's end is an anchor, or between two
@pytest.mark.parametrize("later", [0, 30, 120])  # ends before, and beyond, what was drained
async def test_what_a_restored_stream_has_is_stored_once_and_no_decision_is_undone(
    settings: Settings, client: Client, batch: int, later: int
) -> None:
    bodies = list((await publish(client, settings, map(letter, range(100)))).values())
    first = await drained(settings, batch)
    backup = await back_up(client, settings.dlq_stream)
    bodies += (await publish(client, settings, map(letter, range(100, 180)))).values()
    await drained(settings, batch)
    decided = await discard(settings, 10)
    assert sorted(decided.values()) == ["discarded"] * 10 + ["pending"] * 170

    await restore(client, backup)
    fresh = await publish(client, settings, map(letter, range(1000, 1000 + later)))
    second = await drained(settings, batch)
    assert "restored from a backup and is unchanged up to sequence 100" in second.notes[0]
    assert (second.drained, second.gaps, second.last_sequence) == (later, 0, 100 + later)
    assert second.epoch == f"{first.epoch.removesuffix('#0')}#1"
    check_once(settings, [*bodies, *fresh.values()])
    assert statuses(settings).items() >= decided.items()
    assert (await verify_stores(settings)).findings == ()
    before = state_of(settings)
    again = await drained(settings, batch)
    assert (again.notes, again.drained, state_of(settings)) == ((), 0, before)


async def test_a_stream_that_is_restored_whole_continues(
    settings: Settings, client: Client
) -> None:
    bodies = list((await publish(client, settings, map(letter, range(50)))).values())
    await drained(settings)
    bodies += (await publish(client, settings, map(letter, range(50, 60)))).values()
    backup = await back_up(client, settings.dlq_stream)  # ten of it were not drained
    await restore(client, backup)
    bodies += (await publish(client, settings, map(letter, range(60, 70)))).values()
    report = await drained(settings)
    assert (report.drained, report.gaps, report.last_sequence) == (20, 0, 70)
    check_once(settings, bodies)
    assert (await verify_stores(settings)).findings == ()


@pytest.mark.parametrize("lost", ["nothing", "the database", "the lake"])
async def test_a_backup_restored_twice_and_a_lost_store_double_nothing(
    settings: Settings, client: Client, migrated_dsn: str, lost: str
) -> None:
    bodies = list((await publish(client, settings, map(letter, range(40)))).values())
    await drained(settings)
    backup = await back_up(client, settings.dlq_stream)
    # With a lost database and a restored stream, a person confirms that the lake belongs to them.
    is_lost = lost == "the database"
    for turn in (1, 2):
        bodies += (
            await publish(client, settings, map(letter, range(turn * 100, turn * 100 + 7)))
        ).values()
        await drained(settings, is_lake_adopted=is_lost)
        await restore(client, backup)
        lose(settings, migrated_dsn, lost)
    bodies += (await publish(client, settings, map(letter, range(300, 310)))).values()
    await drained(settings, is_lake_adopted=is_lost)
    check_once(settings, bodies)
    assert (await verify_stores(settings)).findings == ()


def lose(settings: Settings, dsn: str, what: str) -> None:
    if what == "the database":
        execute(settings, "DROP SCHEMA dlq CASCADE")
        migrate(dsn)
    elif what == "the lake":
        shutil.rmtree(Path(settings.lake))


@pytest.mark.parametrize("behind", ["lake", "postgres"])
async def test_a_sink_that_lagged_when_a_backup_was_restored_lacks_nothing(
    settings: Settings, client: Client, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = list((await publish(client, settings, map(letter, range(45)))).values())
    backup = await back_up(client, settings.dlq_stream)
    await publish(client, settings, map(letter, range(45, 80)))
    with monkeypatch.context() as patched:
        stop_sink(patched, behind, after=30)
        with pytest.raises(InjectedError):
            await drained(settings, 10)
    await restore(client, backup)
    bodies += (await publish(client, settings, map(letter, range(200, 210)))).values()
    report = await drained(settings, 10)
    assert (report.gaps, report.last_sequence) == (0, 55)
    lake, rows = in_lake(settings), failures(settings)
    assert sorted(lake["event_id"]) == sorted(row["event_id"] for row in rows)
    assert {json.loads(body)["event_id"] for body in bodies} <= {row["event_id"] for row in rows}
    assert {row["seen_count"] for row in rows} == {1}
    assert (await verify_stores(settings)).findings == ()


async def test_a_backup_of_an_older_life_is_known_after_the_stream_was_created_again(
    settings: Settings, client: Client
) -> None:
    bodies = list((await publish(client, settings, map(letter, range(30)))).values())
    first = await drained(settings)
    backup = await back_up(client, settings.dlq_stream)
    await client.jetstream().delete_stream(settings.dlq_stream)
    await ensure_streams(client.jetstream(), settings.stream_names)
    bodies += (await publish(client, settings, map(letter, range(100, 120)))).values()
    assert "recreated" in (await drained(settings)).notes[0]
    await restore(client, backup)
    bodies += (await publish(client, settings, map(letter, range(200, 210)))).values()
    report = await drained(settings)
    assert (report.drained, report.gaps, report.last_sequence) == (10, 0, 40)
    assert report.epoch == f"{first.epoch.removesuffix('#0')}#1"
    check_once(settings, bodies)
    assert (await verify_stores(settings)).findings == ()


async def test_what_was_erased_does_not_come_back_with_a_backup(world: World) -> None:
    settings, client = world.settings, world.client
    await drain_log(settings)
    backup = await back_up(client, settings.dlq_stream)
    await world.erase()
    held = world.held()
    await restore(client, backup)
    await world.publish(letter(5000), is_kept=True)
    report = await drain_log(settings)
    assert (report.drained, report.gaps) == (1, 0)
    check_exact(settings, world.kept)
    assert world.held() == held
    await world.erase()
    assert world.held() == held


async def test_a_stream_created_again_is_not_taken_for_an_older_one(
    settings: Settings, client: Client
) -> None:
    """The same events have the same sequences; only the server's times differ."""
    bodies: list[Any] = list(map(letter, range(25)))
    await publish(client, settings, bodies)
    await drained(settings)
    await client.jetstream().delete_stream(settings.dlq_stream)
    await ensure_streams(client.jetstream(), settings.stream_names)
    await publish(client, settings, bodies)
    report = await drained(settings)
    assert (report.drained, report.epoch.endswith("#0")) == (25, True)
    assert "recreated" in report.notes[0]
    assert query(settings, "SELECT count(*) AS n FROM drain_epochs") == [{"n": 2}]
