"""`decode_all` gives by column what `decode` gives for each message, whatever its bytes."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.message import MOST_AHEAD, LogMessage
from sahool_dlq.deadletter.record import JSON_COLUMNS, LIMITS, LONG_TEXT_LIMIT, TEXT_LIMITS
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.rows import LETTER_SCHEMA, frame_of
from support import wild
from support.letters import OLD, PUBLISHED_AT, PUBLISHED_NS, STREAM, ours, second


def check(*bodies: bytes, subject: str = "sahool.dlq.ndvi_computed") -> None:
    """Check that both functions agree on a batch of these bodies."""
    messages = [LogMessage(subject, n, PUBLISHED_NS + n, body) for n, body in enumerate(bodies, 5)]
    one_by_one = frame_of([decode(m, "e", STREAM) for m in messages], LETTER_SCHEMA)
    assert_frame_equal(decode_all(messages, "e", STREAM), one_by_one)


def body(**changes: Any) -> bytes:
    return json.dumps({**OLD, **changes}).encode()


TIME_NAMES = ("first_attempt_at", "last_attempt_at", "dlq_timestamp")
AHEAD_ENOUGH = (PUBLISHED_AT + MOST_AHEAD).isoformat()
TOO_FAR_AHEAD = (PUBLISHED_AT + MOST_AHEAD + timedelta(microseconds=1)).isoformat()
PLAIN = [
    *(body(original_data=value) for value in (None, [], "x", 1.5, {"a": {"b": [{}]}}, -0)),
    *(body(attempts=value) for value in (None, [], [{"at": "x"}], {})),
    *(body(original_headers=value) for value in ({}, {"a": "é", "b": "\U0001f33e"})),
    *(body(consumer_service=value) for value in ("", "a")),
    body(consumer_service="", source_service=""),
    body(dlq_timestamp="2026-01-02T03:04:05"),
    body(dlq_timestamp="2026-01-02T03:04:05.123456789-11:30"),
    *(body(**{name: AHEAD_ENOUGH}) for name in TIME_NAMES),
    body(original_data={"hash": "3e123e9991234567890123456789"}),
    body(unknown="key", error_message="", stack_trace=""),
    body(original_data={"id": 1, "field": {"id": 2}}, attempts=[{"at": "x"}, {"at": "y"}]),
    body(original_data={"a\\b": 1, "a:": ["a", {'a"': '":'}]}),
]
ODD = [
    *(body(**{name: value}) for name in ("redrive_of", "redrive_id") for value in ("", "x")),
    body(redrive_attempt=1),
    *(body(original_data={"a": value}) for value in (float("nan"), 10**30, "\0", "\ud800")),
    body(original_data={"a": 1.5}).replace(b"1.5", b"1e999"),
    body(original_data={"a": 1.5}).replace(b"1.5", b"-1.25E+400"),
    body(original_data={"a": 1.5}).replace(b"1.5", b"[" * 300 + b"]" * 300),
    body(original_data="x").replace(b'"x"', b'"\xff\xfe"'),
    body(attempts="x").replace(b'"x"', b'"\xff\xfe"'),
    *(body(dlq_timestamp=value) for value in ("soon", "2200-01-02", "9999-12-31T23:59-14:00", 5)),
    *(body(**{name: TOO_FAR_AHEAD}) for name in TIME_NAMES),
    body(dlq_timestamp="2106-02-07T06:28:15Z"),
    *(body(retry_count=value) for value in (-1, 2**31, "3", None, 1.5, True)),
    *(body(original_timestamp_ns=value) for value in (-1, 2**63, "3")),
    body(payload_encoding="morse"),
    body(redrive_of="x", redrive_id="y", redrive_attempt=1),
    body(original_headers={"Dlq-Redrive-Of": ""}),
    body(original_headers={"a": "\0"}),
    *(body(**{name: "a\0b"}) for name in LIMITS),
    body(error_message="x" * (LONG_TEXT_LIMIT + 1)),
    body(original_data="x" * LONG_TEXT_LIMIT),
    *(body(**{name: "é" * (limit + 1)}) for name, limit in TEXT_LIMITS.items()),
    *(
        body(**{name: 1}).replace(b'"%s": 1' % name.encode(), b'"%s": %s' % (name.encode(), twice))
        for name in ("original_data", "attempts")
        for twice in (
            b'{"a": 1, "a": 2}',
            b'{"a" : 1.10, "b": 3, "a": 2}',
            rb'{"a": 1, "\u0061": 2}',
            b'[{"a": 1}, {"b": {"a": 1, "c": [], "a": {}}}]',
            rb'[{"a": "\"", "b": "\u0022\\"}, {"a": "\u00e9", "\u0062": 1, "b": 2}]',
            b'[{"at": "1", "error_type": "2", "error_message": "3", "error_message": "4"}]',
        )
    ),
    *(b"", b"{", b"null", b"[1]", b"{}", b"\xff", b"NaN"),
]


@pytest.mark.parametrize("message", [*PLAIN, *ODD])
def test_one_message_is_read_alike(message: bytes) -> None:
    check(message)


def test_of_a_key_that_comes_twice_the_last_is_kept_and_that_is_reported() -> None:
    twice = body(original_data=0).replace(
        b'"original_data": 0', b'"original_data": {"a": 1, "b": {"c": 1, "c": 2}, "a": [1.10]}'
    )
    row = decode_all([LogMessage("s", 1, PUBLISHED_NS, twice)], "e", STREAM).row(0, named=True)
    assert row["original_data"] == '{"a":[1.1],"b":{"c":2}}'
    assert row["parse_error"] == "original_data holds a key twice"
    assert row["clamped"] == "original_data"


@settings(deadline=None, max_examples=300)
@given(wild.documents(wild.NUMBERS | wild.STRINGS, wild.KEYS))
@example(b'{"a@example.com": 1, "b@example.com": 2}')
def test_no_document_reaches_the_sinks_with_a_key_twice(document: bytes) -> None:
    """Whatever the document is, and even if masks make two keys equal."""
    message = body(original_data=0, attempts=0).replace(b": 0", b": " + document)
    check(message)
    letters = decode_all([LogMessage("s", 1, PUBLISHED_NS, message)], "e", STREAM)
    row = Redactor().redact_frame(letters).row(0, named=True)
    for text in map(row.get, JSON_COLUMNS):
        json.loads(text or "{}", object_pairs_hook=once)


def once(members: list[tuple[str, Any]]) -> None:
    assert len(dict(members)) == len(members)


def test_a_mixed_batch_is_read_alike_and_in_order() -> None:
    check(*(each for pair in zip(PLAIN * 4, ODD, strict=False) for each in pair))
    check(json.dumps(ours()).encode(), second(), second("no JSON"), PLAIN[0])


def test_no_message_at_all_is_an_empty_frame() -> None:
    check()


def test_a_subject_that_no_sink_takes_is_repaired() -> None:
    check(body(), subject="sahool.dlq.\0x")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NEAR = st.integers(-(10**8), 10**8).map(lambda us: PUBLISHED_AT + timedelta(microseconds=us))
TIMES = st.datetimes().map(str) | st.datetimes().map(lambda t: t.isoformat() + "+05:30")
TIMES |= NEAR.map(datetime.isoformat)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(sorted(OLD)), VALUES | TIMES, max_size=2), max_size=4),
    st.lists(st.binary(max_size=30), max_size=1),
)
def test_anything_is_read_alike(changes: list[dict[str, Any]], raw: list[bytes]) -> None:
    check(*(body(**change) for change in changes), *raw)
