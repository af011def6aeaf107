"""The monitor on real servers: every action, restarts, failures, older streams, any bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.errors import StreamError
from sahool_dlq.events import (
    DLQAction,
    DLQConsumer,
    DLQConsumerConfig,
    DLQEvent,
    start_dlq_consumer,
)
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query as query_lake
from sahool_dlq.jobs.redrive import preview_redrive, transient_selection
from sahool_dlq.settings import Settings
from support.consumer_log import seen, until
from support.platform_log import execute, failures, letter, publish, publish_raw, query

STORE, RETRY, ALERT, DISCARD = DLQAction
Handler = Callable[[DLQEvent], Awaitable[DLQAction]]
DURABLE = "monitor"


def config(settings: Settings, **changes: Any) -> DLQConsumerConfig:
    """A monitor of this platform with short times."""
    return DLQConsumerConfig(
        **{
            "servers": [settings.nats_url],
            "name": "dlq-monitor",
            "consumer_name": DURABLE,
            "dlq_subject": f"{settings.subject_prefix}.dlq.>",
            "dlq_stream_name": settings.dlq_stream,
            "retry_delay_seconds": 0.1,
            **changes,
        }
    )


class Decider:
    """A handler that records its calls and always returns the same decision."""

    def __init__(self, action: DLQAction | Exception) -> None:
        self.action = action
        self.events: list[DLQEvent] = []

    async def __call__(self, event: DLQEvent) -> DLQAction:
        self.events.append(event)
        if isinstance(self.action, Exception):
            raise type(self.action)(*self.action.args)
        return self.action


@contextlib.asynccontextmanager
async def monitoring(
    settings: Settings, handler: Handler | None, notifier: Any = None, **changes: Any
) -> AsyncIterator[DLQConsumer]:
    consumer = await start_dlq_consumer(handler, config(settings, **changes), notifier=notifier)
    try:
        yield consumer
    finally:
        await consumer.close()


async def settled(client: Client, stream: str, seconds: float = 60) -> None:
    """Wait until the monitor has acknowledged everything."""

    async def is_settled() -> bool:
        info = await client.jetstream().consumer_info(stream, DURABLE)
        return (info.num_pending, info.num_ack_pending) == (0, 0)

    await until(is_settled, seconds)


async def log_of(client: Client, settings: Settings) -> list[str]:
    """Subjects of the dead-letter stream without the prefix, in order."""
    js = client.jetstream()
    state = (await js.stream_info(settings.dlq_stream)).state
    messages = [await js.get_msg(settings.dlq_stream, n + 1) for n in range(state.last_seq)]
    return [str(m.subject).partition(".")[2] for m in messages]


async def test_the_steps_of_older_services_work(settings: Settings, client: Client) -> None:
    handler = Decider(STORE)
    consumer = DLQConsumer(config(settings))
    with pytest.raises(RuntimeError, match="connect"):
        await consumer.subscribe(handler)
    assert await consumer.connect() is True
    await consumer.subscribe(handler)
    running = asyncio.create_task(consumer.start())
    await publish(client, settings, [letter(1)])
    await seen(handler.events, 1)
    await settled(client, settings.dlq_stream)
    await consumer.close()
    await running
    assert handler.events[0].event_id == "event-1"
    assert handler.events[0].original_data["name"] == "Gänse 1"
    assert await log_of(client, settings) == ["dlq.ndvi_computed"]


async def test_a_discarded_failure_is_discarded_in_both_sinks(
    settings: Settings, client: Client
) -> None:
    async with monitoring(settings, Decider(DISCARD)):
        await publish(client, settings, [letter(1)])
        await until(lambda: _holds(client, settings, 2))
        await settled(client, settings.dlq_stream)
    await drain_log(settings)
    [row] = failures(settings)
    assert (row["status"], row["resolution_notes"]) == ("discarded", "decided by Decider")
    assert query_lake(settings, "SELECT status FROM cases").rows() == [("discarded",)]
    [event] = query_lake(settings, "SELECT kind, actor FROM case_events").rows()
    assert event == ("triage.discarded", "dlq-monitor")


async def test_a_critical_failure_alerts_by_default_and_is_marked(
    settings: Settings, client: Client
) -> None:
    alerts: list[DLQEvent] = []

    async def notify(event: DLQEvent) -> None:
        alerts.append(event)

    async with monitoring(settings, None, notify):
        await publish(client, settings, [letter(1), letter(2, error_type="UniqueViolation")])
        await until(lambda: _holds(client, settings, 3))
        await settled(client, settings.dlq_stream)
    await drain_log(settings)
    assert [event.event_id for event in alerts] == ["event-2"]
    rows = {row["event_id"]: (row["status"], row["alert_sent"]) for row in failures(settings)}
    assert rows == {"event-1": ("pending", False), "event-2": ("pending", True)}


async def test_an_alert_whose_notifier_fails_is_sent_again_and_reported_once(
    settings: Settings, client: Client
) -> None:
    calls: list[DLQEvent] = []

    async def notify(event: DLQEvent) -> None:
        calls.append(event)
        if len(calls) < 6:  # more often than a handler may fail
            raise ConnectionError("the channel is down")

    async with monitoring(settings, Decider(ALERT), notify, max_retry_delay_seconds=0.1):
        await publish(client, settings, [letter(1)])
        await seen(calls, 6)
        await settled(client, settings.dlq_stream)
    assert await log_of(client, settings) == ["dlq.ndvi_computed", "triage.alerted"]


async def test_a_notifier_that_hangs_holds_nothing_up(settings: Settings, client: Client) -> None:
    calls: list[DLQEvent] = []

    async def notify(event: DLQEvent) -> None:
        calls.append(event)
        if len(calls) < 3:
            await asyncio.Event().wait()

    quick = {"handler_timeout_seconds": 0.2, "max_concurrency": 1}
    async with monitoring(settings, Decider(ALERT), notify, **quick):
        await publish(client, settings, [letter(1), letter(2)])
        await settled(client, settings.dlq_stream)
    assert len(calls) == 4


async def test_a_retry_is_a_request_that_the_scheduled_redrive_takes_when_due(
    settings: Settings, client: Client
) -> None:
    before = datetime.now(UTC)
    bodies = [letter(1, error_type="KeyError"), letter(2, error_type="TimeoutError")]
    async with monitoring(settings, Decider(RETRY), auto_retry_delay_hours=24):
        await publish(client, settings, bodies)
        await until(lambda: _holds(client, settings, 4))
        await settled(client, settings.dlq_stream)
    await publish(client, settings, [letter(3, error_type="TimeoutError")])
    await publish(client, settings, [letter(4, error_type="KeyError")])
    await drain_log(settings)
    due = {row["event_id"]: row["redrive_not_before"] for row in failures(settings)}
    assert due["event-3"] is due["event-4"] is None
    for name in ("event-1", "event-2"):
        assert before < due[name] - timedelta(hours=24) < datetime.now(UTC)
    assert sorted(
        query_lake(settings, "SELECT not_before FROM cases").to_series(0).to_list(), key=str
    ) == sorted(due.values(), key=str)

    async def planned() -> set[str]:
        shown = await preview_redrive(settings, transient_selection(settings))
        ids = [row.failure_id for row in shown.plan.rows]
        rows = query(settings, "SELECT event_id FROM failed_events WHERE id::text = ANY(%s)", ids)
        return {row["event_id"] for row in rows}

    assert await planned() == {"event-3"}  # transient; what was asked for later waits
    execute(
        settings,
        "UPDATE failed_events SET redrive_not_before = now() WHERE redrive_not_before IS NOT NULL",
    )
    assert await planned() == {"event-1", "event-2", "event-3"}
    execute(settings, "UPDATE failed_events SET status = 'parked' WHERE event_id = 'event-1'")
    assert await planned() == {"event-2", "event-3"}


async def test_a_handler_that_raises_loses_nothing(
    settings: Settings, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Decider(ValueError("the handler is broken"))
    async with monitoring(settings, handler):
        await publish(client, settings, [letter(1), letter(2)])
        await seen(handler.events, 6)
        await settled(client, settings.dlq_stream)
    assert len(handler.events) == 6
    assert caplog.text.count("it is treated as STORE") == 2
    await drain_log(settings)
    assert {row["status"] for row in failures(settings)} == {"pending"}


async def test_a_handler_that_recovers_decides_after_all(
    settings: Settings, client: Client
) -> None:
    handler = Decider(ValueError("not yet"))

    async def recovers(event: DLQEvent) -> DLQAction:
        if len(handler.events) == 2:
            handler.action = DISCARD
        return await handler(event)

    async with monitoring(settings, recovers):
        await publish(client, settings, [letter(1)])
        await until(lambda: _holds(client, settings, 2))
        await settled(client, settings.dlq_stream)
    assert len(handler.events) == 3
    assert await log_of(client, settings) == ["dlq.ndvi_computed", "triage.discarded"]


async def test_nothing_is_missed_while_it_is_down_and_nothing_is_shown_twice(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, [letter(n) for n in range(5)])  # before it ever ran
    shown: list[str] = []
    for start in (5, 10, 15):
        handler = Decider(STORE)
        async with monitoring(settings, handler):
            await seen(handler.events, 5)
            await settled(client, settings.dlq_stream)
        shown += [event.event_id for event in handler.events]
        await publish(client, settings, [letter(n) for n in range(start, start + 5)])
    assert sorted(shown) == sorted(f"event-{n}" for n in range(15))


async def test_an_older_wide_stream_is_monitored_too(settings: Settings, nats_url: str) -> None:
    import nats

    client = await nats.connect(nats_url)
    js, wide = client.jetstream(), settings.events_stream
    await js.add_stream(name=wide, subjects=[f"{settings.subject_prefix}.>"])
    await publish(client, settings, [b'{"some": "event"}'], "analysis.ndvi_computed")
    await publish(client, settings, [letter(1)])
    handler = Decider(DISCARD)
    async with monitoring(settings, handler):
        await seen(handler.events, 1)
        await settled(client, wide)
        assert [event.stream for event in handler.events] == [wide]
    await drain_log(settings)
    assert [row["status"] for row in failures(settings)] == ["discarded"]
    await client.close()


async def test_a_monitor_that_comes_first_makes_the_stream(
    settings: Settings, nats_url: str
) -> None:
    import nats

    client = await nats.connect(nats_url)
    handler = Decider(STORE)
    async with monitoring(settings, handler):
        await publish(client, settings, [letter(1)])
        await seen(handler.events, 1)
    info = await client.jetstream().stream_info(settings.dlq_stream)
    assert info.config.deny_purge is True
    assert len(info.config.subjects or []) == 3
    await client.close()


async def test_a_push_consumer_of_that_name_is_refused_in_words(
    settings: Settings, client: Client
) -> None:
    await client.jetstream().subscribe(
        f"{settings.subject_prefix}.dlq.>", durable=DURABLE, stream=settings.dlq_stream
    )
    consumer = DLQConsumer(config(settings))
    assert await consumer.connect()
    with pytest.raises(StreamError, match="push consumer"):
        await consumer.subscribe(Decider(STORE))
    await consumer.close()


async def test_any_bytes_are_an_event_and_stop_nothing(settings: Settings, client: Client) -> None:
    handler = Decider(STORE)
    odd = [b"", b"\xff\xfe", b"null", b"[[[[", b'{"event_id": 7}', b"[" * 5_000, letter(1) + b"x"]
    async with monitoring(settings, handler):
        await publish(client, settings, odd)
        subject = f"{settings.subject_prefix}.dlq.".encode()
        publish_raw(settings, subject + b"\xff\xfe", None, b"{}")
        publish_raw(settings, subject + b"x", b"NATS/1.0\r\nno colon\r\n\r\n", b"{}")
        publish_raw(settings, subject + b"x", b"NATS/1.0\r\nStatus: 404\r\n\r\n", b"{}")
        await publish(client, settings, [letter(99)])
        await seen(handler.events, len(odd) + 4)
        await settled(client, settings.dlq_stream)
    assert len(handler.events) == len(odd) + 4
    assert all(event.parse_error for event in handler.events if event.event_id != "event-99")
    await drain_log(settings)
    stored = {str(row["id"]) for row in failures(settings)}
    assert {event.failure_id for event in handler.events} == stored


async def _holds(client: Client, settings: Settings, count: int) -> bool:
    info = await client.jetstream().stream_info(settings.dlq_stream)
    return info.state.messages >= count
