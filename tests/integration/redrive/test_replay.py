"""Replays on real servers: events that a service handled wrongly are given to it again."""

import asyncio
import contextlib
import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StreamConfig

from sahool_dlq.cli import _command
from sahool_dlq.errors import RedriveError, UnknownNameError
from sahool_dlq.events import ConsumerContext, ProcessingResult
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.jobs.batches import approve, pause, resume
from sahool_dlq.jobs.case_history import case_history
from sahool_dlq.jobs.decisions import audit_trail, decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.redrive import run_redrive
from sahool_dlq.jobs.replay import plan_replay, preview_replay
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.redrive.replay.selection import ReplaySelection
from sahool_dlq.settings import Settings
from support.platform_log import DLQ, ROOT, environment, execute
from support.redriving import (
    Service,
    dead_letters,
    event_ids,
    publish,
    quick,
    redrive_timeouts,
    rows,
    seen,
)
from support.servers import nats as nats_of_tests

ALL = ReplaySelection("ndvi", since=1)
REPLAYS = "SELECT id, replay_of, consumer, stream, sequence, announced FROM replays ORDER BY 5"

pytestmark = pytest.mark.xdist_group("replay")  # they have a NATS of their own


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server: a redrive to another consumer also takes in what consumers of
    other tests gave up.
    """
    with nats_of_tests(tmp_path_factory.mktemp("replay")) as server:
        yield server.url


@dataclass
class Picky(Service):
    """A service that fails on some events only."""

    fails_on: set[str] = field(default_factory=set)

    def is_cured(self, context: ConsumerContext) -> bool:
        return json.loads(context.data)["event_id"] not in self.fails_on


async def handled(settings: Settings, client: Client, count: int, durable: str = "ndvi") -> None:
    """Wait until a consumer has acknowledged everything up to a sequence."""
    async with asyncio.timeout(30):
        while True:
            info = await client.jetstream().consumer_info(settings.events_stream, durable)
            if info.ack_floor and info.ack_floor.stream_seq >= count:
                return
            await asyncio.sleep(0.02)


async def publish_more(client: Client, settings: Settings, crops: dict[str, str]) -> None:
    for number, (event_id, crop) in enumerate(crops.items(), 4):
        body = json.dumps({"event_id": event_id, "crop": crop}).encode()
        subject = f"{settings.subject_prefix}.analysis.ndvi"
        await client.jetstream().publish(subject, body, headers={"trace": f"t{number}"})


def resuming(settings: Settings, batch: Batch) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*DLQ, "batches", "resume", batch.id],
        cwd=ROOT,
        env=environment(settings, DLQ_REDRIVE_PER_SECOND="20"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def frozen(settings: Settings, selection: ReplaySelection = ALL, **order: float) -> Batch:
    planned = await plan_replay(settings, selection, Order("manual", "ana", "rounded", **order))
    assert planned is not None
    return planned[0]


async def test_events_that_succeeded_go_to_their_consumer_alone_again(
    settings: Settings, client: Client
) -> None:
    settings, other = quick(settings), Service(settings, name="other")
    async with Service(settings).running() as service, other.running():
        await publish(client, settings, 25, crop="wheat")
        await handled(settings, client, 25)
        await handled(settings, client, 25, "other")
        service.seen.clear()
        shown = await preview_replay(settings, ALL)
        assert (shown.planned, shown.consumer) == (25, f"{settings.events_stream}/ndvi")
        assert shown.reached.unreached == ()
        assert not service.seen
        batch = await frozen(settings)
        report = await run_redrive(settings, batch.id)
        await handled(settings, client, 50, "other")
    assert (report.state, report.outcomes) == ("done", {"succeeded": 25})
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(25))
    assert service.seen[0].headers["trace"] == "t0"
    assert len(other.seen) == 25
    assert rows(settings, "SELECT DISTINCT state FROM redrives") == [("succeeded",)]
    assert rows(settings, "SELECT count(*) FROM failed_events") == [(0,)]
    assert rows(settings, "SELECT count(*) FROM unfounded_outcomes") == [(0,)]
    trail = audit_trail(settings, about=batch.id)
    assert [(row["action"], row["actor"]) for row in reversed(trail)] == [
        ("redrive.planned", "ana"),
        ("redrive.running", "ana"),
        ("redrive.done", "ana"),
    ]
    assert trail[-1]["detail"]["kind"] == batch.kind == "replay"
    assert trail[-1]["reason"] == "rounded"


async def test_a_replayed_event_that_fails_becomes_a_dead_letter_of_its_own(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with Picky(settings, KeyError("crop"), fails_on={"e7"}).running() as service:
        service.error = None
        await publish(client, settings, 15)
        await handled(settings, client, 15)
        service.error = KeyError("crop")
        report = await run_redrive(settings, (await frozen(settings)).id)
        assert (report.state, report.outcomes) == ("done", {"succeeded": 14, "failed_again": 1})
        assert rows(settings, "SELECT event_id, status, opening FROM failed_events") == [
            ("e7", "pending", 1)
        ]
        [(failure, state)] = rows(
            settings,
            "SELECT f.id::text, r.state FROM failed_events f"
            " JOIN redrives r ON r.failure_id = f.root_failure_id",
        )
        assert state == "failed_again"
        assert query(settings, "SELECT event_id, status FROM failures").rows() == [
            ("e7", "pending")
        ]
        assert query(settings, "SELECT count(*) FROM redrives").rows() == [(0,)]  # of failures
        assert rows(settings, "SELECT count(*) FROM answered_redrives") == [(0,)]
        said = [(what, who, why) for _, what, who, why in case_history(settings, failure)]
        assert said == [("replay.published", "ana", "rounded"), ("failed", "ndvi", "KeyError")]
        assert rows(settings, "SELECT count(*) FROM unfounded_outcomes") == [(0,)]
        # It is redriven like any other failure, and replayed no more while it is open.
        assert (await preview_replay(settings, ALL)).found.left_out == {"open": 1}
        service.error = None
        redriven = await redrive_timeouts(settings, selection=Selection((failure,)))
        assert redriven is not None
        assert redriven.outcomes == {"succeeded": 1}
        shown = await preview_replay(settings, ALL)
    assert (shown.planned, shown.found.left_out) == (15, {})  # of each event one copy


async def test_a_replay_stops_itself_after_the_first_event_that_fails(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with Service(settings).running() as service:
        await publish(client, settings, 12)
        await handled(settings, client, 12)
        service.error = ValueError("still wrong")
        service.seen.clear()
        batch = await frozen(settings)
        report = await run_redrive(settings, batch.id)
    assert (report.state, report.outcomes) == ("aborted", {"failed_again": 1, "cancelled": 11})
    assert len(service.seen) == 1
    assert rows(settings, "SELECT status, count(*) FROM failed_events GROUP BY 1") == [
        ("pending", 1)
    ]


async def test_failures_are_left_to_redrives_and_to_the_people_who_closed_them(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    service = Picky(settings, TimeoutError("slow"), fails_on={"e0", "e1", "e2"})
    async with service.running():
        await publish(client, settings, 6)
        await dead_letters(client, settings, 3)
        await handled(settings, client, 6)
        await drain_log(settings)
        ids = dict(rows(settings, "SELECT event_id, id::text FROM failed_events"))
        await decide(settings, Selection((ids["e0"],)), "discarded", actor="bo", reason="a test")
        service.error = None
        again = await redrive_timeouts(settings, selection=Selection((ids["e1"],)))
        assert again is not None
        assert again.outcomes == {"succeeded": 1}
        shown = await preview_replay(settings, ALL)
        assert shown.found.left_out == {"closed": 1, "open": 1}
        service.seen.clear()
        report = await run_redrive(settings, (await frozen(settings)).id)
    assert report.outcomes == {"succeeded": 4}
    assert sorted(event_ids(service)) == ["e1", "e3", "e4", "e5"]  # e1 once, though stored twice


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (ReplaySelection("ndvi", since=3, until=5), {"e2", "e3"}),
        (ReplaySelection("ndvi", where="data.crop = 'rye' AND headers.Trace <> 't5'"), {"e4"}),
        (ReplaySelection("ndvi", where="event_id IN ('e1', 'e9')"), {"e1"}),
        (ReplaySelection("ndvi", since=1, limit=2), {"e0", "e1"}),
        (ReplaySelection("ndvi", subject="*.analysis.ndvi", since=5), {"e4", "e5"}),
        (ReplaySelection("ndvi", subject="*.analysis.lai"), set()),
        (ReplaySelection("ndvi", until=datetime(2026, 1, 1, tzinfo=UTC)), set()),
    ],
)
async def test_only_the_selected_events_are_planned(
    settings: Settings, client: Client, selection: ReplaySelection, expected: set[str]
) -> None:
    async with Service(settings).running() as service:
        await publish(client, settings, 4, crop="wheat")
        await publish_more(client, settings, {"e4": "rye", "e5": "rye"})
        await handled(settings, client, 6)
        shown = await preview_replay(settings, selection)
    assert {f"e{event.sequence - 1}" for event in shown.found.events} == expected
    assert shown.found.rest_from == (3 if selection.limit == 2 else None)
    assert {context.redrive_of for context in service.seen} == {None}


async def test_a_time_selects_by_when_events_were_stored(
    settings: Settings, client: Client
) -> None:
    async with Service(settings).running():
        await publish(client, settings, 6)
        await handled(settings, client, 6)
        stored = [
            await stored_message(client, settings.events_stream, sequence)
            for sequence in range(1, 7)
        ]
        times = [datetime.fromtimestamp(each.timestamp_ns / 1e9, UTC) for each in stored if each]
        chosen = ReplaySelection(
            "ndvi",
            since=times[2] - timedelta(microseconds=10),
            until=times[4] - timedelta(microseconds=10),
        )
        shown = await preview_replay(settings, chosen)
        await client.jetstream().purge_stream(settings.events_stream, seq=4)
        rest = await preview_replay(settings, chosen)
    assert [event.sequence for event in shown.found.events] == [3, 4]
    assert shown.found.begins_at is None
    assert [event.sequence for event in rest.found.events] == [4]
    assert rest.found.begins_at is not None


async def test_events_that_are_not_finished_are_left_out(
    settings: Settings, client: Client
) -> None:
    held = asyncio.Event()

    class Slow(Service):
        async def handle(self, context: ConsumerContext) -> ProcessingResult:
            if json.loads(context.data)["event_id"] == "e3":
                await held.wait()
            return await super().handle(context)

    async with Slow(settings).running() as service:
        await publish(client, settings, 5)
        await handled(settings, client, 3)
        await seen(service, 4)  # all but the one that is held
        shown = await preview_replay(settings, ALL)
        before = await preview_replay(settings, ReplaySelection("ndvi", until=3))
        held.set()
    assert [event.sequence for event in shown.found.events] == [1, 2, 3]
    assert shown.found.unfinished >= 1
    assert before.found.unfinished == 0  # what was selected is finished


async def test_a_killed_replay_is_continued_and_gives_no_event_twice(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_per_second=40)
    async with Service(settings).running() as service:
        await publish(client, settings, 40)
        await handled(settings, client, 40)
        service.seen.clear()
        batch = await frozen(settings)
        process = resuming(settings, batch)
        await seen(service, 15)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        assert len(service.seen) < 40
        async with asyncio.timeout(60):  # until the killed session's lock is free
            while (report := await continued(settings, batch)) is None:
                await asyncio.sleep(0.2)
    assert report.state == "done"
    assert Counter(event_ids(service)) == Counter(f"e{n}" for n in range(40))
    states = "SELECT state, count(*) FROM redrives GROUP BY 1"
    assert rows(settings, states) == [("succeeded", 40)]


async def continued(settings: Settings, batch: Batch) -> RedriveReport | None:
    with contextlib.suppress(RedriveError):
        return await run_redrive(settings, batch.id)
    return None


async def test_a_paused_replay_goes_on_and_a_second_one_leaves_its_events_out(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_per_second=20)
    async with Service(settings).running() as service:
        await publish(client, settings, 30)
        await handled(settings, client, 30)
        service.seen.clear()
        batch = await frozen(settings)
        running = asyncio.create_task(run_redrive(settings, batch.id))
        await seen(service, 12)
        pause(settings, batch.id, by="bo", reason="too fast")
        report = await running
        done = len(service.seen)
        assert report.outcomes == {"succeeded": done, "held": 30 - done}
        shown = await preview_replay(settings, ALL)
        assert shown.found.left_out == {"replaying": 30 - done}
        resume(settings, batch.id, by="bo")
        rest = await run_redrive(settings, batch.id)
    assert (rest.state, rest.outcomes) == ("done", {"succeeded": 30 - done})
    assert Counter(event_ids(service)) == Counter(f"e{n}" for n in range(30))


async def test_two_plans_at_the_same_time_share_no_event(
    settings: Settings, client: Client
) -> None:
    """The second is stored while the first has read the events, but is not stored yet."""
    other: list[Batch] = []

    def plan_in_between(_: int) -> None:
        with ThreadPoolExecutor(1) as thread:
            other.append(thread.submit(asyncio.run, frozen(settings)).result())

    async with Service(settings).running():
        await publish(client, settings, 5)
        await handled(settings, client, 5)
    planned = await plan_replay(
        settings, ALL, Order("manual", "bo", "rounded"), progress=plan_in_between
    )
    assert planned is not None
    assert [batch.planned for batch in other] == [5]
    assert planned[0].planned == 0
    assert len(rows(settings, REPLAYS)) == 5


async def test_a_large_replay_waits_for_an_approval(settings: Settings, client: Client) -> None:
    settings = quick(settings, redrive_approval_count=5)
    async with Service(settings).running() as service:
        await publish(client, settings, 6)
        await handled(settings, client, 6)
        service.seen.clear()
        batch = await frozen(settings)
        assert batch.state == "awaiting_approval"
        with pytest.raises(RedriveError, match="dlq batches approve"):
            await run_redrive(settings, batch.id)
        assert not service.seen
        approve(settings, batch.id, by="bo")
        report = await run_redrive(settings, batch.id)
    assert report.outcomes == {"succeeded": 6}


async def test_an_event_that_its_stream_has_lost_is_expired(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with Service(settings).running() as service:
        await publish(client, settings, 3)
        await handled(settings, client, 3)
        service.seen.clear()
        batch = await frozen(settings)
        await client.jetstream().purge_stream(settings.events_stream, seq=3)
        report = await run_redrive(settings, batch.id)
    assert report.outcomes == {"expired": 2, "succeeded": 1}
    assert event_ids(service) == ["e2"]
    assert "no longer has its event" in next(iter(report.reasons["expired"]))


async def test_a_consumer_without_the_library_is_believed_by_its_acknowledgement(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    js = client.jetstream()
    foreign = await js.pull_subscribe("", "billing", stream=settings.events_stream)
    await publish(client, settings, 2)
    for msg in await foreign.fetch(2):
        await msg.ack_sync()
    batch = await frozen(settings, ReplaySelection("billing", since=1))
    running = asyncio.create_task(run_redrive(settings, batch.id))
    got: list[str] = []
    while not running.done():
        with contextlib.suppress(TimeoutError):
            for msg in await foreign.fetch(1, timeout=0.5):
                got.append(json.loads(msg.data)["event_id"])
                await msg.ack()
    report = await running
    await foreign.unsubscribe()
    assert report.outcomes == {"succeeded": 2}
    assert sorted(got) == ["e0", "e1"]
    assert all(why.startswith("inferred:") for why in report.reasons["succeeded"])


async def test_a_consumer_that_does_not_exist_or_has_handled_nothing(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    config = ConsumerConfig(durable_name="idle", ack_policy=AckPolicy.NONE)
    await client.jetstream().add_consumer(settings.events_stream, config)
    with pytest.raises(UnknownNameError, match="no consumer 'nobody'"):
        await preview_replay(settings, ReplaySelection("nobody", since=1))
    with pytest.raises(UnknownNameError, match="no consumer 'S/a/b'"):
        await preview_replay(settings, ReplaySelection("S/a/b", since=1))
    await publish(client, settings, 1)
    shown = await preview_replay(settings, ReplaySelection("idle", since=1))
    assert shown.planned == 0  # it has not handled it


async def test_a_name_means_the_events_stream_and_else_must_be_unique(
    settings: Settings, client: Client
) -> None:
    js, prefix = client.jetstream(), settings.subject_prefix
    durable, streams = f"only_{prefix}", [f"{prefix}_a", f"{prefix}_b"]
    for stream in streams:
        await js.add_stream(name=stream, subjects=[f"{stream}.>"])
        await js.add_consumer(stream, ConsumerConfig(durable_name=durable))
    with pytest.raises(RedriveError, match=f"write {prefix}_a/{durable} or {prefix}_b/{durable}"):
        await preview_replay(settings, ReplaySelection(durable, since=1))
    shown = await preview_replay(settings, ReplaySelection(f"{streams[1]}/{durable}", since=1))
    assert shown.consumer == f"{streams[1]}/{durable}"
    await js.delete_stream(streams[1])
    shown = await preview_replay(settings, ReplaySelection(durable, since=1))
    assert shown.consumer == f"{streams[0]}/{durable}"
    await js.add_consumer(settings.events_stream, ConsumerConfig(durable_name=durable))
    shown = await preview_replay(settings, ReplaySelection(durable, since=1))
    assert shown.consumer == f"{settings.events_stream}/{durable}"
    await js.delete_stream(streams[0])


async def test_a_work_queue_has_nothing_to_replay(settings: Settings, client: Client) -> None:
    js, stream = client.jetstream(), f"{settings.subject_prefix}_queue"
    config = StreamConfig(name=stream, subjects=[stream], retention=RetentionPolicy.WORK_QUEUE)
    await js.add_stream(config)
    await js.add_consumer(stream, ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT))
    with pytest.raises(RedriveError, match="deletes the events that were handled"):
        await preview_replay(settings, ReplaySelection(f"{stream}/c", since=1))
    await js.delete_stream(stream)


async def test_replays_are_known_again_in_a_database_that_was_filled_from_the_lake(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with Picky(settings, KeyError("crop"), fails_on={"e1"}).running() as service:
        service.error = None
        await publish(client, settings, 3)
        await handled(settings, client, 3)
        service.error = KeyError("crop")
        await run_redrive(settings, (await frozen(settings)).id)
        before = rows(settings, REPLAYS)
        execute(
            settings,
            "TRUNCATE failed_events, failed_payloads, drain_checkpoints, drain_epochs,"
            " drain_anchors, redrives, redrive_batches, replays, service_totals CASCADE",
        )
        await drain_log(settings)
    assert rows(settings, REPLAYS) == before
    assert len(before) == 3
    assert rows(settings, "SELECT event_id, status FROM failed_events") == [("e1", "pending")]
    assert rows(settings, "SELECT count(*) FROM unfounded_outcomes") == [(0,)]


async def test_the_command_shows_a_plan_runs_it_and_lists_its_batch(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(settings, COLUMNS="200").items():
        if name.startswith("DLQ_") or name == "COLUMNS":
            monkeypatch.setenv(name, value)

    async def dlq(*arguments: str, status: int = 0) -> str:
        ran = await asyncio.to_thread(CliRunner().invoke, _command(), arguments)
        assert ran.exit_code == status, ran.output
        return ran.output

    event = ["replay", "--consumer", "ndvi", "--since", "1h", "--where", "data.crop = 'rye'"]
    async with Service(settings).running() as service:
        await publish(client, settings, 2, crop="wheat")
        await publish_more(client, settings, {"e4": "rye"})
        await handled(settings, client, 3)
        service.seen.clear()
        shown = await dlq(*event, "--dry-run")
        assert "A replay would publish 1 event for" in shown
        assert "Read 3 events in" in shown
        assert "--reason" in await dlq(*event, status=2)
        assert not service.seen
        assert "succeeded" in await dlq(*event, "--reason", "rounded", "--by", "ana")
    assert event_ids(service) == ["e4"]
    [batch] = json.loads(await dlq("batches", "--json"))["batches"]
    assert (batch["kind"], batch["requested_by"], batch["reason"]) == ("replay", "ana", "rounded")
    assert batch["selection"]["where"] == "data.crop = 'rye'"
    assert "replay" in await dlq("batches")
