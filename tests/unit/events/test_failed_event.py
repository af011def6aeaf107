"""FailedEvent reads the dead letters of our consumer and of older services."""

import json
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from test_failure import fields

from sahool_dlq.deadletter.envelope.encode import encode_dead_letter
from sahool_dlq.events import FailedEvent

# What every older service sends.
CANONICAL = {
    "event_id": "e1",
    "original_subject": "sahool.analysis.ndvi_computed",
    "event_type": "ndvi_computed",
    "source_service": "satellite-service",
    "tenant_id": None,
    "field_id": "field-1",
    "farmer_id": None,
    "error_message": "no connection",
    "error_type": "ConnectionError",
    "stack_trace": None,
    "retry_count": 3,
    "max_retries": 3,
    "first_attempt_at": "2026-01-02T03:04:05Z",
    "last_attempt_at": "2026-01-02T03:04:06+00:00",
    "dlq_timestamp": "2026-01-02T03:04:07.5",
    "original_data": {"mean": 0.7},
    "original_headers": {"Trace": "t1"},
    "dlq_reason": "max_retries_exceeded",
}
REDRIVE = {"Dlq-Redrive-Of": "root", "Dlq-Redrive-Id": "id", "Dlq-Redrive-Attempt": "2"}


def test_what_the_consumer_writes_is_read_without_a_key_too_many_or_too_few() -> None:
    body = encode_dead_letter(fields(headers=REDRIVE), b'{"mean": [0.7]}', is_json=True)
    value = json.loads(body)
    assert set(value) == set(FailedEvent.model_fields) - {"imported_from", "import_error"}
    event = FailedEvent.model_validate_json(body)
    assert event.original_data == {"mean": [0.7]}
    assert (event.redrive_of, event.redrive_attempt) == ("root", 2)
    again = json.loads(event.to_json())
    for time in ("first_attempt_at", "last_attempt_at", "dlq_timestamp"):
        assert datetime.fromisoformat(again.pop(time)) == datetime.fromisoformat(value.pop(time))
    assert again == value | {"imported_from": None, "import_error": None}


def test_what_older_services_send_is_read_and_written_with_times_in_utc() -> None:
    event = FailedEvent.model_validate(CANONICAL)
    assert event.dlq_timestamp == datetime(2026, 1, 2, 3, 4, 7, 500_000, tzinfo=UTC)
    assert FailedEvent.model_validate_json(event.to_json()) == event
    assert set(CANONICAL) <= set(json.loads(event.to_json()))


def test_a_service_builds_one_with_the_arguments_it_always_gave() -> None:
    required = {
        name: CANONICAL[name] for name, f in FailedEvent.model_fields.items() if f.is_required()
    }
    event = FailedEvent.model_validate(required)
    assert event.dlq_reason == "max_retries_exceeded"
    assert event.dlq_timestamp.tzinfo is UTC
    assert set(required) == {
        *("event_id", "original_subject", "event_type", "source_service", "error_message"),
        *("error_type", "retry_count", "max_retries", "first_attempt_at", "last_attempt_at"),
        "original_data",
    }


@pytest.mark.parametrize("body", [b"", b"[]", b'{"event_id": "e1"}', b"\xff"])
def test_anything_else_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValidationError):
        FailedEvent.model_validate_json(body)
