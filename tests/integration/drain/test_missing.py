"""Messages deleted from the middle of the log unread are reported; erased ones are not."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.status import platform_status
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from support.erasing import World
from support.platform_log import (
    InjectedError,
    check_exact,
    in_lake,
    letter,
    publish,
    query,
    state_of,
    stop_sink,
)


def gaps(settings: Settings) -> list[tuple[int, int]]:
    """The gap rows, which are all certain."""
    rows = query(settings, "SELECT * FROM stream_gaps ORDER BY first_sequence")
    assert all(row["is_certain"] for row in rows)
    return [(row["first_sequence"], row["last_sequence"]) for row in rows]


async def refit(client: Client, settings: Settings, **config: Any) -> JetStreamContext:
    """Create the log's stream again with the settings of an operator."""
    js = client.jetstream()
    await js.delete_stream(settings.dlq_stream)
    await js.add_stream(
        name=settings.dlq_stream,
        subjects=list(settings.subjects.log),
        allow_direct=True,
        **config,
    )
    return js


async def remain(js: JetStreamContext, settings: Settings, count: int) -> None:
    """Wait until the stream has this number of messages."""
    async with asyncio.timeout(20):
        while (await js.stream_info(settings.dlq_stream)).state.messages != count:
            await asyncio.sleep(0.05)


async def purged(client: Client, settings: Settings) -> dict[int, bytes]:
    js = await refit(client, settings)
    kept = await publish(client, settings, map(letter, range(3)), "dlq.first")
    await publish(client, settings, map(letter, range(3, 8)), "dlq.second")
    kept |= await publish(client, settings, map(letter, range(8, 10)), "dlq.first")
    await js.purge_stream(settings.dlq_stream, subject=f"{settings.subject_prefix}.dlq.second")
    return kept


async def limited(client: Client, settings: Settings) -> dict[int, bytes]:
    await refit(client, settings, max_msgs_per_subject=2)
    kept = await publish(client, settings, map(letter, range(2)), "dlq.first")
    stored = await publish(client, settings, map(letter, range(2, 10)), "dlq.second")
    await publish(client, settings, [], "dlq.first")
    return kept | {s: body for s, body in stored.items() if s > 8}


async def expired(client: Client, settings: Settings) -> dict[int, bytes]:
    js = await refit(client, settings, allow_msg_ttl=True)
    kept = await publish(client, settings, map(letter, range(3)))
    for number in range(3, 8):
        subject = f"{settings.subject_prefix}.dlq.ndvi_computed"
        await js.publish(subject, letter(number), headers={"Nats-TTL": "1s"})
    kept |= await publish(client, settings, map(letter, range(8, 10)))
    await remain(js, settings, 5)
    return kept


async def rolled_up(client: Client, settings: Settings) -> dict[int, bytes]:
    js = await refit(client, settings, allow_rollup_hdrs=True)
    kept = await publish(client, settings, map(letter, range(3)), "dlq.first")
    await publish(client, settings, map(letter, range(3, 8)), "dlq.second")
    subject = f"{settings.subject_prefix}.dlq.second"
    ack = await js.publish(subject, letter(8), headers={"Nats-Rollup": "sub"})
    return kept | {ack.seq: letter(8)}


async def deleted(client: Client, settings: Settings) -> dict[int, bytes]:
    kept = await publish(client, settings, map(letter, range(10)))
    for sequence in range(4, 9):
        assert await client.jetstream().delete_msg(settings.dlq_stream, sequence)
        del kept[sequence]
    return kept


Losing = Callable[[Client, Settings], Awaitable[dict[int, bytes]]]


@pytest.mark.parametrize(
    ("losing", "lost", "why"),
    [
        (purged, (4, 8), "a purge by subject or a person who deleted them removed them"),
        (limited, (3, 8), "its count limit by subject or a purge by subject or a person"),
        (expired, (4, 8), "a time to live of their own or a purge by subject or a person"),
        (rolled_up, (4, 8), "a rollup or a purge by subject or a person"),
        (deleted, (4, 8), "a person who deleted them removed them"),
    ],
)
async def test_what_left_the_middle_unread_is_one_gap_row_once(
    settings: Settings, client: Client, losing: Losing, lost: tuple[int, int], why: str
) -> None:
    kept = await losing(client, settings)
    report = await drain_log(settings.model_copy(update={"drain_batch_messages": 3}))
    assert (report.gaps, report.drained, gaps(settings)) == (1, len(kept), [lost])
    assert report.notes[0].startswith(f"Lost: sequences {lost[0]} to {lost[1]}; {why}")
    check_exact(settings, kept)
    assert (await platform_status(settings)).gaps[0].startswith(f"Lost: sequences {lost[0]} to")
    assert (await verify_stores(settings)).findings == ()
    before = state_of(settings)
    again = await drain_log(settings)
    assert (again.gaps, again.notes, state_of(settings)) == (0, (), before)


