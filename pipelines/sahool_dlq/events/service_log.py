"""The log lines of a service about its events; `extra` has the same values for programs."""

import logging
from typing import Any

from nats.aio.msg import Msg

from sahool_dlq.deadletter.subjects import event_type_of
from sahool_dlq.events.attempts import Attempts
from sahool_dlq.jetstream.pull import Delivery

__all__ = ["log_dead_letter", "log_retry", "log_start"]

logger = logging.getLogger(__name__)


def log_start(service: str, stream: str, consumer: str, subject: str | None) -> None:
    """Log what is consumed."""
    logger.info(
        "%s consumes %s of %s as %s",
        *(service, subject, stream, consumer),
        extra={"service": service, "stream": stream, "consumer": consumer, "subject": subject},
    )


def log_retry(
    service: str, msg: Msg, delivery: Delivery, attempts: Attempts, delay_seconds: float
) -> None:
    """Log at DEBUG that an event will be retried."""
    error_type = attempts.calls[-1]["error_type"]
    logger.debug(
        "Event %d on %s is retried in %.1f s, after call %d: %s",
        *(delivery.sequence, msg.subject, delay_seconds, attempts.failed_count),
        error_type or "no exception",
        extra={
            "service": service,
            "stream": delivery.stream,
            "consumer": delivery.consumer,
            "subject": msg.subject,
            "sequence": delivery.sequence,
            "event_type": event_type_of(msg.subject),
            "error_type": error_type,
            "failed_count": attempts.failed_count,
            "delay_seconds": delay_seconds,
        },
    )


def log_dead_letter(fields: dict[str, Any]) -> None:
    """Warn about an event that was given up; never with the error's text, which may contain
    anything.
    """
    logger.warning(
        "Dead letter: %s on %s (%s), failure %s",
        *(fields["error_type"], fields["original_subject"], fields["dlq_reason"]),
        fields["failure_id"],
        extra={
            "service": fields["consumer_service"],
            "stream": fields["original_stream"],
            "consumer": fields["consumer_name"],
            "subject": fields["original_subject"],
            "sequence": fields["original_sequence"],
            "event_type": fields["event_type"],
            "error_type": fields["error_type"],
            "failure_id": fields["failure_id"],
            "dlq_reason": fields["dlq_reason"],
        },
    )
