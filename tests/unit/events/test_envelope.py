"""The drain reads everything that our consumer writes, and a redrive gets the original bytes."""

import contextlib
import gzip
import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.encode import (
    encode_case_event,
    encode_dead_letter,
    encode_pointer,
)
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.record import DeadLetter
from sahool_dlq.events import results
from sahool_dlq.events.attempts import Attempts
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.failure import dead_letter_fields, parse_body
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.redrive.origin import Event, original_event
from support.letters import EPOCH, STREAM, message

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
DELIVERY = Delivery("SAHOOL_EVENTS", "ndvi", 4, 7, 1_772_359_100_000_000_000, 0)
NO_STORE = cast("Any", None)


def fields_of(body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
    return dead_letter_fields(
        subject="sahool.analysis.ndvi_computed",
        headers=headers or {},
        body=parse_body(body)[1],
        delivery=DELIVERY,
        config=NATSConsumerConfig(name="ndvi-service", version="1"),
        handler="handle",
        attempts=Attempts(NOW, 4, 4),
        verdict=results.DeadLetter(error=ValueError("boom"), dlq_reason="max_retries_exceeded"),
        now=NOW,
    )


def dead_letter(body: bytes, headers: dict[str, str] | None = None) -> bytes:
    return encode_dead_letter(fields_of(body, headers), body, parse_body(body)[0])


def drained(data: bytes) -> DeadLetter:
    return decode(message(data), EPOCH, STREAM)


async def redriven(data: bytes) -> Event:
    return await original_event(NO_STORE, message(data))


BODIES = [
    b"{}",
    b'{"event_id": "e1", "tenant_id": "t1", "ndvi": 0.50}',
    b'  {"a" : 1.10,\n "b":[ ] }\r\n',
    b"\n1\n",
    b'"}"',
    b'"\\u0000\\u00e9"',
    '{"é": "😀"}'.encode(),
    b"123456789012345678901234567890",
    b"1e400",
    b"null",
    b"[1,1]",
    b'{"raw_data": "x"}',
    b'{"base64": "eA=="}',
    b"[" * 200 + b"]" * 200,
    b"",
    b" ",
    b"plain text",
    b"\x00\xff\xfe",
    b"\xef\xbb\xbf{}",
    '{"é": 1}'.encode("utf-16"),
    gzip.compress(b"{}", mtime=0),
    b"[NaN]",
    b'{"a": "\\ud800"}',
    b"{'a': 1}",
    b"[" * 5000 + b"]" * 5000,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
async def test_a_redrive_gets_the_original_bytes_back(body: bytes) -> None:
    event = await redriven(dead_letter(body))
    assert (event.subject, event.body, event.headers) == ("sahool.analysis.ndvi_computed", body, {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SPACE = st.text(" \t\r\n", max_size=3)
TEXTS = st.tuples(SPACE, JSON, SPACE, st.sampled_from([None, 1]), st.booleans()).map(
    lambda parts: (
        parts[0] + json.dumps(parts[1], indent=parts[3], ensure_ascii=parts[4]) + parts[2]
    ).encode(errors="replace")
)


@given(st.binary(max_size=60) | TEXTS)
@example(b'{"payload_encoding": "object"}')
@example(b'"original_data": 1}')
@settings(max_examples=250, deadline=None)
async def test_any_body_survives_the_way_there_and_back(body: bytes) -> None:
    data = dead_letter(body)
    assert (await redriven(data)).body == body
    letter = drained(data)
    assert letter.failure_id == ids.failure_id("SAHOOL_EVENTS", 7, DELIVERY.timestamp_ns, "ndvi")
    is_json, value = parse_body(body)
    is_read = is_json or value is not None or is_null(body)
    assert letter.payload_encoding == ("json" if is_read else "base64")
    assert letter.error_message == "boom"


@pytest.mark.parametrize(
    "body",
    [body for body in BODIES if b"\\u0000" not in body and body[:4] not in (b"1234", b"1e40")],
)
def test_what_our_consumer_writes_is_never_quarantined(body: bytes) -> None:
    letter = drained(dead_letter(body, {"Nats-Msg-Id": "m1", "X-Café": "ü"}))
    assert (letter.parse_error, letter.envelope) == (None, "canonical")
    is_mended = b"NaN" in body or b"ud800" in body or len(body) == 10_000
    assert letter.clamped == ("original_data" if is_mended else None)


def is_null(body: bytes) -> bool:
    """Whether it is null, in whatever encoding."""
    with contextlib.suppress(ValueError):
        return json.loads(body) is None
    return False


def test_a_json_body_is_kept_verbatim() -> None:
    body = b' {"b": 1.10, "a": [1e5,\t"\\u00e9"]} '
    assert body in dead_letter(body)
    assert drained(dead_letter(body)).original_data == body.decode().strip()


def test_every_field_that_was_written_is_read() -> None:
    body = b'{"event_id": "e1", "source_service": "satellite", "field_id": "f", "farmer_id": 7}'
    headers = {"X": "1", "traceparent": "00-1"}
    letter = drained(dead_letter(body, headers))
    assert (letter.event_id, letter.source_service) == ("e1", "satellite")
    assert (letter.tenant_id, letter.field_id, letter.farmer_id) == (None, "f", "7")
    assert (letter.service, letter.consumer_version) == ("ndvi-service", "1")
    assert (letter.handler, letter.consumer_name) == ("handle", "ndvi")
    assert (letter.error_type, letter.retry_count, letter.max_retries) == ("ValueError", 3, 3)
    assert letter.first_attempt_at == letter.dlq_timestamp == NOW
    assert letter.dlq_reason == "max_retries_exceeded"
    assert json.loads(letter.original_headers) == headers
    assert letter.traceparent == "00-1"
    assert letter.attempts == "[]"


def test_a_redrive_that_fails_again_names_its_root_on_the_way_back() -> None:
    root = ids.failure_id("SAHOOL_EVENTS", 1, 1, "ndvi")
    headers = {
        "Dlq-Redrive-Of": root,
        "Dlq-Redrive-Id": ids.redrive_id(root, 2),
        "Dlq-Redrive-Attempt": "2",
    }
    letter = drained(dead_letter(b"{}", headers))
    assert (letter.root_failure_id, letter.redrive_attempt) == (root, 2)
    assert letter.redrive_id == ids.redrive_id(root, 2)


def test_a_pointer_says_where_the_body_is() -> None:
    pointer = {"bucket": "b", "name": "n", "size": 3, "sha256": "0"}
    letter = drained(encode_pointer(fields_of(b"abc"), pointer))
    assert letter.payload_encoding == "object"
    assert json.loads(letter.original_data) == {"object": pointer}
    assert letter.parse_error is None


def test_a_case_event_leaves_out_what_is_not_known() -> None:
    body = encode_case_event(failure_id="f", at=NOW, actor="ada")
    assert json.loads(body) == {
        "failure_id": "f",
        "at": "2026-03-01T10:00:00+00:00",
        "actor": "ada",
    }
