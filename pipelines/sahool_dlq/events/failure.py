"""A failed event as a dead letter: all fields that explain it, and the original bytes."""

import contextlib
import re
from datetime import datetime
from typing import Any

from pydantic_core import from_json

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.event import event_ids
from sahool_dlq.deadletter.headers import Headers, redrive_marks, value_of
from sahool_dlq.deadletter.sanitize import clean_text, parse_json
from sahool_dlq.deadletter.subjects import event_type_of
from sahool_dlq.events.attempts import Attempts
from sahool_dlq.events.cause import Cause, cause_of
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.results import DeadLetter
from sahool_dlq.jetstream.pull import Delivery

_REDRIVE_ATTEMPT = re.compile(r"[0-9]{1,9}\Z")


def parse_body(data: bytes) -> tuple[bool, Any]:
    """Whether a body is strict JSON in UTF-8, and its parsed content as a handler may read it; None
    if it cannot be read.

    In a body that is not strict JSON, unstorable values are replaced, see `sanitize.parse_json`.
    """
    with contextlib.suppress(ValueError):
        return True, from_json(data, allow_inf_nan=False)
    with contextlib.suppress(ValueError):
        return False, parse_json(data)
    return False, None


def event_fields(
    *, subject: str, headers: Headers, body: Any, delivery: Delivery
) -> dict[str, Any]:
    """The canonical keys of a dead letter about the event and the service that failed.

    `body` is the parsed body of the event; the body itself is not included (docs/wire-format.md).
    """
    said = event_ids(body, headers)
    fields = {
        "event_id": said.get("event_id") or "unknown",
        "original_subject": subject,
        "event_type": event_type_of(subject),
        "source_service": said.get("source_service") or "unknown",
        "tenant_id": said.get("tenant_id"),
        "field_id": said.get("field_id"),
        "farmer_id": said.get("farmer_id"),
        "original_headers": dict(headers),
        "original_stream": delivery.stream,
        "original_sequence": delivery.sequence,
        "original_timestamp_ns": delivery.timestamp_ns,
        "consumer_name": delivery.consumer,
        "failure_id": ids.failure_id(
            delivery.stream, delivery.sequence, delivery.timestamp_ns, delivery.consumer
        ),
        "traceparent": value_of(headers, "traceparent"),
    }
    root, redrive, attempt = redrive_marks(headers)
    if root is not None:
        fields |= {
            "redrive_of": root,
            "redrive_id": redrive,
            "redrive_attempt": int(attempt)
            if attempt and _REDRIVE_ATTEMPT.match(attempt)
            else None,
        }
    return fields


def dead_letter_fields(
    *,
    subject: str,
    headers: Headers,
    body: Any,
    delivery: Delivery,
    config: NATSConsumerConfig,
    handler: str,
    attempts: Attempts,
    verdict: DeadLetter,
    now: datetime,
) -> dict[str, Any]:
    """The canonical keys of a consumer's dead letter, without the event's body."""
    kind, message, trace = verdict_cause(verdict, attempts)
    return {
        **event_fields(subject=subject, headers=headers, body=body, delivery=delivery),
        "error_message": message,
        "error_type": kind,
        "stack_trace": trace,
        "retry_count": min(max(attempts.begun_count - 1, 0), config.max_retries),
        "max_retries": config.max_retries,
        "first_attempt_at": attempts.first_at.isoformat(),
        "last_attempt_at": now.isoformat(),
        "dlq_timestamp": now.isoformat(),
        "dlq_reason": verdict.dlq_reason,
        "consumer_service": config.name,
        "consumer_version": config.version,
        "handler": handler,
        "attempts": attempts.calls,
    }


def crash_loop(attempts: Attempts) -> DeadLetter:
    """The result for an event whose calls kill the process."""
    begun, unfinished = attempts.begun_count, attempts.unfinished_count
    if unfinished:
        said = (
            f"Its handler was called at least {begun} times, and {unfinished} calls never ended"
            f" because their process died. It is not called again."
        )
    else:  # attempts cannot be kept here
        said = f"It was delivered {begun} times, and each time the process seems to have died."
    return DeadLetter(said, dlq_reason=CRASH_LOOP)


def verdict_cause(verdict: DeadLetter, attempts: Attempts) -> Cause:
    """The best known cause: this exception, the handler's text, or an earlier call's exception."""
    if verdict.error is not None:
        return cause_of(verdict.error)
    known = attempts.cause
    if verdict == EVENT_REMOVED:
        words = f"{verdict.reason} Its last call ended with"
        if known is None:
            return Cause("EventRemoved", f"{words}out an exception.", None)
        said = f"{words} {known.error_type}: {known.error_message}"
        return Cause("EventRemoved", said, known.stack_trace)
    if verdict.reason is None and known is not None:
        return known
    kind = "CrashLoop" if verdict.dlq_reason == CRASH_LOOP else "HandlerResult"
    words = verdict.reason or _WORDS.get(verdict.dlq_reason, verdict.dlq_reason)
    return Cause(kind, clean_text(str(words)), None)


CRASH_LOOP = "crash_loop"
EVENT_REMOVED = DeadLetter(
    "The stream removed the event while it waited for a retry.", dlq_reason="event_removed"
)
_WORDS = {
    "handler_dead_letter": "The handler returned DEAD_LETTER without an exception.",
    "max_retries_exceeded": "The handler returned RETRY until no retries were left.",
}