async def test_the_last_messages_of_a_stream_that_were_deleted_unread_are_a_gap(
    settings: Settings, client: Client
) -> None:
    kept = await publish(client, settings, map(letter, range(10)))
    js = client.jetstream()
    for sequence in (9, 10):
        await js.delete_msg(settings.dlq_stream, sequence)
        del kept[sequence]
    assert ((await drain_log(settings)).gaps, gaps(settings)) == (1, [(9, 10)])
    assert (await drain_log(settings)).gaps == 0
    kept |= await publish(client, settings, map(letter, range(20, 22)))
    assert ((await drain_log(settings)).gaps, gaps(settings)) == (0, [(9, 10)])
    check_exact(settings, kept)


async def test_what_was_drained_before_it_was_deleted_is_no_gap(
    settings: Settings, client: Client
) -> None:
    stored = await publish(client, settings, map(letter, range(10)))
    await drain_log(settings)
    for sequence in (4, 5, 10):
        await client.jetstream().delete_msg(settings.dlq_stream, sequence)
    stored |= await publish(client, settings, map(letter, range(20, 22)))
    assert ((await drain_log(settings)).gaps, gaps(settings)) == (0, [])
    check_exact(settings, stored)


async def test_many_runs_are_a_row_each_and_one_sentence(
    settings: Settings, client: Client
) -> None:
    kept = await publish(client, settings, map(letter, range(40)))
    lost = range(2, 40, 4)
    for sequence in lost:
        await client.jetstream().delete_msg(settings.dlq_stream, sequence)
        del kept[sequence]
    report = await drain_log(settings)
    assert gaps(settings) == [(sequence, sequence) for sequence in lost]
    assert (report.gaps, len(report.notes)) == (10, 1)
    assert report.notes[0].startswith("Lost: 10 messages in 10 runs, sequences 2 to 38; ")
    [told] = (await platform_status(settings)).gaps
    assert told.startswith(f"Lost: 10 messages in 10 runs, sequences 2 to 38 of {report.epoch}; ")
    check_exact(settings, kept)


async def test_what_leaves_the_middle_while_the_drain_reads_is_a_gap(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await publish(client, settings, map(letter, range(100)))
    read, calls = LogReader.read, 0

    async def losing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            for sequence in range(55, 61):
                await client.jetstream().delete_msg(settings.dlq_stream, sequence)
                del kept[sequence]
        return await read(*arguments)

    monkeypatch.setattr(LogReader, "read", losing)
    report = await drain_log(settings.model_copy(update={"drain_batch_messages": 10}))
    assert (report.gaps, report.drained, gaps(settings)) == (1, 94, [(55, 60)])
    check_exact(settings, kept)


async def test_a_gap_in_the_middle_is_distinguished_from_an_erasure_beside_it(
    settings: Settings, client: Client
) -> None:
    world = World(settings, client)
    await world.publish(letter(1), is_kept=True)
    await world.publish(letter(2), world.letter(3), world.letter(4), letter(5))
    await world.publish(letter(6), is_kept=True)
    for sequence in (2, 5):
        await client.jetstream().delete_msg(settings.dlq_stream, sequence)
    await world.erase()
    assert (await drain_log(world.settings)).gaps == 2
    assert gaps(settings) == [(2, 2), (5, 5)]
    check_exact(world.settings, world.kept)


@pytest.mark.parametrize("behind", ["lake", "postgres"])
async def test_what_one_sink_had_read_before_it_was_deleted_comes_from_there(
    settings: Settings, client: Client, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await publish(client, settings, map(letter, range(44)))
    event = encode_case_event(failure_id=str(uuid.uuid4()), at=datetime.now(UTC), actor="ann")
    await publish(client, settings, [event], "triage.parked")
    stored |= await publish(client, settings, map(letter, range(44, 60)))
    batches = settings.model_copy(update={"drain_batch_messages": 10})
    with monkeypatch.context() as patched:
        stop_sink(patched, behind, after=30)
        with pytest.raises(InjectedError):
            await drain_log(batches)
    for sequence in (35, 36):
        await client.jetstream().delete_msg(settings.dlq_stream, sequence)
    report = await drain_log(batches)
    assert (report.gaps, report.last_sequence) == (0, 61)
    check_exact(settings, stored)
    restored = in_lake(settings).filter(envelope="restored")["dlq_sequence"].to_list()
    assert restored == ([35, 36] if behind == "lake" else [])
    assert (await verify_stores(settings)).findings == ()


async def test_a_shared_streams_holes_are_no_gaps_of_ours(
    settings: Settings, nats_url: str
) -> None:
    """It is unknown whose messages they were, as docs/operations.md says."""
    prefix, stored = settings.subject_prefix, {}
    async with await nats.connect(nats_url) as client:
        js = client.jetstream()
        name = f"SHARED_{prefix}"
        await js.add_stream(name=name, subjects=[f"{prefix}.>"], max_msgs_per_subject=2)
        await ensure_streams(js, settings.stream_names)
        for number in range(5):
            stored |= await publish(client, settings, [letter(number)], f"dlq.kind_{number}")
            await publish(client, settings, [b"an event"] * 3, "analysis.latest")
        assert (await js.stream_info(name)).state.messages == 7
        report = await drain_log(settings)
        assert (report.stream, report.gaps, gaps(settings)) == (name, 0, [])
        check_exact(settings, stored)
        await js.delete_stream(name)
