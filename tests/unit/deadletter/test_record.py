"""The table of a dead letter's fields, and the models for services, which agree with it."""

from dataclasses import MISSING, fields
from typing import Any, get_type_hints

import pytest

from sahool_dlq.deadletter.record import (
    CANONICAL_KEYS,
    FREE_TEXT_COLUMNS,
    JSON_COLUMNS,
    LABEL_COLUMNS,
    LIMITS,
    LONG_TEXT_LIMIT,
    REQUIRED_KEYS,
    DeadLetter,
)
from sahool_dlq.events.failed_event import FailedEvent
from sahool_dlq.events.monitor.dlq_event import DLQEvent

HINTS = get_type_hints(DeadLetter)
DEFAULTS = {field.name: field.default for field in fields(DeadLetter)}
ONLY_KEPT = {"epoch", "dlq_sequence", "size_bytes", "original_published_at", "clamped"}
ONLY_KEPT |= {"body_format"}  # services decode nothing
ONLY_HANDED_ON = {"stream", "sequence", "original_timestamp_ns"}
OTHERWISE = {*JSON_COLUMNS, "service"}
"""JSON is handed on as values, and `service` is a property."""


def test_a_monitors_event_has_every_field_of_the_table() -> None:
    handed = set(DLQEvent.model_fields) | {"service"}
    assert handed - ONLY_HANDED_ON == set(HINTS) - ONLY_KEPT


@pytest.mark.parametrize("name", sorted(set(HINTS) - ONLY_KEPT - OTHERWISE))
def test_a_field_of_a_monitors_event_has_the_type_and_default_of_the_table(name: str) -> None:
    field = DLQEvent.model_fields[name]
    assert field.annotation == HINTS[name]
    if name != "envelope":  # which is canonical unless something else is said
        default: Any = MISSING if field.is_required() else field.default
        assert default == DEFAULTS[name]


def test_the_dead_letter_that_services_write_has_the_keys_of_the_table() -> None:
    written = FailedEvent.model_fields
    assert set(written) == set(CANONICAL_KEYS)
    assert {name for name, field in written.items() if field.is_required()} <= set(REQUIRED_KEYS)


def test_every_text_is_limited_in_one_way_and_masked_in_one_way() -> None:
    masked = (*FREE_TEXT_COLUMNS, *JSON_COLUMNS, *LABEL_COLUMNS)
    assert len(set(masked)) == len(masked)
    assert not set(LIMITS) & set(JSON_COLUMNS)
    assert all(0 < limit <= LONG_TEXT_LIMIT for limit in LIMITS.values())
    ours = {"epoch", "failure_id", "root_failure_id", "redrive_id", "envelope", "clamped"}
    needed = {"tenant_id", "field_id", "farmer_id"}
    texts = {name for name, hint in HINTS.items() if hint in (str, str | None)}
    assert texts - set(masked) == ours | needed | {"payload_encoding", "body_format"}
