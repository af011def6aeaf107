"""Every public name of `sahool_dlq.events`, used as a service would use it: checked, never run.

`make lint` checks it strictly and without the pydantic plugin, as services may. A wrong use has a
comment with the error that it must cause; mypy fails if that error does not occur.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, assert_type

from faststream.nats import NatsBroker
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from taskiq_nats import PullBasedJetStreamBroker

from sahool_dlq import events
from sahool_dlq.events import (
    CONSUMER_AVAILABLE,
    CREATE_TABLE_SQL,
    DLQ_AVAILABLE,
    DLQ_CONSUMER_AVAILABLE,
    DLQ_MODELS_AVAILABLE,
    METRICS_AVAILABLE,
    NATS_AVAILABLE,
    NATS_CONSUMER_AVAILABLE,
    NATS_PUBLISHER_AVAILABLE,
    AnalysisEvent,
    ConsumerContext,
    DeadLetter,
    DLQAction,
    DLQConsumer,
    DLQConsumerConfig,
    DLQEvent,
    FailedEvent,
    FailedEventModel,
    NATSConfig,
    NATSConsumer,
    NATSConsumerConfig,
    NATSPublisher,
    ProcessingResult,
    Retry,
    RetryPolicy,
    consumer_metrics,
    dead_letter,
    default_dlq_handler,
    failures_by_error_type,
    failures_by_service,
    faststream_dead_letters,
    get_publisher,
    pending_retries,
    publish_analysis_completed,
    publish_analysis_completed_sync,
    recent_failures,
    start_consumer,
    start_dlq_consumer,
    taskiq_dead_letters,
    with_dead_letters,
)

assert_type(CREATE_TABLE_SQL, str)
for flag in (
    *(NATS_CONSUMER_AVAILABLE, NATS_PUBLISHER_AVAILABLE, NATS_AVAILABLE, CONSUMER_AVAILABLE),
    *(DLQ_CONSUMER_AVAILABLE, DLQ_AVAILABLE, DLQ_MODELS_AVAILABLE, METRICS_AVAILABLE),
):
    assert_type(flag, bool)
print(events.Nonsense)  # type: ignore[attr-defined]


# --- consuming


async def plain(context: ConsumerContext) -> ProcessingResult:
    assert_type(context.subject, str)
    assert_type(context.data, bytes)
    assert_type(context.headers, dict[str, str])
    assert_type(context.repeated_headers, dict[str, list[str]])
    assert_type(context.header_values("X-Tag"), list[str])
    assert_type(context.attempt, int)
    assert_type(context.max_retries, int)
    assert_type(context.published_at, datetime | None)
    return ProcessingResult.SUCCESS


async def explained(context: ConsumerContext) -> ProcessingResult | Retry | DeadLetter:
    try:
        int(context.data)
    except ValueError as error:
        if context.attempt:
            return DeadLetter(reason="no number", error=error, dlq_reason="no_number")
        return Retry("no number yet", error, delay_seconds=1.5)
    return Retry(error="no exception")  # type: ignore[arg-type]


async def silent(context: ConsumerContext) -> None: ...


def blocking(context: ConsumerContext) -> ProcessingResult:
    return ProcessingResult.RETRY


async def consume() -> None:
    policy = RetryPolicy(event_type="ndvi_*", error_type="TimeoutError", max_retries=9)
    config = NATSConsumerConfig(name="ndvi-service", max_retries=5, policies=(policy,))
    config = NATSConsumerConfig.from_file("consumer.toml", servers=["nats://nats:4222"])
    NATSConsumerConfig(nam="ndvi-service")  # type: ignore[call-arg]
    NATSConsumerConfig(max_retries="many")  # type: ignore[arg-type]

    consumer = NATSConsumer(config, on_trouble=lambda kind, sentence: print(kind, sentence))
    assert_type(await consumer.connect(), bool)
    assert_type(consumer.is_connected, bool)
    await consumer.subscribe(
        plain, subject="sahool.analysis.*", stream_name="SAHOOL_EVENTS", consumer_name="ndvi"
    )
    await consumer.subscribe(explained)
    await consumer.subscribe(silent)  # type: ignore[arg-type]
    await consumer.subscribe(blocking)  # type: ignore[arg-type]
    await consumer.start()
    await consumer.run()
    await consumer.close()
    CollectorRegistry().register(consumer_metrics)
    assert_type(await start_consumer(plain, config), NATSConsumer)
    await start_consumer(explained, on_trouble=lambda kind, sentence: print(kind, sentence))


# --- next to another library that consumes


@with_dead_letters(NATSConsumerConfig(name="ndvi-service"))
async def plain_handler(msg: Msg) -> None: ...


@with_dead_letters(NATSConsumerConfig(name="ndvi-service"))
async def explained_handler(msg: Msg) -> Retry | None:
    return Retry("not yet")


@with_dead_letters(NATSConsumerConfig(name="ndvi-service"))  # type: ignore[arg-type]
async def text_handler(msg: Msg) -> str:
    return ""


async def give_up(msg: Msg) -> None:
    await plain_handler(msg)
    config = NATSConsumerConfig(name="ndvi-service")
    assert_type(await dead_letter(msg, ValueError("bad"), config), bool)
    assert_type(await dead_letter(msg, None, config, reason="sold", dlq_reason="sold"), bool)
    await dead_letter(msg, "bad", config)  # type: ignore[arg-type]


faststream_dead_letters(NatsBroker(), NATSConsumerConfig(name="ndvi-service"))
faststream_dead_letters("nats://nats:4222", NATSConsumerConfig())  # type: ignore[arg-type]
taskiq_dead_letters(PullBasedJetStreamBroker("nats"), NATSConsumerConfig(name="ndvi-service"))
taskiq_dead_letters(NatsBroker(), NATSConsumerConfig())  # type: ignore[arg-type]


# --- monitoring


async def triage(event: DLQEvent) -> DLQAction:
    assert_type(event.error_type, str)
    assert_type(event.failure_id, str)
    assert_type(event.dlq_timestamp, datetime)
    if event.error_type == "TimeoutError":
        return DLQAction.RETRY
    return DLQAction.ALERT if event.retry_count > 1 else DLQAction.DISCARD


async def page(event: DLQEvent) -> None: ...


async def monitor() -> None:
    config = DLQConsumerConfig(critical_error_types=["DatabaseError"], auto_retry_enabled=True)
    DLQConsumerConfig(dlq_subjects="sahool.dlq.>")  # type: ignore[call-arg]
    consumer = DLQConsumer(config, notifier=page)
    assert_type(await consumer.connect(), bool)
    await consumer.subscribe(triage)
    await consumer.subscribe(plain)  # type: ignore[arg-type]
    await consumer.start()
    await consumer.close()
    assert_type(await start_dlq_consumer(triage, config), DLQConsumer)
    assert_type(await start_dlq_consumer(notifier=page), DLQConsumer)
    await start_dlq_consumer(default_dlq_handler)


# --- publishing


async def publish() -> None:
    publisher = NATSPublisher(NATSConfig(servers=["nats://nats:4222"], name="satellite-service"))
    assert_type(await publisher.connect(), bool)
    assert_type(publisher.is_connected, bool)
    assert_type(await publisher.publish("sahool.analysis.x", b"{}", {"traceparent": "00"}), bool)
    await publisher.publish("sahool.analysis.x", "{}")  # type: ignore[arg-type]
    event = AnalysisEvent(event_type="ndvi.computed", source_service="s", data={"mean": 0.7})
    AnalysisEvent(event_type="ndvi.computed")  # type: ignore[call-arg]
    assert_type(event.to_json(), str)
    assert_type(await publisher.publish_analysis_event(event), bool)
    assert_type(await publisher.publish_action_event("sow", "field-1", {}, "advisor"), bool)
    await publisher.close()
    assert_type(await get_publisher(), NATSPublisher)
    assert_type(await publish_analysis_completed("ndvi.computed", "s", "field-1", {}), bool)
    assert_type(
        publish_analysis_completed_sync("ndvi.computed", "s", "field-1", {}, priority="high"), bool
    )
    publish_analysis_completed_sync("ndvi.computed")  # type: ignore[call-arg]


# --- reading failures


def read(body: bytes, session: Session) -> None:
    event = FailedEvent.model_validate_json(body)
    assert_type(event.retry_count, int)
    assert_type(event.failure_id, str | None)
    assert_type(event.to_json(), str)
    assert_type(session.scalars(recent_failures(limit=20)).all(), Sequence[FailedEventModel])
    for failure in session.scalars(pending_retries(["TimeoutError"])):
        assert_type(failure.error_message, str)
        assert_type(failure.resolved_at, datetime | None)
        assert_type(failure.to_dict(), dict[str, Any])
        print(failure.error_mesage)  # type: ignore[attr-defined]
    by_type = session.execute(failures_by_error_type()).all()
    assert_type(by_type, Sequence[Row[tuple[str, int, int]]])
    session.execute(failures_by_service(days=1))  # type: ignore[call-arg]


async def read_async(session: AsyncSession) -> None:
    by_service = (await session.execute(failures_by_service(hours=1))).all()
    assert_type(by_service, Sequence[Row[tuple[str, int, int]]])
