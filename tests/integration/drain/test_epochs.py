"""Gaps, recreated and rewound streams: always reported, nothing wrong stored, nothing lost."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import polars as pl
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from pydantic import SecretStr

from sahool_dlq.drain.run import DrainReport
from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import FencedError, ServerUnavailableError
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
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


def gaps(settings: Settings) -> list[tuple[int, int, bool]]:
    """The gap rows."""
    rows = query(settings, "SELECT * FROM stream_gaps ORDER BY first_sequence")
    return [(row["first_sequence"], row["last_sequence"], row["is_certain"]) for row in rows]


async def lose(client: Client, settings: Settings, up_to: int) -> None:
    """Let the server drop the oldest messages, as an age or size limit does."""
    js = client.jetstream()
    info = await js.stream_info(settings.dlq_stream)
    if up_to == info.state.last_seq:  # no limit drops the last message; age does
        for sequence in range(info.state.first_seq, up_to + 1):
            await js.delete_msg(settings.dlq_stream, sequence)
        return
    keep = info.state.last_seq - up_to
    config = info.config
    limit, config.max_msgs = config.max_msgs, keep
    await js.update_stream(config)
    config.max_msgs = limit
    await js.update_stream(config)
    assert (await js.stream_info(settings.dlq_stream)).state.first_seq == up_to + 1


# -- gaps


async def test_messages_that_limits_removed_unread_are_one_gap_row_once(
    settings: Settings, client: Client
) -> None:
    stored = await publish(client, settings, map(letter, range(20)))
    await drain_log(settings)
    later = await publish(client, settings, map(letter, range(20, 60)))
    await lose(client, settings, 45)
    report = await drain_log(settings)
    assert (report.gaps, report.drained) == (1, 15)
    assert gaps(settings) == [(21, 45, True)]
    assert report.notes[0].startswith("Lost: sequences 21 to 45; ")
    check_exact(settings, stored | {s: b for s, b in later.items() if s > 45})
    before = state_of(settings)
    assert (await drain_log(settings)).gaps == 0
    assert state_of(settings) == before


@pytest.mark.parametrize("lost", [None, "postgres", "lake"])
async def test_below_the_first_sequence_that_a_stream_was_made_with_nothing_is_lost(
    settings: Settings, client: Client, lost: str | None
) -> None:
    """And they are not searched one by one when a sink is filled from the other."""
    js = client.jetstream()
    config = (await js.stream_info(settings.dlq_stream)).config
    await js.delete_stream(settings.dlq_stream)
    await js.add_stream(config, first_seq=5_000_000_000)
    stored = await publish(client, settings, map(letter, range(20)))
    assert min(stored) == 5_000_000_000
    report = await drain_log(settings)
    assert (report.gaps, report.notes, report.drained) == (0, (), 20)
    later = await publish(client, settings, map(letter, range(20, 30)))
    await lose(client, settings, 5_000_000_024)
    if lost == "postgres":
        execute(
            settings,
            "TRUNCATE failed_events, failed_payloads, drain_checkpoints, drain_epochs,"
            " drain_anchors",
        )
    elif lost == "lake":
        shutil.rmtree(settings.lake)
    await drain_log(settings)
    kept = stored | {sequence: body for sequence, body in later.items() if sequence > 5_000_000_024}
    assert [row["dlq_sequence"] for row in failures(settings)] == sorted(kept)
    assert sorted(in_lake(settings)["dlq_sequence"]) == sorted(kept)
    told = [(5_000_000_020, 5_000_000_024)]
    assert [gap[:2] for gap in gaps(settings)] == told


async def test_what_was_drained_before_it_aged_out_is_no_gap(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, map(letter, range(50)))
    await drain_log(settings)
    await lose(client, settings, 50)
    report = await drain_log(settings)
    assert (report.gaps, report.drained, gaps(settings)) == (0, 0, [])
    assert report.notes == ()


async def test_a_gap_that_grows_while_nothing_can_be_read_is_reported_again(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, map(letter, range(10)))
    await lose(client, settings, 10)
    assert (await drain_log(settings)).gaps == 1
    await publish(client, settings, map(letter, range(10, 20)))
    await lose(client, settings, 20)
    assert (await drain_log(settings)).gaps == 1
    assert gaps(settings) == [(1, 20, True)]
    assert (await drain_log(settings)).gaps == 0


async def test_a_gap_that_opens_while_the_drain_reads_is_reported(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(client, settings, map(letter, range(100)))
    read, calls = LogReader.read, 0

    async def losing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            await lose(client, settings, 70)
        return await read(*arguments)

    monkeypatch.setattr(LogReader, "read", losing)
    report = await drain_log(settings.model_copy(update={"drain_batch_messages": 10}))
    assert (report.gaps, report.drained) == (1, 50)
    assert gaps(settings) == [(21, 70, True)]


async def test_a_gap_says_what_can_have_made_it(settings: Settings, client: Client) -> None:
    """The server does not report the cause. But what no limit and no purge can have removed, a
    person has.
    """
    await publish(client, settings, map(letter, range(10)))
    for sequence in (1, 2, 3):
        assert await client.jetstream().delete_msg(settings.dlq_stream, sequence)
    report = await drain_log(settings)
    (note,) = report.notes
    assert note.startswith("Lost: sequences 1 to 3; they were deleted one by one: no limit of the")
    assert gaps(settings) == [(1, 3, True)]


async def test_a_purged_stream_is_a_gap(settings: Settings, client: Client) -> None:
    js = client.jetstream()
    await js.delete_stream(settings.dlq_stream)
    await js.add_stream(name=settings.dlq_stream, subjects=list(settings.subjects.log))
    await publish(client, settings, map(letter, range(10)))
    await js.purge_stream(settings.dlq_stream)
    stored = await publish(client, settings, map(letter, range(10, 13)))
    assert (await drain_log(settings)).gaps == 1
    assert gaps(settings) == [(1, 10, True)]
    check_exact(settings, stored)


# -- a shared stream


async def test_a_shared_stream_is_read_filtered_and_its_holes_are_normal(
    settings: Settings, nats_url: str
) -> None:
    prefix = settings.subject_prefix
    async with await nats.connect(nats_url) as client:
        js = client.jetstream()
        name = f"SHARED_{prefix}"
        await js.add_stream(name=name, subjects=[f"{prefix}.>"], allow_direct=True)
        assert (await ensure_streams(js, settings.stream_names))["dead_letters"] == name
        stored = {}
        for number in range(30):
            await publish(client, settings, [b"an event"] * 3, "analysis.ndvi_computed")
            stored |= await publish(client, settings, [letter(number)])
        report = await drain_log(settings.model_copy(update={"drain_batch_messages": 7}))
        assert (report.stream, report.drained, report.gaps) == (name, 30, 0)
        check_exact(settings, stored)
        await publish(client, settings, [b"an event"] * 5, "analysis.ndvi_computed")
        assert (await drain_log(settings)).drained == 0
        info = await js.stream_info(name)
        config: StreamConfig = info.config
        config.max_msgs = 2
        await js.update_stream(config)
        report = await drain_log(settings)
        assert report.notes[0].startswith("Possibly lost: sequences 121 to 123; ")
        assert gaps(settings) == [(121, 123, False)]
        assert (await drain_log(settings)).gaps == 0
        await js.delete_stream(name)


async def test_messages_of_subjects_that_the_stream_once_had_are_passed_over(
    settings: Settings, client: Client
) -> None:
    """Its subjects are the log's now, so the server does not select them for us."""
    js = client.jetstream()
    config: StreamConfig = (await js.stream_info(settings.dlq_stream)).config
    own = list(config.subjects or [])
    other = f"once-{settings.subject_prefix}"
    config.subjects = [*own, other]
    await js.update_stream(config)
    stored = {}
    for number in range(30):
        if number % 10 == 9:
            stored |= await publish(client, settings, [letter(number)])
        await js.publish(other, b"an event")
    config.subjects = own
    await js.update_stream(config)
    report = await drain_log(settings.model_copy(update={"drain_batch_messages": 4}))
    assert (report.drained, report.gaps, report.last_sequence) == (3, 0, 32)
    check_exact(settings, stored)
    assert (await drain_log(settings)).drained == 0


