"""`decode`: any bytes become one row that both sinks can store, with what is wrong."""

import gzip
import json
import math
import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.record import TEXT_LIMITS, DeadLetter
from sahool_dlq.events import DLQEvent
from sahool_dlq.events.failure import parse_body
from support.letters import (
    METADATA,
    OLD,
    ORIGIN,
    OWN_ID,
    PUBLISHED_AT,
    PUBLISHED_NS,
    SEQUENCE,
    STREAM,
    assert_storable,
    message,
    ours,
    read,
    second,
)

# Poison: (name, bytes, what parse_error says)

CANONICAL = json.dumps(ours())


def spliced(key: str, raw: str) -> bytes:
    """Our dead letter with this exact text as the value of `key`."""
    found = json.dumps(key) + ": " + json.dumps(ours()[key])
    assert found in CANONICAL
    return CANONICAL.replace(found, json.dumps(key) + ": " + raw).encode()


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in ours().items() if key not in keys}


POISON: list[tuple[str, bytes | dict[str, Any], str]] = [
    ("an empty body", b"", "not JSON"),
    ("white space", b" \n", "not JSON"),
    ("plain text", b"hello", "not JSON"),
    ("truncated JSON", CANONICAL[:100].encode(), "not JSON"),
    ("two documents", (CANONICAL * 2).encode(), "not JSON"),
    ("not UTF-8", b"\xff{\xfe", "not JSON: 'utf-8' codec"),
    ("not UTF-16", b"\xff\xfe\x00{\x00", "not JSON: 'utf-16-le' codec"),
    ("UTF-16 without an end", CANONICAL.encode("utf-16")[:-2], "not JSON"),
    ("broken gzip", gzip.compress(CANONICAL.encode())[:-9], "not JSON: its gzip is broken"),
    ("NUL bytes", b"\0" * 50, "not JSON"),
    ("a raw control character", CANONICAL.replace("boom", "bo\0om").encode(), "not JSON"),
    ("not UTF-8 in a text", CANONICAL.encode().replace(b"boom", b"b\xe9"), "not JSON"),
    ("an array", b"[1, 2]", "an array, not a JSON object"),
    ("an empty array", b"[]", "an array, not a JSON object"),
    ("a string", b'"x"', "a string, not a JSON object"),
    ("a number", b"42", "a bare value, not a JSON object"),
    ("a boolean", b"true", "a bare value, not a JSON object"),
    ("null", b"null", "null, not a JSON object"),
    ("a bare NaN", b"NaN", "it holds NaN"),
    ("an empty object", b"{}", "a JSON object with none of its keys"),
    ("another object", b'{"hello": 1}', "a JSON object with none of its keys"),
    ("metadata of another type", b'{"metadata": 1, "original_message": 2}', "none of its keys"),
    ("one missing key", without("error_type"), "missing error_type"),
    ("most keys missing", b'{"event_id": "e1"}', "missing event_type, original_subject"),
    ("no original data", without("original_data"), "missing original_data"),
    ("a number for a text", ours(event_id=17), "event_id is a number"),
    ("null for a text", ours(error_message=None), "error_message is null"),
    ("an object for a text", ours(error_message={"a": [1]}), "error_message is an object"),
    ("a text for a number", ours(retry_count="3"), "retry_count is a string"),
    ("words for a number", ours(retry_count="three"), "retry_count is a string"),
    ("a float for a number", ours(retry_count=3.0), "retry_count is a number"),
    ("a boolean for a number", ours(max_retries=True), "max_retries is a boolean"),
    ("a number for a time", ours(dlq_timestamp=1772359200), "dlq_timestamp is a number"),
    ("an array for headers", ours(original_headers=[]), "original_headers is an array"),
    ("null headers", ours(original_headers=None), "original_headers is null"),
    ("headers of numbers", ours(original_headers={"a": 1}), "original_headers.a is a number"),
    ("a huge count", ours(retry_count=2**31), "retry_count is out of range"),
    ("a negative count", ours(max_retries=-1), "max_retries is out of range"),
    ("a huge sequence", ours(original_sequence=2**64), "original_sequence is out of range"),
    ("a negative sequence", ours(original_sequence=-1), "original_sequence is out of range"),
    ("a huge time", ours(original_timestamp_ns=10**30), "original_timestamp_ns is out of range"),
    ("thousands of digits for a time", spliced("original_timestamp_ns", "9" * 9000), "integer"),
    ("NUL in a text", ours(error_message="a\0b"), "error_message holds NUL"),
    ("NUL in a time", ours(dlq_timestamp="2026\0"), "dlq_timestamp"),
    ("NUL in a header", ours(original_headers={"a\0": "b\0"}), "original_headers holds NUL"),
    ("NUL in the payload", ours(original_data={"a\0": "\0"}), "original_data holds NUL"),
    ("NUL in an attempt", ours(attempts=["\0"]), "attempts holds NUL"),
    ("a lone surrogate", ours(error_message="\ud800"), "lone surrogate"),
    ("a lone surrogate in a name", ours(original_data={"\udfff": 1}), "lone surrogate"),
    ("a lone surrogate in a header", ours(original_headers={"a": "\udc00"}), "lone surrogate"),
    ("NaN", ours(original_data={"ndvi": math.nan}), "it holds NaN"),
    ("infinities", ours(original_data=[math.inf, -math.inf]), "it holds -Infinity, Infinity"),
    ("thousands of digits", spliced("original_data", "9" * 9000), "original_data holds an integer"),
    ("thousands of digits in a count", spliced("retry_count", "9" * 9000), "retry_count is a str"),
    ("65 bits", spliced("original_data", str(2**64)), "original_data holds an integer beyond"),
    ("1e400", spliced("original_data", "[1e400, -1e999]"), "original_data holds a number beyond"),
    ("a long fraction", spliced("original_data", "9" * 5000 + ".5"), "holds a number beyond"),
    (
        "deep nesting",
        spliced("original_data", "[" * 500 + "]" * 500),
        "original_data holds nesting",
    ),
    ("very deep nesting", b"[" * 100_000 + b"]" * 100_000, "it holds nesting deeper than 200"),
    ("deep nesting without an end", b"[" * 100_000, "not JSON: nested deeper than 200, and not"),
    ("deep objects", b'{"event_id":' * 9_000 + b"1" + b"}" * 9_000, "nesting deeper than 200"),
    ("deep headers", spliced("original_headers", "[" * 900 + "]" * 900), "nesting deeper than 200"),
    ("not UTF-8 in the payload", spliced("original_data", '"?"').replace(b'"?"', b'"\xff"'), "utf"),
    ("year 0", ours(dlq_timestamp="0000-01-01T00:00:00Z"), "between 1970 and 2200: 0000-01-01"),
    ("year 1", ours(dlq_timestamp="0001-01-01T00:00:00+14:00"), "between 1970 and 2200: 0001"),
    (
        "year 9999",
        ours(first_attempt_at="9999-12-31T23:59:59-14:00"),
        "first_attempt_at is not a time",
    ),
    ("a time before 1970", ours(last_attempt_at="1969-12-31"), "last_attempt_at is not a time"),
    ("no time at all", ours(dlq_timestamp="yesterday"), "1970 and 2200: yesterday"),
    ("300 KB in a short field", ours(event_id="x" * 300_000), "event_id has 300000 characters"),
    ("300 KB in an odd letter", {"error_type": "é" * 300_000}, "error_type has 300000 characters"),
    ("a message beyond the limit", ours(error_message="x" * 1_100_000), "error_message has"),
    ("data beyond the limit", ours(original_data="x" * 1_100_000), "original_data has 1100002"),
    ("headers beyond the limit", ours(original_headers={"x": "y" * 1_100_000}), "original_headers"),
    ("an unknown encoding", ours(payload_encoding="gzip"), "payload_encoding is unknown"),
    ("redrive keys that are made up", ours(redrive_of="a", redrive_id="b"), "redrive keys"),
]


