"""Redrivers that are killed or run twice publish no attempt twice and lose nothing."""

import asyncio
import json
import signal
import subprocess
from collections import Counter
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.jobs.batches import cancel, list_batches, resume, show_batch
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import plan_redrive, run_redrive
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.publish import ramp as redrive_run
from sahool_dlq.redrive.publish.outbox import Outbox
from sahool_dlq.redrive.publish.sender import Sender
from sahool_dlq.settings import Settings
from support.platform_log import DLQ, ROOT, InjectedError, environment, execute, query
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

COUNT = 14  # more than the first two stages of a ramp


def start(settings: Settings, verb: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """A `dlq` process on the platform of a test."""
    return subprocess.Popen(
        [*DLQ, verb, *arguments],
        cwd=ROOT,
        env=environment(settings, DLQ_REDRIVE_DELAY_SECONDS="0", **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def attempts(service: Service) -> Counter[str]:
    """How often a service received each attempt."""
    return Counter(context.headers["Dlq-Redrive-Id"] for context in service.seen)


STEPS = {
    "before it is taken from the outbox": (Outbox, "claim", False),
    "between the outbox and the news": (Outbox, "claim", True),
    "between the news and the event": (Sender, "until_known", False),
    "between the event and its outcome": (Sender, "until_known", True),
    "before the end of the batch is written": (redrive_run, "finish", False),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_run_that_dies_at_a_step_publishes_nothing_twice_and_loses_nothing(
    settings: Settings,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    settings = quick(settings, redrive_timeout_seconds=3)
    owner, name, is_after = STEPS[step]
    real, calls = getattr(owner, name), 0

    def dying(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        is_last = calls == 5 or name == "finish"
        if is_last and not is_after:
            raise InjectedError
        result = real(*arguments, **keywords)
        if is_last and asyncio.iscoroutine(result):
            return _then_die(result)
        if is_last:
            raise InjectedError
        return result

    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, COUNT)
        service.error = None
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, dying)
            with pytest.raises(InjectedError):
                await redrive_timeouts(settings)
        for _ in range(3):
            if await redrive_timeouts(settings) is None and _all_resolved(settings):
                break
    assert _all_resolved(settings)
    assert set(attempts(service).values()) == {1}
    # Not even one whose event had not been published spent its attempt.
    assert rows(settings, "SELECT DISTINCT redrive_count FROM failed_events") == [(0,)]
    assert set(event_ids(service)) == {f"e{n}" for n in range(COUNT)}
    assert {batch.state for batch in list_batches(settings)} <= {"done", "aborted"}


async def _then_die(result: Any) -> None:
    await result
    raise InjectedError


def _all_resolved(settings: Settings) -> bool:
    return rows(settings, "SELECT DISTINCT status FROM failed_events") == [("resolved",)]


async def test_a_process_that_is_killed_leaves_its_batch_to_the_next(
    settings: Settings, client: Client
) -> None:
    slow = {"DLQ_REDRIVE_PER_SECOND": "3"}
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, COUNT)
        service.error = None
        process = start(settings, "redrive", "--type", "TimeoutError", **slow)
        await seen(service, 3)
        process.kill()
        process.communicate()
        [batch] = list_batches(settings)
        assert batch.state == "running"
        await redrive_timeouts(quick(settings))
        await redrive_timeouts(quick(settings))
    assert _all_resolved(settings)
    assert set(attempts(service).values()) == {1}


async def left_behind(settings: Settings, state: str, published: int) -> str:
    """A batch whose run was killed when this number was marked as published, without outcomes."""
    await drain_log(settings)
    order = Order("manual", "ana", "the network is back")
    planned = await plan_redrive(settings, TIMEOUTS, order)
    assert planned is not None
    batch_id = planned[0].id
    execute(settings, "UPDATE redrive_batches SET state = %s WHERE id = %s", state, batch_id)
    execute(
        settings,
        "UPDATE redrives SET state = 'published', published_at = now() - interval '1 hour'"
        " WHERE id IN (SELECT id FROM redrives WHERE batch_id = %s LIMIT %s)",
        *(batch_id, published),
    )
    return batch_id


async def test_all_that_a_killed_run_published_is_followed_also_where_the_rest_is_stopped(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 5)
        batch_id = await left_behind(settings, "running", 3)
        assert resume(settings, batch_id, by="bo").state == "running"  # as it was
        report = await run_redrive(settings, batch_id)
    assert (report.state, report.outcomes) == ("aborted", {"outcome_unknown": 3, "cancelled": 2})
    counted = rows(settings, "SELECT status, redrive_count FROM failed_events ORDER BY 2")
    assert counted == [("pending", 0)] * 2 + [("pending", 1)] * 3


async def test_what_a_cancelled_batch_has_published_is_followed_by_the_next_redrive(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 3)
        batch_id = await left_behind(settings, "paused", 1)
        cancel(settings, batch_id, by="bo")
        assert show_batch(settings, batch_id).outcomes == {"cancelled": 2, "published": 1}
        service.error = None
        planned = await plan_redrive(settings, TIMEOUTS, Order("manual", "ana", "again"))
        assert planned is not None
        await run_redrive(settings, planned[0].id)
        assert show_batch(settings, batch_id).outcomes == {"outcome_unknown": 1}
        await redrive_timeouts(settings)
    assert _all_resolved(settings)
    assert show_batch(settings, batch_id).state == "cancelled"


async def test_ctrl_c_pauses_a_batch_which_another_command_resumes(
    settings: Settings, client: Client
) -> None:
    slow = {"DLQ_REDRIVE_PER_SECOND": "3"}
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, COUNT)
        service.error = None
        process = start(settings, "redrive", "--type", "TimeoutError", "--json", **slow)
        await seen(service, 3)
        process.send_signal(signal.SIGINT)
        output, errors = await asyncio.to_thread(process.communicate, timeout=60)
        assert (process.returncode, errors) == (0, "")
        paused = json.loads(output)
        assert paused["state"] == "paused"
        resumed = start(settings, "batches", "resume", paused["batch_id"][:8], "--json")
        output, errors = await asyncio.to_thread(resumed.communicate, timeout=60)
        assert errors == ""
        assert json.loads(output)["state"] == "done"
    assert _all_resolved(settings)
    assert set(attempts(service).values()) == {1}


async def test_two_redrivers_at_once_publish_each_attempt_once(
    settings: Settings, client: Client
) -> None:
    other = Service(settings, name="healthy")
    async with Service(settings, TimeoutError("slow")).running() as service, other.running():
        await fail(settings, client, service, COUNT)
        service.error = None
        arguments = ("--type", "TimeoutError", "--json")
        both = [start(settings, "redrive", *arguments) for _ in range(2)]
        ends = [await asyncio.to_thread(process.communicate, timeout=120) for process in both]
        for (_, errors), process in zip(ends, both, strict=True):
            assert process.returncode == 0 or "Another redrive is running" in errors, errors
        await redrive_timeouts(quick(settings))  # what the one that was refused has frozen
    assert _all_resolved(settings)
    assert set(attempts(service).values()) == {1}
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(COUNT))
    # The healthy consumer had each event once, when it was new, and no redrive.
    assert Counter(event_ids(other)) == Counter(f"e{n}" for n in range(COUNT))


async def test_a_redriver_that_loses_its_lock_publishes_nothing_more_and_unsays_nothing(
    settings: Settings, client: Client
) -> None:
    """An administrator, a time-out or a failover ended its session, and a second one starts."""
    slow = {"DLQ_REDRIVE_PER_SECOND": "3"}
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 30)
        service.error = None
        first = start(settings, "redrive", "--type", "TimeoutError", **slow)
        await seen(service, 3)
        ended = query(settings, "SELECT count(pg_terminate_backend(pid)) AS n FROM (" + _LOCKS)
        assert ended == [{"n": 1}]
        second = asyncio.create_task(redrive_timeouts(quick(settings, redrive_per_second=8)))
        _, errors = await asyncio.to_thread(first.communicate, timeout=60)
        await second
    assert first.returncode == 1
    assert errors.startswith("dlq: The lock of this run (redrive) was lost (terminating conn")
    assert _all_resolved(settings)
    assert set(attempts(service).values()) == {1}
    assert sorted(event_ids(service)) == sorted(f"e{n}" for n in range(30))
    # What the first published, the second follows: an outcome may have come before it listened.
    states = Counter(row[0] for row in rows(settings, "SELECT state FROM redrives"))
    assert states == {"succeeded": 30}
    assert [batch.state for batch in list_batches(settings)] == ["done"]


_LOCKS = (
    "SELECT pid FROM pg_locks WHERE relation IN (SELECT oid FROM pg_class WHERE"
    " starts_with(relname, 'lock_')) AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS held"
)


async def test_a_redrive_does_not_feed_itself(settings: Settings, client: Client) -> None:
    settings = quick(settings)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 2)
        for _ in range(10):
            await redrive_timeouts(settings)
    by_root = Counter(context.redrive_of for context in service.seen)
    assert set(by_root.values()) == {settings.redrive_cap}
    assert set(attempts(service).values()) == {1}
    live = "SELECT DISTINCT status, redrive_count FROM failed_events WHERE root_failure_id IS NULL"
    assert rows(settings, live) == [("parked", settings.redrive_cap)]
