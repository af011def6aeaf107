"""Dead letters as bytes, and the result of `decode` for them."""

import json
import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.record import JSON_COLUMNS, LONG_TEXT_LIMIT, DeadLetter

EPOCH = "SAHOOL_DLQ|1"
STREAM = "SAHOOL_DLQ"
SEQUENCE = 5
PUBLISHED_NS = 1_772_359_200_123_456_789
PUBLISHED_AT = datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)
ORIGIN = ("SAHOOL_EVENTS", 7, 1_772_359_100_000_000_000, "ndvi")
"""Stream, sequence, time and consumer of the failed event in `ours`."""

OLD: dict[str, Any] = {
    "event_id": "e1",
    "original_subject": "sahool.analysis.ndvi_computed",
    "event_type": "ndvi_computed",
    "source_service": "satellite",
    "tenant_id": "t1",
    "field_id": "f1",
    "farmer_id": None,
    "error_message": "boom",
    "error_type": "ValueError",
    "stack_trace": None,
    "retry_count": 3,
    "max_retries": 3,
    "first_attempt_at": "2026-03-01T09:59:00Z",
    "last_attempt_at": "2026-03-01T12:59:30+03:00",
    "dlq_timestamp": "2026-03-01T09:59:40.5",
    "original_data": {"event_id": "e1", "ndvi": 0.51},
    "original_headers": {"Nats-Msg-Id": "e1"},
    "dlq_reason": "max_retries_exceeded",
}
"""What older services send: exactly these keys."""

METADATA: dict[str, Any] = {
    "original_subject": "sahool.field.created",
    "original_event_id": "e2",
    "correlation_id": "c1",
    "retry_count": 2,
    "failure_reason": "no such field",
    "failure_timestamp": "2026-03-01T09:59:40",
    "error_type": "KeyError",
    "error_traceback": "Traceback …",
    "consumer_service": "billing",
    "consumer_version": "1.2",
    "handler_function": "on_field",
    "retry_timestamps": ["2026-03-01T09:58:00", "2026-03-01T09:59:00"],
    "retry_errors": ["first", "second"],
    "replayed": False,
    "replay_count": 0,
    "last_replay_timestamp": None,
}
"""The `metadata` of the second envelope."""


def ours(**changes: Any) -> dict[str, Any]:
    """A dead letter of our consumer; a change to None is sent as null."""
    stream, sequence, timestamp_ns, consumer = ORIGIN
    return {
        **OLD,
        "original_stream": stream,
        "original_sequence": sequence,
        "original_timestamp_ns": timestamp_ns,
        "consumer_name": consumer,
        "consumer_service": "ndvi-service",
        "consumer_version": "2.0",
        "handler": "handle",
        "failure_id": ids.failure_id(*ORIGIN),
        "attempts": [{"at": "2026-03-01T09:59:00Z", "error_type": "E", "error_message": "m"}],
        "payload_encoding": "json",
        "traceparent": None,
        **changes,
    }


def second(original: Any = '{"field_id": "f9", "tenant_id": "t9"}', **changes: Any) -> bytes:
    """A dead letter in the second form of the envelope."""
    return json.dumps({"metadata": METADATA | changes, "original_message": original}).encode()


def message(
    body: bytes | dict[str, Any],
    subject: str = "sahool.dlq.ndvi_computed",
    sequence: int = SEQUENCE,
) -> LogMessage:
    """A message of the dead-letter stream."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return LogMessage(subject, sequence, PUBLISHED_NS, data)


def read(body: bytes | dict[str, Any], subject: str = "sahool.dlq.ndvi_computed") -> DeadLetter:
    """What the drain reads from a message with this body."""
    return decode(message(body, subject), EPOCH, STREAM)


OWN_ID = ids.dead_letter_id(STREAM, SEQUENCE, PUBLISHED_NS)
INT64 = range(-(2**63), 2**63)


def assert_storable(letter: DeadLetter) -> None:
    """Check that Parquet and PostgreSQL can store every value as it is."""
    for name, value in asdict(letter).items():
        if isinstance(value, str):
            value.encode()  # no lone surrogate
            assert "\0" not in value, name
            assert len(value) <= LONG_TEXT_LIMIT, name
        elif isinstance(value, int):
            assert value in INT64, name
        elif isinstance(value, datetime):
            assert value.utcoffset() is not None, name
    for count in (letter.retry_count, letter.max_retries, letter.redrive_attempt or 0):
        assert 0 <= count < 2**31
    for name in JSON_COLUMNS:
        text = getattr(letter, name)
        if text is not None:
            assert_storable_json(json.loads(text, parse_constant=pytest.fail))
    for held in json.loads(letter.original_headers).values():
        assert all(isinstance(value, str) for value in ([held] if isinstance(held, str) else held))


def assert_storable_json(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            assert_storable_json(key)
            assert_storable_json(item)
    elif isinstance(value, list):
        for item in value:
            assert_storable_json(item)
    elif isinstance(value, str):
        value.encode()
        assert "\0" not in value
    elif isinstance(value, int):
        assert value in INT64
    elif isinstance(value, float):
        assert math.isfinite(value)