@pytest.mark.parametrize(
    ("body", "says"), [case[1:] for case in POISON], ids=[c[0] for c in POISON]
)
def test_poison_is_one_storable_row_that_says_why(body: bytes | dict[str, Any], says: str) -> None:
    letter = read(body)
    assert says in (letter.parse_error or "")
    assert (letter.dlq_sequence, letter.published_at) == (SEQUENCE, PUBLISHED_AT)
    assert_storable(letter)


@pytest.mark.parametrize("body", [case[1] for case in POISON], ids=[case[0] for case in POISON])
def test_poison_in_one_place_leaves_the_rest_readable(body: bytes | dict[str, Any]) -> None:
    letter = read(body)
    if letter.envelope != "canonical" or body == {"error_type": "é" * 300_000}:
        return
    expected = {"event_type": "ndvi_computed", "original_subject": OLD["original_subject"]}
    if b"dlq_reason" in message(body).data:
        assert {name: getattr(letter, name) for name in expected} == expected


def test_bytes_that_are_no_json_are_kept_as_text() -> None:
    letter = read(b"caf\xe9 \0")
    assert json.loads(letter.original_data) == {"raw_data": "caf\ufffd \ufffd"}
    assert (letter.envelope, letter.payload_encoding) == ("other", "text")
    assert letter.event_type == "ndvi_computed"


