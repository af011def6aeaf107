"""The outbox over long: no redrive stays planned or published with nobody to carry it on."""

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from nats.aio.client import Client
from platform_log import execute, query
from redriving import TIMEOUTS, Service, event_ids, fail, quick, redrive_timeouts, rows, seen

from pipelines.events import ConsumerContext, ProcessingResult, subscription
from pipelines.jobs import drain_log
from pipelines.jobs import query as query_lake
from pipelines.redrive.batches import finish, move
from pipelines.redrive.plan import Order
from pipelines.redrive.selection import Selection
from pipelines.redrive_jobs import (
    list_batches,
    pause,
    plan_redrive,
    resume,
    run_redrive,
    show_batch,
)
from pipelines.settings import Settings
from pipelines.sqlfiles import read_sql
from pipelines.stores.database import database

COUNT = 20
OTHERS = Selection(error_types=("KeyError",))  # there are none


@dataclass
class Slow(Service):
    """From the twelfth redrive on it takes until it is let go."""

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


async def test_a_batch_resumed_while_its_run_waits_for_outcomes_goes_on(
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
        connection.execute("DELETE FROM failed_events")  # retention: nobody can redrive them
        assert end() == "done"
    assert show_batch(settings, batch_id).outcomes == {"cancelled": 3}


async def test_an_older_database_lets_go_of_what_ended_batches_held(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 2)
        ended = await frozen(settings)
        execute(settings, "UPDATE redrive_batches SET state = 'done', ended_at = now()")
        await fail_more(settings, client, service)
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


async def fail_more(settings: Settings, client: Client, service: Service) -> None:
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    count = len(service.seen)
    await client.jetstream().publish(subject, b'{"event_id": "later"}')
    await seen(service, count + 1)
    js, names = client.jetstream(), settings.dlq_stream
    async with asyncio.timeout(20):
        while (await js.stream_info(names)).state.messages < 3:
            await asyncio.sleep(0.05)


@dataclass
class Rescue(Service):
    """Who gets what is redirected; it takes until it is let go."""

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


async def test_a_redirect_to_a_service_of_an_older_version_is_told_by_the_redriver(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(settings)
    rescue = Rescue(settings)
    rescue.is_let_go.set()
    to = f"{settings.subject_prefix}.actions.rescue"
    monkeypatch.setattr(subscription, "INSTEAD_OF", "Dlq-Unheard-Of")
    async with Service(settings, TimeoutError("slow")).running() as service, rescue.running():
        await fail(settings, client, service, 1)
        report = await run_redrive(settings, await frozen(settings, redirect_to=to))
    assert report.outcomes == {"succeeded": 1}
    assert report.reasons == {"succeeded": {f"redirected to {to}, and handled there": 1}}
    assert rows(settings, "SELECT status FROM failed_events") == [("resolved",)]


async def told(client: Client, settings: Settings, kind: str, count: int) -> None:
    """Wait until the log has so many messages of a kind."""
    subject = f"{settings.subject_prefix}.{kind}"
    async with asyncio.timeout(20):
        while True:
            info = await client.jetstream().stream_info(
                settings.dlq_stream, subjects_filter=subject
            )
            if (info.state.subjects or {}).get(subject, 0) >= count:
                return
            await asyncio.sleep(0.05)
