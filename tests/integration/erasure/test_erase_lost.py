"""Erasures while stores are lost or lag behind: erased messages do not come back."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError, ServerError

from sahool_dlq.deadletter import ids
from sahool_dlq.erasure import erase as steps
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate
from support.erasing import ORIGIN, World, dying, keeps
from support.platform_log import (
    InjectedError,
    check_exact,
    execute,
    in_lake,
    letter,
    publish,
    publish_raw,
    query,
    stop_sink,
)


@pytest.mark.parametrize(("step", "call"), [("remember", 1), ("erase_rows", 2)])
@pytest.mark.parametrize("sink", ["lake", "postgres"])
async def test_a_sink_that_lags_behind_takes_nothing_erased_from_the_other(
    settings: Settings,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    sink: str,
    step: str,
    call: int,
) -> None:
    world = World(settings, client)
    for number in range(0, 40, 2):
        await world.publish(world.letter(number))
        await world.publish(letter(number + 1), is_kept=True)
        if number == 0:
            await drain_log(world.settings)
    with monkeypatch.context() as patched:
        stop_sink(patched, sink, 12)
        with pytest.raises(InjectedError):
            await drain_log(world.settings)
    with monkeypatch.context() as patched:  # some rows still exist, next to the tombstones
        patched.setattr(steps, step, dying(getattr(steps, step), call))
        with pytest.raises(InjectedError):
            await world.erase()
    js = client.jetstream()
    for sequence in range(1, 23):  # so that each store must be filled from the other
        with contextlib.suppress(ServerError):  # it is erased already
            await js.delete_msg(settings.dlq_stream, sequence)
    before = world.held()
    report = await drain_log(world.settings)
    assert report.gaps == 0, report.notes
    assert world.held() == before
    await world.erase()
    check_exact(world.settings, world.kept)
    assert (await drain_log(world.settings)).gaps == 0


async def test_a_lost_database_learns_from_the_lake_what_was_erased(
    world: World, migrated_dsn: str, client: Client
) -> None:
    settings = world.settings
    with pytest.MonkeyPatch.context() as patched:  # NATS keeps everything
        patched.setattr(steps, "erase_messages", keeps)
        assert (await world.erase()).left == "NATS keeps some of 11 messages (kept)"
    execute(settings, "DROP SCHEMA dlq CASCADE")
    migrate(migrated_dsn)
    assert (await drain_log(settings)).gaps == 0
    check_exact(settings, world.kept)


async def test_a_repair_tells_an_erased_message_from_another_of_the_same_failure(
    settings: Settings, client: Client
) -> None:
    origin = dict(zip(ORIGIN, ("EVENTS", 7, 1_700_000_000_000_000_000, "ndvi"), strict=True))
    same = {**origin, "failure_id": ids.failure_id(*origin.values())}
    await publish(client, settings, [letter(1, **same), letter(2, **same)])
    await drain_log(settings)
    rows = in_lake(settings)
    life = rows["epoch"][1].rpartition("#")[0]
    execute(
        settings, "INSERT INTO erased_messages VALUES (%s, 2, %s)", life, rows["published_at"][1]
    )
    execute(settings, "DELETE FROM failed_events")
    report = await verify_stores(settings, is_repair=True)
    left = {finding.where: finding.count for finding in report.findings if finding.kind == "erased"}
    assert left == {"dead_letters": 1, "the stream": 1}
    [row] = query(settings, "SELECT seen_count, error_message FROM failed_events")
    assert (row["seen_count"], row["error_message"]) == (1, "no connection to host 1")


async def test_the_head_of_an_undrained_stream_is_no_gap_once_erased_and_what_others_lost_is(
    settings: Settings, client: Client
) -> None:
    world = World(settings, client)
    await world.publish(world.letter(1), world.letter(2), letter(3), world.letter(4))
    await world.publish(letter(5), is_kept=True)
    await client.jetstream().delete_msg(settings.dlq_stream, 3)
    await world.erase()
    report = await drain_log(world.settings)
    gaps = query(world.settings, "SELECT first_sequence, last_sequence FROM stream_gaps")
    assert gaps == [{"first_sequence": 3, "last_sequence": 3}]
    assert report.gaps == 1
    check_exact(world.settings, world.kept)


async def test_another_message_at_an_erased_place_is_kept(
    settings: Settings, client: Client
) -> None:
    """After a rewind the stream assigns the sequence again, to a message without a tombstone."""
    world = World(settings, client)
    await world.publish(world.letter(1), letter(2), is_kept=True)
    await drain_log(world.settings)
    [epoch] = query(settings, "SELECT epoch FROM drain_checkpoints")
    execute(
        settings,
        "INSERT INTO erased_messages VALUES (%s, 2, now() - interval '1 day')",
        epoch["epoch"].rpartition("#")[0],
    )
    await world.erase()
    assert [m.data async for m in _stored(client, settings)] == [letter(2)]
    assert in_lake(settings)["dlq_sequence"].to_list() == [2]
    assert (await verify_stores(world.settings)).findings == ()


async def _stored(client: Client, settings: Settings) -> AsyncIterator[Any]:
    js = client.jetstream()
    last = (await js.stream_info(settings.dlq_stream)).state.last_seq
    for sequence in range(1, last + 1):
        with contextlib.suppress(NotFoundError):
            yield await js.get_msg(settings.dlq_stream, sequence)


async def test_a_message_that_no_client_can_parse_does_not_stop_an_erasure(
    settings: Settings, client: Client
) -> None:
    world = World(settings, client)
    subject = f"{settings.subject_prefix}.dlq.x".encode()
    publish_raw(settings, subject, b"NATS/1.0", world.letter(0))
    await world.publish(world.letter(1))
    assert (await world.erase()).stream_dead_letters == 2
    assert [m.data async for m in _stored(client, settings)] == []