def test_a_megabyte_of_control_characters_is_kept_in_part() -> None:
    letter = read(b"\x01" * 1_000_000)
    assert json.loads(letter.original_data)["raw_data"].startswith("\x01\x01")
    assert_storable(letter)


def test_another_json_value_is_kept_as_it_is() -> None:
    letter = read(b'{"hello": [1, 2]}', "sahool.dlq.field.created")
    assert json.loads(letter.original_data) == {"hello": [1, 2]}
    assert (letter.envelope, letter.event_type) == ("other", "created")
    assert letter.first_attempt_at == letter.dlq_timestamp == PUBLISHED_AT


def test_a_payload_that_is_nested_deeply_is_kept_in_part_as_text() -> None:
    raw = '{"tenant_id": "t", "deep": ' + "[" * 500 + "]" * 500 + "}"
    letter = read(spliced("original_data", raw))
    kept: Any = json.loads(letter.original_data)
    assert kept["tenant_id"] == "t"
    kept = kept["deep"]
    while isinstance(kept, list):
        [kept] = kept
    assert kept == "[" * 301 + "]" * 301
    assert letter.failure_id == ids.failure_id(*ORIGIN)
    assert letter.error_message == "boom"


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), str(2**63)),
        ("1e400", "1e400"),
        ("1e300", 1e300),
        ('"a\\u0000\\\\u0000"', "a\ufffd\\u0000"),
        ('{"\\u0000": 1}', {"\ufffd": 1}),
    ],
)
def test_what_no_sink_holds_is_repaired_and_nothing_else(raw: str, kept: Any) -> None:
    letter = read(spliced("original_data", raw))
    assert json.loads(letter.original_data) == kept
    is_mended = json.loads(raw) != kept
    assert (letter.parse_error is not None) == is_mended


def test_usable_values_of_a_broken_letter_are_used() -> None:
    letter = read(ours(retry_count="7", error_message=["a", 1], event_id=None, handler=5))
    assert letter.retry_count == 7
    assert letter.error_message == '["a",1]'
    assert letter.event_id == "unknown"
    assert letter.handler == "5"
    assert letter.failure_id == ids.failure_id(*ORIGIN)


@pytest.mark.parametrize("name", sorted(TEXT_LIMITS.keys() - {"imported_from"}))  # of imports only
def test_a_text_fits_its_column_or_is_flagged(name: str) -> None:
    limit = TEXT_LIMITS[name]
    fits = read(ours(**{name: "é" * limit}))
    assert (fits.clamped, fits.parse_error) == (None, None)
    longer = read(ours(**{name: "é" * (limit + 1)}))
    assert longer.clamped == name
    assert getattr(longer, name) == "é" * (limit + 1)  # the lake keeps it all
    assert longer.parse_error == f"{name} has {limit + 1} characters, not {limit}"


def test_repaired_columns_are_named() -> None:
    letter = read(ours(error_message="\0", dlq_timestamp="?", retry_count=-5))
    assert letter.clamped == "error_message,retry_count,dlq_timestamp"
    assert (letter.error_message, letter.retry_count) == ("\ufffd", 0)
    assert letter.dlq_timestamp == PUBLISHED_AT


