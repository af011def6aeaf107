"""Control of batches on real servers: approval, pause, cancel, redirect, edit, audit."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.errors import DLQError, RedriveError
from sahool_dlq.events import ConsumerContext
from sahool_dlq.jobs.batches import (
    approve,
    cancel,
    list_batches,
    pause,
    reject,
    resume,
    show_batch,
)
from sahool_dlq.jobs.decisions import audit_trail, decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.redrive import (
    backtest_policy,
    plan_redrive,
    preview_redrive,
    run_redrive,
)
from sahool_dlq.redrive.batches import ENDED, TRANSITIONS, Batch, move
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.policy import Cell
from sahool_dlq.redrive.choose.schedule import learn, policy_of
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.publish.news import News
from sahool_dlq.redrive.publish.outbox import Redrive
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from support.redriving import (
    TIMEOUTS,
    Service,
    event_ids,
    fail,
    quick,
    redrive_timeouts,
    rows,
    seen,
)


async def frozen(settings: Settings, **order: Any) -> Batch:
    """A batch, planned by a person, of everything that timed out."""
    planned = await plan_redrive(settings, TIMEOUTS, Order("manual", "ana", "fixed", **order))
    assert planned is not None
    return planned[0]


def actions(settings: Settings, batch: Batch) -> list[tuple[str, str]]:
    trail = audit_trail(settings, about=batch.id)
    return [(row["action"], row["actor"]) for row in reversed(trail)]


async def test_a_paused_batch_publishes_nothing_more_and_continues_when_resumed(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_per_second=20)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 40)
        service.error = None
        batch = await frozen(settings)
        running = asyncio.create_task(run_redrive(settings, batch.id))
        await seen(service, 12)
        assert pause(settings, batch.id, by="bo", reason="too fast").state == "paused"
        report = await running
        published = len(service.seen)
        assert report.state == "paused"
        assert report.outcomes == {"succeeded": published, "held": 40 - published}
        assert published < 40
        with pytest.raises(RedriveError, match=f"dlq batches resume {batch.id}"):
            await run_redrive(settings, batch.id)
        assert await redrive_timeouts(settings) is None  # a schedule leaves it alone
        assert len(service.seen) == published
        resume(settings, batch.id[:8], by="bo")
        rest = await run_redrive(settings, batch.id)
    assert (rest.state, rest.outcomes) == ("done", {"succeeded": 40 - published})
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(40))
    assert rows(settings, "SELECT DISTINCT status FROM failed_events") == [("resolved",)]
    assert actions(settings, batch) == [
        ("redrive.planned", "ana"),
        ("redrive.running", "ana"),
        ("redrive.paused", "bo"),
        ("redrive.running", "bo"),
        ("redrive.done", "ana"),
    ]
    ended = await run_redrive(settings, batch.id)  # a batch that has ended is only reported
    assert (ended.state, ended.outcomes) == ("done", {"succeeded": 40})


async def test_what_a_cancelled_batch_has_not_published_stays_pending(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_per_second=20)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 30)
        service.error = None
        batch = await frozen(settings)
        running = asyncio.create_task(run_redrive(settings, batch.id))
        await seen(service, 12)
        cancel(settings, batch.id, by="bo")
        report = await running
        published = len(service.seen)
        assert report.state == show_batch(settings, batch.id).state == "cancelled"
        assert report.outcomes == {"succeeded": published, "cancelled": 30 - published}
        left = rows(settings, "SELECT status, count(*) FROM failed_events GROUP BY 1 ORDER BY 1")
        assert left == [("pending", 30 - published), ("resolved", published)]
        again = await redrive_timeouts(quick(settings))
    assert again is not None
    assert again.outcomes == {"succeeded": 30 - published}
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(30))


async def test_a_large_batch_by_hand_waits_for_approval(settings: Settings, client: Client) -> None:
    settings = quick(settings, redrive_approval_count=3)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 4)
        service.error = None
        report = await redrive_timeouts(settings, trigger="manual")
        assert report is not None
        assert (report.state, report.planned, report.outcomes) == ("awaiting_approval", 4, {})
        with pytest.raises(RedriveError, match="dlq batches approve"):
            await run_redrive(settings, report.batch_id)
        assert reject(settings, report.batch_id, by="bo", reason="not now").state == "cancelled"
        with pytest.raises(RedriveError, match="is cancelled, not awaiting_approval"):
            approve(settings, report.batch_id, by="bo")
        batch = await frozen(settings)
        assert batch.state == "awaiting_approval"
        assert [found.id for found in list_batches(settings)] == [batch.id, report.batch_id]
        approve(settings, batch.id, by="bo", reason="the fix is out")
        assert (await redrive_timeouts(settings)) is None  # the next redrive takes it up
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(4))
    assert show_batch(settings, batch.id).outcomes == {"succeeded": 4}
    assert actions(settings, batch) == [
        ("redrive.planned", "ana"),
        ("redrive.awaiting_approval", "ana"),
        ("redrive.running", "bo"),
        ("redrive.done", "ana"),
    ]


def test_only_the_drawn_transitions_of_a_batch_are_possible(settings: Settings) -> None:
    states = [*TRANSITIONS, *ENDED]
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        for before in states:
            for after in states:
                row = connection.execute(
                    "INSERT INTO redrive_batches (id, trigger, requested_by, reason, selection,"
                    " state, planned) VALUES (gen_random_uuid(), 'manual', 'ana', 'x', '{}', %s, 0)"
                    " RETURNING id::text",
                    [before],
                ).fetchone()
                assert row is not None
                if after in TRANSITIONS.get(before, ()):
                    move(connection, row[0], after, actor="ana")
                else:
                    with pytest.raises(RedriveError, match=f"is {before}: it cannot become"):
                        move(connection, row[0], after, actor="ana")
    assert rows(settings, "SELECT count(*) FROM audit_log") == [
        (sum(len(after) for after in TRANSITIONS.values()),)
    ]


async def test_what_was_decided_meanwhile_is_not_published(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 4)
        service.error = None
        batch = await frozen(settings)
        ids = [r[0] for r in rows(settings, "SELECT id::text FROM failed_events ORDER BY event_id")]
        first, second, *_ = ids
        for failure, decision in ((first, "discarded"), (second, "parked")):
            await decide(
                settings,
                Selection(failure_ids=(failure,)),
                decision,
                actor="bo",
                reason="mine",
            )
        report = await run_redrive(settings, batch.id)
    assert report.outcomes == {"cancelled": 2, "succeeded": 2}
    assert sorted(event_ids(service)) == ["e2", "e3"]
    found = rows(settings, "SELECT status FROM failed_events ORDER BY event_id")
    assert found == [("discarded",), ("parked",), ("resolved",), ("resolved",)]


async def test_an_edit_changes_the_raw_event_and_shows_only_what_is_redacted(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    patch = {"unit": "ha", "token": "new-t0ken", "old": None}
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(
            settings, client, service, 2, unit="acre", token="old-t0ken", area=1.10, old={"x": 1}
        )
        await drain_log(settings)
        service.error = None
        shown = await preview_redrive(settings, TIMEOUTS, patch=patch)
        assert shown.edits is not None
        changed = {change.path: change[1:] for change in shown.edits.changes}
        assert list(changed) == ["unit", "token", "old"]
        assert changed["unit"] == ('"acre"', '"ha"', 2)
        assert changed["old"] == ('{"x": 1}', None, 2)
        batch = await frozen(settings, patch=patch)
        assert (await run_redrive(settings, batch.id)).outcomes == {"succeeded": 2}
    bodies = [json.loads(context.data) for context in service.seen]
    assert sorted(body.pop("event_id") for body in bodies) == ["e0", "e1"]
    assert bodies == [{"unit": "ha", "token": "new-t0ken", "area": 1.1}] * 2
    [planned] = audit_trail(settings, about=batch.id, action="redrive.planned")
    assert (planned["detail"]["patch"]["unit"], planned["detail"]["patch"]["old"]) == ("ha", None)
    told = json.dumps(
        [shown.as_dict(), show_batch(settings, batch.id).as_dict(), planned], default=str
    )
    assert "t0ken" not in told
    # That they succeeded with another body says nothing of a redrive of the group as it is.
    [(group,)] = rows(settings, "SELECT DISTINCT group_id FROM failed_events")
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        history = learn(connection, datetime.now(UTC), policy_of(settings))
    assert history.last_at(Cell(group, "TimeoutError", 1)) is None
    assert backtest_policy(settings).redrives == 0
    letter = await client.jetstream().get_msg(settings.dlq_stream, 1)
    assert b'"unit": "acre"' in (letter.data or b"")  # the original is kept


@pytest.mark.parametrize("decision", ["parked", "discarded", "unparked", "alerted"])
async def test_what_is_decided_just_before_the_news_of_a_redrive_holds(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch, decision: str
) -> None:
    """The redrive is marked as published by then, and no drain has seen the decision."""
    settings = quick(settings)
    js, subject = client.jetstream(timeout=60), settings.subjects.triage(decision)
    real, decided = News.tell, set[str]()

    async def tell(self: News, redrive: Redrive, kind: str, *more: Any) -> None:
        if kind == "published":
            decided.add(redrive.failure_id)
            body = encode_case_event(
                failure_id=redrive.failure_id, at=datetime.now(UTC), actor="bo", reason="hands off"
            )
            await js.publish(subject, body)
        await real(self, redrive, kind, *more)

    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 3)
        service.error = None
        with monkeypatch.context() as patched:
            patched.setattr(News, "tell", tell)
            report = await redrive_timeouts(settings)
        assert report is not None
        assert len(decided) == 3
        stand = "SELECT DISTINCT status, redrive_count, resolution_notes FROM failed_events"
        if decision not in ("parked", "discarded"):
            assert report.outcomes == {"succeeded": 3}
            assert [row[:2] for row in rows(settings, stand)] == [("resolved", 0)]
            return
        assert report.outcomes == {"cancelled": 3}
        assert report.reasons == {"cancelled": {f"it was {decision} meanwhile": 3}}
        assert service.seen == []
        assert rows(settings, stand) == [(decision, 0, "hands off")]
        assert query(settings, "SELECT DISTINCT status FROM cases").rows() == [(decision,)]
        ids = tuple(sorted(decided))
        if decision == "parked":  # by its id it goes out all the same, as ever
            again = await redrive_timeouts(settings, selection=Selection(failure_ids=ids))
            assert again is not None
            assert again.outcomes == {"succeeded": 3}


async def test_a_redirect_is_told_for_the_failure_by_the_redriver(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)

    class Picky(Service):
        def is_cured(self, context: ConsumerContext) -> bool:
            return b'"e0"' in context.data

    other = Picky(settings, KeyError("x"), name="rescue", subject="actions.rescue")
    to = f"{settings.subject_prefix}.actions.rescue"
    async with Service(settings, TimeoutError("slow")).running() as service, other.running():
        await fail(settings, client, service, 2)
        shown = await preview_redrive(settings, TIMEOUTS)
        assert (shown.plan.count, shown.redirect_to) == (0, None)  # nothing is drained yet
        batch = await frozen(settings, redirect_to=to)
        report = await run_redrive(settings, batch.id)
        with pytest.raises(DLQError, match=r"The redirect is refused: .*DLQ_REDRIVE_SUBJECTS"):
            await preview_redrive(settings, TIMEOUTS, redirect_to="elsewhere.x")
        with pytest.raises(DLQError, match=r"an event is never published to"):
            await preview_redrive(
                settings, TIMEOUTS, redirect_to=f"{settings.subject_prefix}.dlq.x"
            )
        shown = await preview_redrive(settings, TIMEOUTS, redirect_to=to)
    assert shown.also_reached == {to: [f"{settings.events_stream}/rescue"]}
    assert report.outcomes == {"succeeded": 1, "outcome_unknown": 1}
    assert (service.seen, sorted(event_ids(other))) == ([], ["e0", "e1"])
    assert rows(
        settings,
        "SELECT event_id, consumer_name, status, redrive_count FROM failed_events ORDER BY 1, 2",
    ) == [
        ("e0", "ndvi", "resolved", 0),
        ("e1", "ndvi", "pending", 1),
        ("e1", "rescue", "pending", 0),  # a separate failure
    ]
    assert rows(settings, "SELECT state FROM redrives ORDER BY 1") == [
        ("outcome_unknown",),
        ("succeeded",),
    ]


async def test_a_group_that_its_outcomes_call_hopeless_is_parked(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)

    class Lucky(Service):
        def is_cured(self, context: ConsumerContext) -> bool:
            return context.redrive_of is not None and len(self.seen) == 1

    async with Lucky(settings, ValueError("no such crop")).running() as service:
        await fail(settings, client, service, 20)
        planned = await plan_redrive(
            settings, Selection(error_types=("ValueError",)), Order("manual", "ana", "hope")
        )
        assert planned is not None
        report = await run_redrive(settings, planned[0].id)
    assert report.state == "aborted"
    assert report.outcomes == {"succeeded": 1, "failed_again": 10, "cancelled": 9}
    found = rows(
        settings,
        "SELECT status, count(*) FROM failed_events WHERE root_failure_id IS NULL GROUP BY 1"
        " ORDER BY 1",
    )
    assert found == [("parked", 9), ("pending", 10), ("resolved", 1)]
    [(notes,)] = rows(
        settings, "SELECT DISTINCT resolution_notes FROM failed_events WHERE status = 'parked'"
    )
    assert "stopped: 1 of 11 redrives succeeded, so about 10% of the rest would" in notes
