"""The outbox over a long time: every planned or published redrive gets an outcome."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.events import ConsumerContext, ProcessingResult, outbox
from sahool_dlq.jobs.batches import list_batches, pause, resume, show_batch
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query as query_lake
from sahool_dlq.jobs.redrive import plan_redrive, run_redrive
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.redrive.batches import finish, move
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from sahool_dlq.sqlfiles import read_sql
from sahool_dlq.stores.postgres.database import database
from support.platform_log import execute, query
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

COUNT = 20
OTHERS = Selection(error_types=("KeyError",))  # there are none


@dataclass
class Slow(Service):
    """From the twelfth redrive on, it does not return until it is released."""

    is_let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, context: ConsumerContext) -> ProcessingResult:
        result = await super().handle(context)
        if self.error is None and len(self.seen) >= 12:
            await self.is_let_go.wait()
        return result


async def frozen(settings: Settings, **order: Any) -> str:
    planned = await plan_redrive(settings, TIMEOUTS, Order("manual", "ana", "fixed", **order))
    assert planned is not None
    return planned[0].id


async def test_a_batch_resumed_while_its_run_waits_for_outcomes_continues(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_per_second=20, redrive_timeout_seconds=20)
    is_held = asyncio.Event()

    def progress(outcomes: Counter[str], planned: int) -> None:
        assert planned == COUNT
        if outcomes["held"]:
            is_held.set()

    async with Slow(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, COUNT)
        service.error = None
        batch_id = await frozen(settings)
        running = asyncio.create_task(run_redrive(settings, batch_id, progress))
        await seen(service, 13)
        pause(settings, batch_id, by="bo")
        async with asyncio.timeout(20):
            await is_held.wait()
        resume(settings, batch_id, by="bo")
        service.is_let_go.set()
        report = await running
    assert (report.state, report.planned) == ("done", COUNT)
    assert report.outcomes == show_batch(settings, batch_id).outcomes == {"succeeded": COUNT}
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(COUNT))
    assert rows(settings, "SELECT DISTINCT status FROM failed_events") == [("resolved",)]


async def test_what_a_killed_run_published_of_a_paused_batch_is_followed(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_timeout_seconds=1)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 3)
        batch_id = await frozen(settings)
        execute(settings, "UPDATE redrive_batches SET state = 'paused' WHERE id = %s", batch_id)
        execute(
            settings,
            "UPDATE redrives SET state = 'published', published_at = now() WHERE id IN"
            " (SELECT id FROM redrives WHERE batch_id = %s LIMIT 1)",
            batch_id,
        )
        assert await redrive_timeouts(settings, selection=OTHERS) is None
        batch = show_batch(settings, batch_id)
        assert (batch.state, batch.outcomes) == ("paused", {"planned": 2, "outcome_unknown": 1})
        service.error = None
        resume(settings, batch_id, by="bo")
        report = await run_redrive(settings, batch_id)
    assert (report.state, report.outcomes) == ("done", {"succeeded": 2})
    assert len(service.seen) == 2


async def test_no_batch_ends_with_planned_redrives(settings: Settings, client: Client) -> None:
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 3)
        batch_id = await frozen(settings)
    with database(settings.postgres_dsn.get_secret_value()) as connection:

        def end() -> str:
            return finish(connection, batch_id, "done", actor="ana", reason=None, detail={})

        move(connection, batch_id, "running", actor="ana")
        assert end() == "running"  # somebody resumed it
        assert show_batch(settings, batch_id).outcomes == {"planned": 3}
        connection.execute("DELETE FROM failed_events")  # retention: they cannot be redriven
        assert end() == "done"
    assert show_batch(settings, batch_id).outcomes == {"cancelled": 3}


async def test_an_older_database_lets_go_of_what_ended_batches_held(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 2)
        ended = await frozen(settings)
        execute(settings, "UPDATE redrive_batches SET state = 'done', ended_at = now()")
        await client.jetstream().publish(
            f"{settings.subject_prefix}.analysis.ndvi", b'{"event_id": "later"}'
        )
        await stored(client, settings.dlq_stream, 3)
        waiting = await frozen(settings)
        assert await plan_redrive(settings, TIMEOUTS, Order("manual", "ana", "held")) is None
        execute(settings, read_sql("postgres/migrations/0017_outbox.sql"))
        assert show_batch(settings, ended).outcomes == {"cancelled": 2}
        assert show_batch(settings, waiting).outcomes == {"planned": 1}
        service.error = None
        service.seen.clear()
        await redrive_timeouts(quick(settings))
        await redrive_timeouts(quick(settings))
    assert len(service.seen) == 3
    assert rows(settings, "SELECT DISTINCT status FROM failed_events") == [("resolved",)]
    assert {batch.state for batch in list_batches(settings)} == {"done"}
    assert query(settings, "SELECT FROM redrives WHERE state = 'planned'") == []


async def stored(client: Client, stream: str, count: int) -> None:
    """Wait until a stream has this number of messages."""
    async with asyncio.timeout(20):
        while (await client.jetstream().stream_info(stream)).state.messages < count:
            await asyncio.sleep(0.05)


@dataclass
class Rescue(Service):
    """The consumer of redirected redrives; it does not return until it is released."""

    name: str = "rescue"
    subject: str = "actions.rescue"
    is_let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, context: ConsumerContext) -> ProcessingResult:
        result = await super().handle(context)
        await self.is_let_go.wait()
        return result


@pytest.mark.parametrize("is_killed", [True, False])
async def test_a_redirected_redrive_that_succeeds_late_resolves_its_failure(
    settings: Settings, client: Client, is_killed: bool
) -> None:
    settings = quick(settings, redrive_timeout_seconds=60 if is_killed else 1)
    rescue = Rescue(settings)
    to = f"{settings.subject_prefix}.actions.rescue"
    async with Service(settings, TimeoutError("slow")).running() as service, rescue.running():
        await fail(settings, client, service, 2)
        batch_id = await frozen(settings, redirect_to=to)
        running = asyncio.create_task(run_redrive(settings, batch_id))
        await seen(rescue, 1)
        if is_killed:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            left = {"published": 1, "planned": 1}
        else:
            await running
            left = {"outcome_unknown": 1, "cancelled": 1}  # a stage without a success
        assert show_batch(settings, batch_id).outcomes == left
        rescue.is_let_go.set()
        await told(client, settings, "redrive.succeeded", 1)
        await drain_log(settings)
        assert show_batch(settings, batch_id).outcomes["succeeded"] == 1
        service.error = None
        await redrive_timeouts(settings)
    assert rows(settings, "SELECT DISTINCT status FROM failed_events") == [("resolved",)]
    in_view = query_lake(settings, "SELECT DISTINCT status FROM cases").to_series().to_list()
    assert in_view == ["resolved"]
    said = rows(settings, "SELECT state_reason FROM redrives WHERE state_reason IS NOT NULL")
    assert said[0] == (f"redirected, and handled by {settings.events_stream}/rescue",)


async def test_a_redirect_to_a_service_of_an_older_version_is_reported_by_the_redriver(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(settings)
    rescue = Rescue(settings)
    rescue.is_let_go.set()
    to = f"{settings.subject_prefix}.actions.rescue"
    monkeypatch.setattr(outbox, "INSTEAD_OF", "Dlq-Unheard-Of")
    async with Service(settings, TimeoutError("slow")).running() as service, rescue.running():
        await fail(settings, client, service, 1)
        report = await run_redrive(settings, await frozen(settings, redirect_to=to))
    assert report.outcomes == {"succeeded": 1}
    assert report.reasons == {"succeeded": {f"redirected to {to}, and handled there": 1}}
    assert rows(settings, "SELECT status FROM failed_events") == [("resolved",)]


async def told(client: Client, settings: Settings, kind: str, count: int) -> None:
    """Wait until the log has this number of messages of a kind."""
    subject = f"{settings.subject_prefix}.{kind}"
    async with asyncio.timeout(20):
        while True:
            info = await client.jetstream().stream_info(
                settings.dlq_stream, subjects_filter=subject
            )
            if (info.state.subjects or {}).get(subject, 0) >= count:
                return
            await asyncio.sleep(0.05)


LOSSES = {
    "the rows and the batch": ("DELETE FROM redrives", "DELETE FROM redrive_batches"),
    "that they were taken out": (
        "UPDATE redrives SET state = 'planned', published_at = NULL, ended_at = NULL",
        "UPDATE redrive_batches SET state = 'running', ended_at = NULL",
    ),
    "and an older redriver called them cancelled": (
        "UPDATE redrives SET state = 'cancelled'",
        "UPDATE redrive_batches SET state = 'done'",
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_what_the_log_says_was_published_is_followed_after_a_failover(
    settings: Settings, client: Client, loss: str
) -> None:
    settings = quick(settings, redrive_timeout_seconds=60)
    async with Slow(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, COUNT)
        service.error = None
        running = asyncio.create_task(redrive_timeouts(settings))
        await stored(client, settings.events_stream, 2 * COUNT)  # the first eleven have succeeded
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        for statement in LOSSES[loss]:  # as a replica that was behind has it
            execute(settings, statement)
        await drain_log(settings)
        standing = rows(
            settings, "SELECT status, count(*) FROM failed_events GROUP BY 1 ORDER BY 1"
        )
        assert ("retried", COUNT - 11) in standing
        again = asyncio.create_task(redrive_timeouts(quick(settings)))
        await following(settings, COUNT - 11)
        service.is_let_go.set()
        assert await again is None  # and nothing was left to plan
        await drain_log(settings)
    assert rows(settings, "SELECT DISTINCT status FROM failed_events") == [("resolved",)]
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(COUNT))
    states = rows(settings, "SELECT DISTINCT state FROM redrives WHERE state <> 'cancelled'")
    assert states == [("succeeded",)]
    assert {batch.state for batch in list_batches(settings)} == {"done"}


async def following(settings: Settings, count: int) -> None:
    """Wait until this number of redrives is published."""
    async with asyncio.timeout(20):
        while query(settings, "SELECT count(*) AS n FROM redrives WHERE state = 'published'") != [
            {"n": count}
        ]:
            await asyncio.sleep(0.05)


async def test_a_redrive_that_was_announced_and_never_answered_is_unknown(
    settings: Settings, client: Client
) -> None:
    """The redrive was announced, then the redriver died, and PostgreSQL lost everything."""
    settings = quick(settings, redrive_timeout_seconds=1)
    config = (await client.jetstream().stream_info(settings.events_stream)).config
    config.duplicate_window = 0.5  # else the event would be published again, since that is safe
    await client.jetstream().update_stream(config)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 3)
        await frozen(settings)
        [(failure, attempt, redrive)] = rows(
            settings, "SELECT failure_id::text, attempt, id::text FROM redrives LIMIT 1"
        )
        body = encode_case_event(
            failure_id=failure,
            redrive_id=redrive,
            attempt=attempt,
            actor="ana",
            at=datetime.now(UTC),
        )
        subject = settings.subjects.redrive("published")
        await client.jetstream().publish(subject, body, headers={"Nats-Msg-Id": redrive})
        execute(settings, "DELETE FROM redrives")
        execute(settings, "DELETE FROM redrive_batches")
        assert await redrive_timeouts(settings, selection=OTHERS) is None
    found = "SELECT status, redrive_count FROM failed_events WHERE id = %s"
    assert query(settings, found, failure) == [{"status": "pending", "redrive_count": 1}]
    [batch] = list_batches(settings)
    assert (batch.state, batch.planned, batch.outcomes) == ("done", 1, {"outcome_unknown": 1})
    assert service.seen == []
    assert await redrive_timeouts(settings, selection=OTHERS) is None  # once is enough
    assert len(list_batches(settings)) == 1


async def test_who_is_parked_does_not_depend_on_the_setting_of_today(
    settings: Settings, client: Client
) -> None:
    low, high = quick(settings, redrive_cap=1), quick(settings, redrive_cap=5)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 1)
        await redrive_timeouts(low)  # and is parked
        await client.jetstream().publish(f"{settings.subject_prefix}.analysis.ndvi", b"{}")
        await stored(
            client, settings.dlq_stream, 4
        )  # two letters and the redrive's news came before
        for _ in range(4):
            await redrive_timeouts(high)
    folded = "SELECT id::text, status, redrive_count FROM failed_events" + ROOTS
    before = rows(settings, folded)
    assert sorted(row[1:] for row in before) == [("parked", 1), ("pending", 4)]
    for changed in (low, high):
        await drain_log(changed)
        assert (await verify_stores(changed)).is_well
        assert query_lake(changed, CASES).rows() == before
    execute(settings, "DELETE FROM failed_events")
    report = await verify_stores(low, is_repair=True)  # folds them again from the lake
    assert report.is_well
    assert rows(settings, folded) == before
    assert query_lake(low, CASES).rows() == before


ROOTS = " WHERE root_failure_id IS NULL ORDER BY 1"
CASES = "SELECT failure_id, status, redrive_count FROM cases ORDER BY 1"