# -- recreated


async def test_a_recreated_stream_is_a_new_epoch_from_its_start(
    settings: Settings, client: Client
) -> None:
    stored = await publish(client, settings, map(letter, range(30)))
    first = await drain_log(settings)
    js = client.jetstream()
    await js.delete_stream(settings.dlq_stream)
    await ensure_streams(js, settings.stream_names)
    later = await publish(client, settings, map(letter, range(100, 140)))
    second = await drain_log(settings)
    assert (second.drained, second.last_sequence, second.gaps) == (40, 40, 0)
    assert second.epoch != first.epoch
    assert "recreated" in second.notes[0]
    lake = in_lake(settings)
    both = sorted([*stored.values(), *later.values()])
    events = sorted(json.loads(body)["event_id"] for body in both)
    assert sorted(lake["event_id"]) == events
    assert sorted(row["event_id"] for row in failures(settings)) == events
    before = state_of(settings)
    again = await drain_log(settings)
    assert (again.drained, again.notes, state_of(settings)) == (0, (), before)


# -- rewound


class Rewinding:
    """A NATS server whose store can be set back to an earlier copy."""

    def __init__(self, server: NatsServer, settings: Settings) -> None:
        self.server = server
        self.settings = settings
        self._copies = 0

    async def publish(self, numbers: range) -> dict[int, bytes]:
        async with await nats.connect(self.server.url) as client:
            await ensure_streams(client.jetstream(), self.settings.stream_names)
            return await publish(client, self.settings, map(letter, numbers))

    async def save(self) -> Path:
        """A copy of the store."""
        await asyncio.to_thread(self.server.stop)
        self._copies += 1
        copy = self.server.data.with_name(f"copy-{self._copies}")
        shutil.copytree(self._store, copy)
        await asyncio.to_thread(self.server.start)
        return copy

    async def restore(self, copy: Path) -> None:
        """Restore the copy."""
        await asyncio.to_thread(self.server.stop)
        shutil.rmtree(self._store)
        shutil.copytree(copy, self._store)
        await asyncio.to_thread(self.server.start)

    async def drain(self, batch: int = 20) -> DrainReport:
        return await drain_log(self.settings.model_copy(update={"drain_batch_messages": batch}))

    @property
    def _store(self) -> Path:
        return self.server.data / "jetstream"