@pytest.mark.parametrize("depth", [150, 200, 201, 202])
def test_nesting_is_kept_to_the_depth_that_both_sides_know(depth: int) -> None:
    raw = "[" * depth + "]" * depth
    letter = read(spliced("original_data", raw))
    is_json, value = parse_body(raw.encode())
    assert is_json == (depth < 202)
    assert value is not None
    assert (letter.original_data == raw) == is_json


def test_many_headers_are_kept() -> None:
    headers = {f"X-{number}": "v" for number in range(20_000)}
    letter = read(ours(original_headers=headers))
    assert json.loads(letter.original_headers) == headers
    assert letter.parse_error is None


# Any bytes at all

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\0", "\ud800", "2026-03-01T10:00:00Z", "0000-00-00", "9" * 400])
    | st.integers(10**18, 10**40),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
SUBJECTS = st.sampled_from(["sahool.dlq.x", "sahool.dlq.field.created", "sahool.dlq.é\ufffd"])


def assert_a_monitor_sees_the_same(event: DLQEvent, letter: DeadLetter) -> None:
    names = ("failure_id", "root_failure_id", "redrive_attempt", "event_id", "retry_count")
    names += ("first_attempt_at", "dlq_timestamp", "published_at", "subject")
    assert [getattr(event, n) for n in names] == [getattr(letter, n) for n in names]


def assert_one_row(data: bytes, subject: str) -> None:
    message = LogMessage(subject, SEQUENCE, PUBLISHED_NS, data)
    letter = decode(message, "e", STREAM)
    assert_storable(letter)
    event = DLQEvent.read(message, STREAM)
    if not (event.parse_error or "").startswith("not JSON"):
        assert_a_monitor_sees_the_same(event, letter)
    assert letter.envelope in ("canonical", "metadata", "other")
    assert letter.parse_error or letter.envelope != "other"


@given(st.binary(max_size=200), SUBJECTS)
@settings(max_examples=200, deadline=None)
def test_any_bytes_become_one_row(data: bytes, subject: str) -> None:
    assert_one_row(data, subject)


@given(JSON_VALUES, SUBJECTS)
@settings(max_examples=150, deadline=None)
def test_any_json_becomes_one_row(value: Any, subject: str) -> None:
    assert_one_row(json.dumps(value).encode(errors="replace"), subject)


@given(
    st.dictionaries(
        st.sampled_from([*ours(), "redrive_of", "redrive_id"]), JSON_VALUES, max_size=4
    ),
    st.sets(st.sampled_from(sorted(ours())), max_size=3),
    SUBJECTS,
)
@settings(max_examples=300, deadline=None)
def test_a_mutated_canonical_letter_becomes_one_row(
    changes: dict[str, Any], missing: set[str], subject: str
) -> None:
    body = {key: value for key, value in ours(**changes).items() if key not in missing}
    assert_one_row(json.dumps(body).encode(), subject)


@given(st.dictionaries(st.sampled_from(sorted(METADATA)), JSON_VALUES, max_size=4), JSON_VALUES)
@settings(max_examples=150, deadline=None)
def test_a_mutated_second_envelope_becomes_one_row(changes: dict[str, Any], original: Any) -> None:
    assert_one_row(second(original, **changes), "sahool.dlq.field.created")


@given(
    st.sampled_from([json.dumps(OLD).encode(), CANONICAL.encode(), second()]),
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 3), st.binary(max_size=3)), max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_a_letter_with_bytes_changed_becomes_one_row(
    data: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    for start, length, new in edits:
        data = data[:start] + new + data[start + length :]
    assert_one_row(data, "sahool.dlq.x")


@given(st.text(string.hexdigits + "-|", max_size=40), st.integers(), st.integers(), st.text())
@settings(max_examples=100, deadline=None)
def test_no_claim_gets_an_id_that_it_does_not_prove(
    stream: str, sequence: int, timestamp_ns: int, consumer: str
) -> None:
    claims = {
        "original_stream": stream,
        "original_sequence": sequence,
        "original_timestamp_ns": timestamp_ns,
        "consumer_name": consumer,
    }
    if tuple(claims.values()) != ORIGIN:
        assert read(ours(**claims)).failure_id == OWN_ID
