"""A failed event as a dead letter: every field that explains it, and the original bytes."""

import json
import re
import traceback
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from pipelines.deadletter import ids
from pipelines.deadletter.headers import Headers, redrive_marks, value_of
from pipelines.deadletter.sanitize import clean_text
from pipelines.deadletter.subjects import event_type_of
from pipelines.events.config import NATSConsumerConfig
from pipelines.events.results import DeadLetter
from pipelines.jetstream.pull import Delivery

_LONGEST_TRACE = 64_000  # characters
_LONGEST_KEPT_TRACE = 16_000  # while an event waits for its retry
CRASH_LOOP = DeadLetter(
    "The process died on this event again and again; its handler was not called.",
    dlq_reason="crash_loop",
)

_CALLER = str(Path(__file__).with_name("subscription.py"))
_REDRIVE_ATTEMPT = re.compile(r"[0-9]{1,9}\Z")


class Cause(NamedTuple):
    """An exception in words: it holds no frames, so it may be kept while retries go on."""

    error_type: str
    error_message: str
    stack_trace: str | None


@dataclass(slots=True)
class Attempts:
    """The failed calls of one event that this process saw."""

    first_at: datetime
    calls: list[dict[str, str]] = field(default_factory=list)
    cause: Cause | None = None  # of the last call whose cause is known, its texts cut

    def add(self, at: datetime, error: BaseException | None, reason: str | None = None) -> None:
        """Remember one failed call."""
        call = {"at": at.isoformat(), "error_type": "", "error_message": ""}
        if error is not None:
            kind, message, trace = cause_of(error, _LONGEST_KEPT_TRACE)
            self.cause = Cause(kind, _shortened(message, _LONGEST_KEPT_TRACE), trace)
            call |= {"error_type": kind, "error_message": message[:2_000]}
        if reason is not None:
            call["reason"] = clean_text(str(reason))[:2_000]
        self.calls = [*self.calls[-9:], call]


def cause_of(error: BaseException, longest_trace: int = _LONGEST_TRACE) -> Cause:
    """An exception in words."""
    return Cause(error_type(error), error_text(error), stack_trace(error, longest_trace))


def error_type(error: BaseException) -> str:
    """The class name of an exception, which is what policies and reports go by."""
    return type(error).__name__


def error_text(error: BaseException) -> str:
    """What an exception says; nothing that an exception does can keep its dead letter back."""
    try:
        return clean_text(str(error))
    except Exception as failure:  # noqa: BLE001  (a broken __str__ can raise anything)
        return f"(its text can not be read: {type(failure).__name__})"


def stack_trace(error: BaseException, longest: int = _LONGEST_TRACE) -> str:
    """The full chained traceback; the middle is cut where it is longer than `longest` characters.

    This library's own frames are left out: they are the same in every failure.
    """
    try:
        trace = traceback.TracebackException.from_exception(error)
        link: traceback.TracebackException | None = trace
        while link is not None:
            link.stack[:] = [frame for frame in link.stack if frame.filename != _CALLER]
            link = link.__cause__ or link.__context__
        text = clean_text("".join(trace.format()))
    except Exception as failure:  # noqa: BLE001  (see error_text)
        return f"(the traceback can not be read: {type(failure).__name__})"
    return _shortened(text, longest)


def _shortened(text: str, longest: int) -> str:
    """`text`, the middle cut where it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"


def parse_body(data: bytes) -> tuple[bool, Any]:
    """Whether a body is strict JSON in UTF-8, and its value."""
    try:
        return True, from_json(data, allow_inf_nan=False)
    except ValueError:
        return False, None


def event_fields(
    *, subject: str, headers: Headers, body: Any, delivery: Delivery
) -> dict[str, Any]:
    """The canonical keys of a dead letter that say which event it is about, and who failed on it.

    `body` is the event's body parsed; the body itself is not part of it (docs/wire-format.md).
    """
    payload: dict[str, Any] = body if isinstance(body, dict) else {}
    fields = {
        "event_id": _text(payload, "event_id") or value_of(headers, "Nats-Msg-Id") or "unknown",
        "original_subject": subject,
        "event_type": event_type_of(subject),
        "source_service": _text(payload, "source_service") or "unknown",
        "tenant_id": _text(payload, "tenant_id"),
        "field_id": _text(payload, "field_id"),
        "farmer_id": _text(payload, "farmer_id"),
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
    kind, message, trace = _cause(verdict, attempts)
    return {
        **event_fields(subject=subject, headers=headers, body=body, delivery=delivery),
        "error_message": message,
        "error_type": kind,
        "stack_trace": trace,
        "retry_count": min(delivery.delivery_count - 1, config.max_retries),
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


def _cause(verdict: DeadLetter, attempts: Attempts) -> Cause:
    """The best that is known: this exception, the handler's words, an earlier call's exception."""
    if verdict.error is not None:
        return cause_of(verdict.error)
    if verdict.reason is None and attempts.cause is not None:
        return attempts.cause
    kind = "CrashLoop" if verdict == CRASH_LOOP else "HandlerResult"
    words = verdict.reason or _WORDS.get(verdict.dlq_reason, verdict.dlq_reason)
    return Cause(kind, clean_text(str(words)), None)


_WORDS = {
    "handler_dead_letter": "The handler returned DEAD_LETTER without an exception.",
    "max_retries_exceeded": "The handler returned RETRY until its retries ran out.",
}


def _text(payload: dict[str, Any], key: str) -> str | None:
    value = payload.get(key)
    return value if isinstance(value, str) else None if value is None else json.dumps(value)