@pytest.fixture
def rewinding(nats_server_factory: Callable[..., NatsServer], settings: Settings) -> Rewinding:
    server = nats_server_factory()
    return Rewinding(server, settings.model_copy(update={"nats_url": SecretStr(server.url)}))


@pytest.mark.parametrize("old", [60, 57, 43])  # at an anchor, and between two
@pytest.mark.parametrize("new", [10, 80])  # ends before, and beyond, what was drained
async def test_a_rewound_stream_is_a_new_epoch_from_where_it_differs(
    rewinding: Rewinding, old: int, new: int
) -> None:
    settings = rewinding.settings
    kept = await rewinding.publish(range(old))
    copy = await rewinding.save()
    lost = await rewinding.publish(range(old, 100))
    first = await rewinding.drain()
    await rewinding.restore(copy)
    fresh = await rewinding.publish(range(1000, 1000 + new))
    assert min(fresh) == old + 1  # sequences are used again
    second = await rewinding.drain()
    assert f"set back to sequence {old}" in second.notes[0]
    assert (second.drained, second.last_sequence) == (new, old + new)
    assert second.epoch.removesuffix("#1") == first.epoch.removesuffix("#0")
    lake = in_lake(settings)
    assert lake.filter(epoch=second.epoch)["dlq_sequence"].to_list() == sorted(fresh)
    bodies = [*kept.values(), *lost.values(), *fresh.values()]
    events = sorted(json.loads(body)["event_id"] for body in bodies)
    assert (
        sorted(lake["event_id"]) == events
    )  # what the stream lost is kept, nothing is stored twice
    rows = failures(settings)
    assert sorted(row["event_id"] for row in rows) == events
    assert {row["seen_count"] for row in rows} == {1}
    before = state_of(settings)
    assert (await rewinding.drain()).notes == ()
    assert state_of(settings) == before


