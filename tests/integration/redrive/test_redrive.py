"""Redrives on real servers: services fail, the cause ends, the failures are resolved."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig, StreamSource, SubjectTransform
from nats.js.errors import APIError, NoStreamResponseError

from sahool_dlq.deadletter.ids import redrive_id
from sahool_dlq.errors import RedriveError, ServerUnavailableError
from sahool_dlq.events import (
    ConsumerContext,
    DLQAction,
    DLQEvent,
    ProcessingResult,
    start_dlq_consumer,
)
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.redrive import preview_redrive, transient_selection
from sahool_dlq.jobs.watch import monitor_config
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.publish.outcomes import OutcomeFollower
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import locking
from support.platform_log import execute
from support.redriving import (
    TIMEOUTS,
    Service,
    dead_letters,
    publish,
    quick,
    redrive_timeouts,
    rows,
)


async def test_a_cured_failure_is_resolved_with_its_original_bytes_and_headers(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await publish(client, settings, 25, nested={"b": 1, "a": 1.10})
        await dead_letters(client, settings, 25)
        service.error = None
        service.seen.clear()
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert (report.planned, report.outcomes) == (25, {"succeeded": 25})
    assert {json.loads(c.data)["event_id"] for c in service.seen} == {f"e{n}" for n in range(25)}
    first = service.seen[0]
    assert b'"nested": {"b": 1, "a": 1.1}' in first.data
    assert first.headers["trace"].startswith("t")
    assert first.redrive_of is not None
    assert first.headers["Nats-Msg-Id"] == redrive_id(first.redrive_of, 1)
    statuses = rows(settings, "SELECT DISTINCT status, resolution_cause FROM failed_events")
    assert statuses == [("resolved", "automatic_redrive")]
    assert rows(settings, "SELECT DISTINCT state FROM redrives") == [("succeeded",)]
    assert query(settings, "SELECT DISTINCT status, cause FROM cases").rows() == [
        ("resolved", "automatic_redrive")
    ]


async def test_a_group_that_is_not_cured_stops_after_its_canary(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await publish(client, settings, 12)
        await dead_letters(client, settings, 12)
        service.seen.clear()
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert report.outcomes == {"failed_again": 1, "cancelled": 11}
    assert len(service.seen) == 1
    assert len(report.stopped_groups) == 1
    live = rows(settings, "SELECT status, redrive_count, count(*) FROM failed_events GROUP BY 1, 2")
    assert sorted(live) == [("pending", 0, 11), ("pending", 1, 1), ("superseded", 0, 1)]


async def test_a_failure_is_parked_at_the_cap_and_left_alone_then(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_cap=2)
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        for _ in range(2):
            assert (await redrive_timeouts(settings)) is not None
        assert await redrive_timeouts(settings) is None
        roots = "SELECT status, redrive_count FROM failed_events WHERE root_failure_id IS NULL"
        assert rows(settings, roots) == [("parked", 2)]
        [(root,)] = rows(settings, "SELECT id::text FROM failed_events WHERE status = 'parked'")
        service.error = None
        by_hand = Selection(failure_ids=(root,))
        report = await redrive_timeouts(settings, selection=by_hand, trigger="manual")
    assert report is not None
    assert report.outcomes == {"succeeded": 1}
    causes = "SELECT status, resolution_cause FROM failed_events WHERE root_failure_id IS NULL"
    assert rows(settings, causes) == [("resolved", "manual_redrive")]


async def test_a_redrive_reaches_only_the_consumer_that_failed(
    settings: Settings, client: Client
) -> None:
    other = Service(settings, name="other")
    async with Service(settings, TimeoutError("slow")).running() as service, other.running():
        await publish(client, settings, 3)
        await dead_letters(client, settings, 3)
        service.error = None
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert report.outcomes == {"succeeded": 3}
    assert [context.redrive_of for context in other.seen] == [None] * 3


async def test_silence_is_an_unknown_outcome_and_never_a_success(
    settings: Settings, client: Client
) -> None:
    gate = asyncio.Event()

    class Slow(Service):
        async def handle(self, context: ConsumerContext) -> ProcessingResult:
            if context.redrive_of is not None:
                await gate.wait()
            return await super().handle(context)

    async with Slow(settings, TimeoutError("slow")).running() as service:
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        service.error = None
        report = await redrive_timeouts(quick(settings, redrive_timeout_seconds=0.5))
        assert report is not None
        assert report.outcomes == {"outcome_unknown": 1}
        assert rows(settings, "SELECT status, redrive_count FROM failed_events") == [("pending", 1)]
        gate.set()  # the redrive succeeds after all
        await dead_letters(client, settings, 4)
    await drain_log(settings)
    assert rows(settings, "SELECT status FROM failed_events") == [("resolved",)]
    assert rows(settings, "SELECT state FROM redrives") == [("succeeded",)]


async def test_a_subject_outside_the_allow_list_is_refused_and_parked(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow")).running():
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        report = await redrive_timeouts(quick(settings, redrive_subjects=["other.>"]))
    assert report is not None
    assert report.outcomes == {"refused": 1}
    [(status, notes)] = rows(settings, "SELECT status, resolution_notes FROM failed_events")
    assert status == "parked"
    assert "DLQ_REDRIVE_SUBJECTS" in notes


async def test_a_subject_without_a_stream_is_unroutable(settings: Settings, client: Client) -> None:
    async with Service(settings, TimeoutError("slow")).running():
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
    subject = f"{settings.subject_prefix}.analysis.>"
    await drain_log(settings)
    execute(settings, "UPDATE failed_events SET consumer_name = NULL")  # else it is left alone
    await client.jetstream().delete_stream(settings.events_stream)
    report = await redrive_timeouts(
        quick(settings, redrive_subjects=[subject], redrive_own_copies=True)
    )
    assert report is not None
    assert report.outcomes == {"unroutable": 1}
    assert rows(settings, "SELECT status FROM failed_events") == [("parked",)]


async def test_a_dead_letter_that_left_the_stream_is_expired(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow")).running():
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        await drain_log(settings)
        await client.jetstream().delete_msg(settings.dlq_stream, 1)
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert report.outcomes == {"expired": 1}


async def test_what_is_gone_says_nothing_of_its_group(settings: Settings, client: Client) -> None:
    async with Service(settings, TimeoutError("slow")).running() as service:
        await publish(client, settings, 4)
        await dead_letters(client, settings, 4)
        service.error = None
        await drain_log(settings)
        await client.jetstream().delete_msg(settings.dlq_stream, 1)
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert (report.state, report.outcomes) == ("done", {"expired": 1, "succeeded": 3})
    assert list(report.reasons["expired"].values()) == [1]


async def test_a_stream_without_a_leader_is_waited_for(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_really, refused = JetStreamContext.publish, []

    async def without_leader(js: JetStreamContext, subject: str, *more: Any, **named: Any) -> Any:
        if "Dlq-Redrive-Id" in (named.get("headers") or {}) and not refused:
            refused.append(subject)
            raise NoStreamResponseError
        return await publish_really(js, subject, *more, **named)

    async with Service(settings, TimeoutError("slow")).running() as service:
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        service.error = None
        monkeypatch.setattr(JetStreamContext, "publish", without_leader)
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert (report.outcomes, len(refused)) == ({"succeeded": 1}, 1)


async def test_a_full_stream_parks_no_failure(settings: Settings, client: Client) -> None:
    js = client.jetstream(timeout=60)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        service.error = None
        config = (await js.stream_info(settings.events_stream)).config
        config.max_msgs, config.discard = 1, DiscardPolicy.NEW
        await js.update_stream(config)
        with pytest.raises(ServerUnavailableError, match="the next run continues it"):
            await redrive_timeouts(quick(settings))
    await drain_log(settings)
    assert rows(settings, "SELECT status FROM failed_events") == [("retried",)]
    assert rows(settings, "SELECT state FROM redrive_batches") == [("running",)]


async def test_others_who_get_the_event_do_not_speak_for_the_consumer_that_failed(
    settings: Settings, client: Client
) -> None:
    subjects = settings.subjects
    async with OutcomeFollower(client, subjects) as follower:
        outcome = follower.expect("r", "EVENTS/ndvi")
        anybodys = [follower.expect(each, None) for each in ("p", "q")]

        async def tell(subject: str, **said: str) -> None:
            await client.publish(subject, json.dumps(said).encode())
            await client.flush()

        letters = f"{settings.subject_prefix}.dlq.ndvi"
        other = {"original_stream": "EVENTS", "consumer_name": "other"}
        await tell(letters, redrive_id="r", **other)
        await tell(subjects.redrive("succeeded"), redrive_id="r", consumer="EVENTS/other")
        await tell(subjects.redrive("succeeded"), redrive_id="p", consumer="EVENTS/other")
        await tell(letters, redrive_id="q", **other)
        assert await asyncio.gather(*anybodys) == ["succeeded", "failed_again"]
        assert not outcome.done()
        await tell(subjects.redrive("succeeded"), redrive_id="r", consumer="EVENTS/ndvi")
        assert await outcome == "succeeded"


async def test_a_killed_run_is_taken_up_and_publishes_nothing_twice(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow")).running() as service:
        await publish(client, settings, 30)
        await dead_letters(client, settings, 30)
        service.error = None
        service.seen.clear()
        # Slow enough to be cancelled in the middle, as a killed process would be.
        task = asyncio.create_task(redrive_timeouts(quick(settings, redrive_per_second=10)))
        async with asyncio.timeout(20):
            while len(service.seen) < 12:
                await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert rows(settings, "SELECT state FROM redrive_batches") == [("running",)]
        assert await redrive_timeouts(quick(settings)) is None  # what was left over is all
        events = [json.loads(c.data)["event_id"] for c in service.seen]
    assert sorted(events) == sorted(f"e{n}" for n in range(30))
    assert rows(settings, "SELECT DISTINCT status FROM failed_events") == [("resolved",)]


async def test_a_dry_run_touches_nothing(settings: Settings, client: Client) -> None:
    async with Service(settings, TimeoutError("slow")).running():
        await publish(client, settings, 4)
        await dead_letters(client, settings, 4)
    await drain_log(settings)
    plan = (await preview_redrive(settings, TIMEOUTS)).plan
    assert (plan.count, plan.groups[0].error_type, plan.groups[0].count) == (4, "TimeoutError", 4)
    assert rows(settings, "SELECT count(*) FROM redrives") == [(0,)]
    assert (await client.jetstream().stream_info(settings.dlq_stream)).state.messages == 4


async def test_the_plan_names_other_consumers_of_the_events(
    settings: Settings, client: Client
) -> None:
    healthy = Service(settings, name="healthy")
    async with Service(settings, TimeoutError("slow")).running(), healthy.running():
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
    await drain_log(settings)
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    one, other = (f"{settings.events_stream}/{name}" for name in ("healthy", "ndvi"))
    assert (await preview_redrive(settings, TIMEOUTS)).also_reached == {subject: [one]}
    execute(settings, "UPDATE failed_events SET consumer_name = NULL")  # as older services say it
    assert (await preview_redrive(settings, TIMEOUTS)).also_reached == {subject: [one, other]}


async def test_the_plan_names_consumers_of_the_events_on_other_streams(
    settings: Settings, client: Client
) -> None:
    js, prefix = client.jetstream(timeout=60), settings.subject_prefix
    events, names = settings.events_stream, [f"{kind}_{prefix}" for kind in "ABCDE"]
    renamed = SubjectTransform(f"{prefix}.analysis.*", f"{prefix}copy.{{{{wildcard(1)}}}}.x")
    sources = [
        {"mirror": StreamSource(events)},
        {"sources": [StreamSource(events, subject_transforms=[renamed])]},
        {"sources": [StreamSource(names[1])]},  # of the copy, as it calls it
        {"sources": [StreamSource(events, filter_subject=f"{prefix}.actions.>")]},
        {"sources": [StreamSource(settings.totals_stream)]},
    ]
    for name, from_whom in zip(names, sources, strict=True):
        await js.add_stream(StreamConfig(name, **from_whom))
        await js.add_consumer(name, durable_name="all")
    for filter_subject in (f"{prefix}copy.ndvi.*", f"{prefix}copy.evi.y", f"{prefix}.analysis.*"):
        durable = filter_subject.replace(".", "-").replace("*", "any")
        await js.add_consumer(names[2], durable_name=durable, filter_subject=filter_subject)
    async with Service(settings, TimeoutError("slow")).running():
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
    await drain_log(settings)
    reached = (await preview_redrive(settings, TIMEOUTS)).also_reached
    assert reached == {
        f"{prefix}.analysis.ndvi": [
            *(f"{name}/all" for name in names[:3]),
            f"{names[2]}/{prefix}copy-ndvi-any",
        ]
    }
    for name in reversed(names):
        await js.delete_stream(name)


async def test_news_that_the_log_takes_late_costs_no_attempt(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_really, lost = JetStreamContext.publish, []

    async def late(js: JetStreamContext, subject: str, *more: Any, **named: Any) -> Any:
        if subject.endswith(".redrive.published") and len(lost) < 2:
            lost.append(subject)
            raise APIError(code=409, err_code=10158, description="duplicate message id is in proc")
        return await publish_really(js, subject, *more, **named)

    async with Service(settings, TimeoutError("slow")).running() as service:
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        service.error = None
        monkeypatch.setattr(JetStreamContext, "publish", late)
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert (report.outcomes, len(lost)) == ({"succeeded": 1}, 2)


async def test_subclasses_by_name_are_taken_and_other_errors_are_left(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, ConnectionRefusedError(111, "refused")).running() as service:
        await publish(client, settings, 1)
        await dead_letters(client, settings, 1)
        service.error = ValueError("never transient")
        await publish(client, settings, 1)
        await dead_letters(client, settings, 2)
    await drain_log(settings)
    transient = Selection(error_types=("TimeoutError", "ConnectionError"))
    plan = (await preview_redrive(settings, transient)).plan
    assert [group.error_type for group in plan.groups] == ["ConnectionRefusedError"]


async def test_a_second_redrive_at_once_is_refused_in_one_sentence(
    settings: Settings, client: Client
) -> None:
    with locking(settings.postgres_dsn.get_secret_value(), "redrive") as lock:
        assert lock.take()
        with pytest.raises(RedriveError, match=r"Another redrive is running \(session \d+ of "):
            await redrive_timeouts(settings)


async def test_an_empty_selection_is_refused(settings: Settings) -> None:
    with pytest.raises(RedriveError, match="Say what to redrive"):
        await preview_redrive(settings, Selection())


async def test_what_a_monitor_asked_for_is_redriven_when_due_whatever_its_type(
    settings: Settings, client: Client
) -> None:
    async def ask(event: DLQEvent) -> DLQAction:
        return DLQAction.RETRY

    config = monitor_config(settings, auto_retry_delay_hours=0)
    async with Service(settings, KeyError("ndvi")).running() as service:
        await publish(client, settings, 2)
        monitor = await start_dlq_consumer(ask, config)
        await dead_letters(client, settings, 4)  # and two requests
        await monitor.close()
        service.error = None
        scheduled = transient_selection(settings)
        report = await redrive_timeouts(quick(settings), selection=scheduled)
    assert report is not None
    assert report.outcomes == {"succeeded": 2}
    found = rows(settings, "SELECT DISTINCT status, redrive_not_before FROM failed_events")
    assert found == [("resolved", None)]
    assert query(settings, "SELECT DISTINCT outcome, attempt FROM redrives").rows() == [
        ("succeeded", 1)
    ]
