"""What to do with a dead letter: settings of a monitor, and its pure decisions."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from pydantic import Field

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.deadletter.error_families import with_subclasses
from sahool_dlq.deadletter.ids import redrive_id
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.events.monitor.dlq_event import DLQEvent
from sahool_dlq.jetstream.access import Access


class DLQAction(Enum):
    """A handler's decision about a dead letter."""

    STORE = "store"  # keep it: the drain stores it in the lake and the database
    RETRY = "retry"  # request a redrive, auto_retry_delay_hours after it failed
    ALERT = "alert"  # send an alert, and keep it
    DISCARD = "discard"  # keep it as discarded: nothing needs to be done


class DLQConsumerConfig(Access):
    """How a `DLQConsumer` connects (see `Access`), and what the default handler decides."""

    name: str = "sahool-dlq-consumer"  # the actor of the decisions

    dlq_subject: str = Field(default="sahool.dlq.>", pattern=r"^[^.*>]+\.dlq\.")
    dlq_stream_name: str = "SAHOOL_DLQ"  # made where no stream holds the subject
    consumer_name: str | None = None  # durable name; default from name and subject

    store_in_db: bool = True  # the drain stores every dead letter; False is only warned about
    alert_on_critical: bool = True
    critical_error_types: list[str] = Field(
        default_factory=lambda: ["DatabaseError", "AuthenticationError"]
    )  # with their known subclasses
    auto_retry_enabled: bool = False
    auto_retry_delay_hours: float = Field(default=24, ge=0)

    max_handler_failures: int = Field(default=3, ge=1)  # after which a dead letter counts as STORE
    # of a handler's call, and of a notifier's; None: for ever
    handler_timeout_seconds: float | None = Field(default=60, gt=0)
    retry_delay_seconds: float = Field(default=5, ge=0)  # doubling; before another try
    max_retry_delay_seconds: float = Field(default=300, ge=0)

    ack_wait_seconds: float = Field(default=30, gt=0)  # silence after which the server redelivers
    max_concurrency: int = Field(default=16, ge=1)  # dead letters in hand at once
    max_ack_pending: int = Field(default=10_000, ge=1)  # delayed ones count against it
    shutdown_seconds: float = Field(default=20, ge=0)  # how long close() waits for running handlers

    connect_timeout_seconds: float = Field(default=10, gt=0)  # for `connect` as a whole
    reconnect_time_wait: float = Field(default=2, ge=0)
    max_reconnect_attempts: int = -1  # for ever

    @property
    def subjects(self) -> Subjects:
        """The subjects of the log, with the prefix of the dead letters."""
        return Subjects(self.dlq_subject.partition(".")[0])


@dataclass(frozen=True, slots=True)
class News:
    """One message to publish on the log."""

    subject: str
    message_id: str  # its Nats-Msg-Id: a redelivered dead letter causes no second message
    body: bytes


def default_action(event: DLQEvent, config: DLQConsumerConfig) -> DLQAction:
    """The default handler's decision: alert on critical errors, retry if enabled, else store."""
    error_class = event.error_type.rpartition(".")[2]
    if config.alert_on_critical and error_class in with_subclasses(config.critical_error_types):
        return DLQAction.ALERT
    return DLQAction.RETRY if config.auto_retry_enabled else DLQAction.STORE


def news_of(
    event: DLQEvent, action: DLQAction, config: DLQConsumerConfig, *, reason: str, now: datetime
) -> Iterator[News]:
    """The messages to publish for an action."""
    subjects = config.subjects
    about = f"{event.failure_id}-{event.first_attempt_at.isoformat()}"
    for failure, attempt in event.cases.items():
        if action is DLQAction.RETRY:
            redrive = redrive_id(failure, attempt)
            body = encode_case_event(
                failure_id=failure,
                at=now,
                actor=config.name,
                reason=reason,
                redrive_id=redrive,
                attempt=attempt,
                trigger="automatic",
                # By the dead letter's time, not the current time: so a repeat is identical.
                not_before=event.published_at + timedelta(hours=config.auto_retry_delay_hours),
            )
            yield News(subjects.redrive("requested"), f"{about}-{redrive}-requested", body)
        elif action in _DECISIONS:
            decision = _DECISIONS[action]
            is_root = (
                failure != event.failure_id
            )  # published with the redrive, which must be in the log
            body = encode_case_event(
                failure_id=failure,
                at=now,
                actor=config.name,
                reason=reason,
                redrive_id=event.redrive_id if is_root else None,
                attempt=event.redrive_attempt if is_root else None,
            )
            message_id = f"{about}-{failure}-{decision}"
            yield News(subjects.triage(decision), message_id, body)


_DECISIONS = {DLQAction.DISCARD: "discarded", DLQAction.ALERT: "alerted"}


def retry_delay(delivery_count: int, config: DLQConsumerConfig) -> float:
    """Seconds before a dead letter is tried again after an error: doubling, with a maximum."""
    delay = config.retry_delay_seconds * 2.0 ** min(delivery_count - 1, 32)
    return min(delay, config.max_retry_delay_seconds)