async def test_a_stream_rewound_twice_goes_back_behind_the_first_rewind(
    rewinding: Rewinding,
) -> None:
    published = list((await rewinding.publish(range(30))).values())
    early = await rewinding.save()
    published += (await rewinding.publish(range(30, 70))).values()
    late = await rewinding.save()
    published += (await rewinding.publish(range(70, 100))).values()
    await rewinding.drain()
    await rewinding.restore(late)
    published += (await rewinding.publish(range(200, 250))).values()
    assert "set back to sequence 70" in (await rewinding.drain()).notes[0]
    await rewinding.restore(early)
    published += (await rewinding.publish(range(300, 320))).values()
    last = await rewinding.drain()
    assert last.epoch.endswith("#2")
    # Between the anchors at 20 and 40, the lake's rows of the first fork say where it differs.
    assert "set back to sequence 30" in last.notes[0]
    events = {json.loads(body)["event_id"] for body in published}
    assert {row["event_id"] for row in failures(rewinding.settings)} == events
    assert len(failures(rewinding.settings)) == len(events)
    assert sorted(in_lake(rewinding.settings)["event_id"]) == sorted(events)
    assert {row["seen_count"] for row in failures(rewinding.settings)} == {1}
    assert (await verify_stores(rewinding.settings)).findings == ()


async def test_a_stream_that_was_rewound_and_comes_back_whole_is_not_stored_twice(
    rewinding: Rewinding,
) -> None:
    """First an old snapshot is restored, then the right one, whose messages are known already."""
    published = list((await rewinding.publish(range(30))).values())
    early = await rewinding.save()
    published += (await rewinding.publish(range(30, 70))).values()
    whole = await rewinding.save()
    await rewinding.drain()
    await rewinding.restore(early)
    published += (await rewinding.publish(range(200, 215))).values()
    await rewinding.drain()
    await rewinding.restore(whole)
    published += (await rewinding.publish(range(300, 310))).values()
    report = await rewinding.drain()
    assert report.last_sequence == 80
    events = sorted(json.loads(body)["event_id"] for body in published)
    assert sorted(in_lake(rewinding.settings)["event_id"]) == events
    rows = failures(rewinding.settings)
    assert sorted(row["event_id"] for row in rows) == events
    assert {row["seen_count"] for row in rows} == {1}


@pytest.mark.parametrize("behind", ["lake", "postgres"])
async def test_a_sink_that_lagged_when_the_stream_was_rewound_lacks_nothing(
    rewinding: Rewinding, behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = rewinding.settings
    published = list((await rewinding.publish(range(45))).values())
    copy = await rewinding.save()
    published += (await rewinding.publish(range(45, 80))).values()
    with monkeypatch.context() as patched:
        stop_sink(patched, behind, after=30)
        with pytest.raises(InjectedError):
            await rewinding.drain(10)
    await rewinding.restore(copy)
    published += (await rewinding.publish(range(200, 210))).values()
    report = await rewinding.drain(10)
    ahead = {"lake": failures(settings), "postgres": in_lake(settings).to_dicts()}[behind]
    events = sorted({json.loads(body)["event_id"] for body in published[:45] + published[80:]})
    assert set(events) <= {row["event_id"] for row in ahead}
    assert sorted(in_lake(settings)["event_id"]) == sorted(row["event_id"] for row in ahead)
    assert {row["seen_count"] for row in failures(settings)} == {1}
    assert len(failures(settings)) == in_lake(settings).height
    assert (report.gaps, report.last_sequence) == (0, 55)
    assert (await verify_stores(settings)).findings == ()


async def test_the_return_of_an_older_life_of_the_stream_is_drained(rewinding: Rewinding) -> None:
    published = list((await rewinding.publish(range(30))).values())
    copy = await rewinding.save()
    await rewinding.drain()
    async with await nats.connect(rewinding.server.url) as client:
        await client.jetstream().delete_stream(rewinding.settings.dlq_stream)
    published += (await rewinding.publish(range(100, 120))).values()
    await rewinding.drain()
    await rewinding.restore(copy)
    published += (await rewinding.publish(range(200, 210))).values()
    report = await rewinding.drain()
    assert (report.drained, report.last_sequence) == (10, 40)
    assert "set back to sequence 30" in report.notes[0]
    events = sorted(json.loads(body)["event_id"] for body in published)
    assert sorted(in_lake(rewinding.settings)["event_id"]) == events
    assert sorted(row["event_id"] for row in failures(rewinding.settings)) == events
    assert (await rewinding.drain()).drained == 0


async def test_a_stream_rewound_while_the_drain_reads_is_noticed_before_anything_is_read(
    rewinding: Rewinding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain continues after the restart; what it reads then belongs to another epoch."""
    await rewinding.publish(range(50))
    copy = await rewinding.save()
    await rewinding.publish(range(50, 200))
    read, calls = LogReader.read, 0
    fresh: dict[int, bytes] = {}

    async def rewound(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            await rewinding.restore(copy)
            fresh.update(await rewinding.publish(range(1000, 1150)))
        return await read(*arguments)

    monkeypatch.setattr(LogReader, "read", rewound)
    report = await rewinding.drain()
    assert report.epoch.endswith("#1")
    lake = in_lake(rewinding.settings)
    assert lake.filter(epoch=report.epoch)["dlq_sequence"].to_list() == sorted(fresh)
    assert lake["event_id"].n_unique() == lake.height == len(failures(rewinding.settings)) == 250


async def test_a_fresh_lake_takes_all_that_the_stream_has_after_a_rewind(
    rewinding: Rewinding,
) -> None:
    kept = await rewinding.publish(range(40))
    copy = await rewinding.save()
    await rewinding.publish(range(40, 60))
    await rewinding.drain()
    await rewinding.restore(copy)
    kept |= await rewinding.publish(range(100, 110))
    await rewinding.drain()
    rewinding.settings = rewinding.settings.model_copy(
        update={"lake_uri": str(rewinding.settings.home / "fresh")}
    )
    report = await rewinding.drain()
    assert report.drained == 70
    lake = in_lake(rewinding.settings)
    assert lake.filter(epoch=report.epoch)["dlq_sequence"].to_list() == sorted(kept)
    lost = lake.filter(pl.col("epoch") != report.epoch)  # only Postgres still has them
    assert (lost["dlq_sequence"].to_list(), lost["envelope"][0]) == ([*range(41, 61)], "restored")
    assert (await verify_stores(rewinding.settings)).findings == ()


# -- the lake's own fence


@pytest.mark.parametrize("epoch", ["same", "older"])
def test_a_sleeper_can_not_append_on_an_old_snapshot_whatever_its_epoch(
    settings: Settings, epoch: str
) -> None:
    sleeper = Lake(settings.lake).table("case_events")
    sleeper.append(sleeper.empty_frame(), "older", 5)
    awake = Lake(settings.lake).table("case_events")
    awake.append(awake.empty_frame(), "same", 7)
    with pytest.raises(FencedError, match="Another drain wrote to"):
        sleeper.append(sleeper.empty_frame(), epoch, 9)
    assert Lake(settings.lake).watermark("case_events", "same") == 7
    assert Lake(settings.lake).watermark("case_events", "older") == 5


async def test_a_stall_while_a_fresh_lake_is_filled_skips_nothing(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await publish(client, settings, map(letter, range(80)))
    await drain_log(settings)
    fresh = settings.model_copy(
        update={"lake_uri": str(settings.home / "fresh"), "drain_batch_messages": 10}
    )
    read, calls = LogReader.read, 0

    async def stalling(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise ServerUnavailableError("A stall.")
        return await read(*arguments)

    monkeypatch.setattr(LogReader, "read", stalling)
    assert (await drain_log(fresh)).drained == 80
    check_exact(fresh, stored)
