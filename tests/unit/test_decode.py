"""`decode`: every envelope read fully, any other bytes as one storable row that says why."""

import json
import math
import string
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import (
    METADATA,
    OLD,
    ORIGIN,
    PUBLISHED_AT,
    PUBLISHED_NS,
    SEQUENCE,
    STREAM,
    message,
    ours,
    read,
    second,
)

from pipelines.deadletter import ids, reading
from pipelines.deadletter.decode import Canonical, decode
from pipelines.deadletter.message import LogMessage
from pipelines.deadletter.record import JSON_COLUMNS, LONG_TEXT_LIMIT, TEXT_LIMITS, DeadLetter
from pipelines.events import DLQEvent
from pipelines.events.failure import parse_body

OWN_ID = ids.dead_letter_id(STREAM, SEQUENCE, PUBLISHED_NS)
INT64 = range(-(2**63), 2**63)


def assert_storable(letter: DeadLetter) -> None:
    """Every value fits Parquet and PostgreSQL as it is."""
    for name, value in msgspec.structs.asdict(letter).items():
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
    assert set(json.loads(letter.original_headers).values()) <= {
        value for value in json.loads(letter.original_headers).values() if isinstance(value, str)
    }


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


# The envelopes


def test_an_older_services_dead_letter_is_read_whole() -> None:
    letter = read(OLD)
    texts = {key: value for key, value in OLD.items() if isinstance(value, str) and key in TEXTS}
    assert {key: getattr(letter, key) for key in texts} == texts
    assert (letter.farmer_id, letter.stack_trace) == (None, None)
    assert (letter.retry_count, letter.max_retries) == (3, 3)
    assert json.loads(letter.original_data) == OLD["original_data"]
    assert json.loads(letter.original_headers) == OLD["original_headers"]
    assert letter.service == "satellite"
    assert letter.consumer_service is None
    assert (letter.envelope, letter.payload_encoding) == ("canonical", "json")
    assert (letter.parse_error, letter.clamped) == (None, None)


TEXTS = {
    *("event_id", "original_subject", "event_type", "source_service", "tenant_id", "field_id"),
    *("error_message", "error_type", "dlq_reason"),
}


def test_the_place_in_the_log_is_the_servers() -> None:
    letter = read(OLD)
    assert letter.dlq_sequence == SEQUENCE
    assert letter.published_at == PUBLISHED_AT
    assert letter.subject == "sahool.dlq.ndvi_computed"
    assert letter.size_bytes == len(json.dumps(OLD).encode())


def test_times_with_z_offset_or_neither_are_utc() -> None:
    letter = read(OLD)
    assert letter.first_attempt_at == datetime(2026, 3, 1, 9, 59, tzinfo=UTC)
    assert letter.last_attempt_at == datetime(2026, 3, 1, 9, 59, 30, tzinfo=UTC)
    assert letter.dlq_timestamp == datetime(2026, 3, 1, 9, 59, 40, 500_000, tzinfo=UTC)


def test_our_dead_letter_says_which_consumer_failed() -> None:
    letter = read(ours())
    assert letter.failure_id == ids.failure_id(*ORIGIN)
    assert (letter.original_stream, letter.original_sequence) == ORIGIN[:2]
    assert letter.original_published_at == datetime(2026, 3, 1, 9, 58, 20, tzinfo=UTC)
    assert (letter.consumer_name, letter.handler) == ("ndvi", "handle")
    assert (letter.service, letter.source_service) == ("ndvi-service", "satellite")
    assert json.loads(letter.attempts or "") == ours()["attempts"]
    assert (letter.parse_error, letter.clamped, letter.root_failure_id) == (None, None, None)


@pytest.mark.parametrize("body", [OLD, ours(), ours(attempts=None), ours(attempts=[])])
def test_a_canonical_dead_letter_takes_the_fast_path(
    body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "parse_json", lambda *_: pytest.fail("the slow path"))
    assert read(body).parse_error is None


@pytest.mark.parametrize(
    "data", ['{"b": 1.10, "a": [1e5, "\\u0645\\ud83d\\ude00"]}', "1.50", '"x"', "null", "[ ]"]
)
def test_the_original_data_keep_their_spelling(data: str) -> None:
    body = json.dumps(ours()).replace(json.dumps(OLD["original_data"]), data)
    letter = read(body.encode())
    assert letter.original_data == data
    assert letter.parse_error is None


def test_the_typed_and_the_tolerant_reader_look_at_the_same_keys() -> None:
    fields = msgspec.structs.fields(Canonical)
    assert {field.name for field in fields} == set(reading.CANONICAL_KEYS)
    assert {field.name for field in fields if field.required} == set(reading.REQUIRED_KEYS)


def test_unknown_keys_are_no_problem() -> None:
    assert read(ours(added_next_year={"a": [1]})).parse_error is None


@pytest.mark.parametrize("encoding", ["base64", "object"])
def test_the_payload_encoding_is_kept(encoding: str) -> None:
    letter = read(ours(payload_encoding=encoding, original_data={encoding: "eA=="}))
    assert letter.payload_encoding == encoding
    assert letter.parse_error is None


def test_the_second_envelope_is_read_whole() -> None:
    letter = read(second(), "sahool.dlq.field.created")
    assert letter.envelope == "metadata"
    assert letter.parse_error is None
    assert letter.event_id == "e2"
    assert letter.event_type == "field.created"
    assert letter.original_subject == "sahool.field.created"
    assert (letter.error_type, letter.error_message) == ("KeyError", "no such field")
    assert letter.stack_trace == "Traceback …"
    assert letter.retry_count == 2
    assert (letter.service, letter.consumer_version) == ("billing", "1.2")
    assert letter.handler == "on_field"
    assert letter.first_attempt_at == datetime(2026, 3, 1, 9, 58, tzinfo=UTC)
    assert letter.last_attempt_at == datetime(2026, 3, 1, 9, 59, 40, tzinfo=UTC)
    assert json.loads(letter.original_data) == {"field_id": "f9", "tenant_id": "t9"}
    assert (letter.tenant_id, letter.field_id, letter.farmer_id) == ("t9", "f9", None)
    assert json.loads(letter.attempts or "") == [
        {"at": "2026-03-01T09:58:00", "error_message": "first"},
        {"at": "2026-03-01T09:59:00", "error_message": "second"},
    ]
    assert letter.failure_id == OWN_ID


@pytest.mark.parametrize(
    ("original", "says"),
    [
        ("plain text", "original_message is not JSON"),
        ({"a": 1}, "original_message is an object"),
        ('{"a": NaN}', "original_message holds NaN"),
        ("[" * 5000, "original_message is not JSON"),
        (None, "original_message is null"),
    ],
)
def test_a_second_envelope_around_something_odd_says_so(original: Any, says: str) -> None:
    letter = read(second(original))
    assert letter.envelope == "metadata"
    assert letter.error_type == "KeyError"
    assert says in (letter.parse_error or "")
    assert_storable(letter)


@pytest.mark.parametrize(
    "changes",
    [
        {"retry_timestamps": [{"a": 1}], "retry_errors": [float("nan")]},
        {"failure_timestamp": 17},
        {"retry_count": "many"},
        {"failure_reason": ["a", {"b": None}]},
        {"original_event_id": "\ud800"},
    ],
)
def test_a_second_envelope_with_odd_metadata_says_so(changes: dict[str, Any]) -> None:
    letter = read(second(**changes))
    assert letter.envelope == "metadata"
    assert letter.parse_error
    assert_storable(letter)


def test_a_second_envelope_without_a_reason_says_so() -> None:
    metadata = {key: value for key, value in METADATA.items() if key != "failure_reason"}
    body = json.dumps({"metadata": metadata, "original_message": "{}"}).encode()
    assert read(body).parse_error == "missing failure_reason"


# Poison: (name, bytes, what parse_error says)

CANONICAL = json.dumps(ours())


def spliced(key: str, raw: str) -> bytes:
    """Our dead letter with the value of `key` as this very text."""
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
    ("not UTF-8", b"\xff\xfe\x00{", "not JSON: 'utf-8' codec"),
    ("UTF-16", CANONICAL.encode("utf-16"), "not JSON"),
    ("a byte order mark", b"\xef\xbb\xbf" + CANONICAL.encode(), "not JSON: Unexpected UTF-8 BOM"),
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
    ("most keys missing", b'{"event_id": "e1"}', "missing original_subject, event_type"),
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
    ("deep nesting", spliced("original_data", "[" * 500 + "]" * 500), "original_data can not be"),
    ("very deep nesting", b"[" * 100_000 + b"]" * 100_000, "not JSON: nested deeper than 200"),
    ("deep objects", b'{"event_id":' * 9_000 + b"1" + b"}" * 9_000, "nested deeper than 200"),
    ("deep headers", spliced("original_headers", "[" * 900 + "]" * 900), "nested deeper than 200"),
    ("not UTF-8 in the payload", spliced("original_data", '"?"').replace(b'"?"', b'"\xff"'), "utf"),
    ("year 0", ours(dlq_timestamp="0000-01-01T00:00:00Z"), "between 1970 and 2200: 0000-01-01"),
    ("year 1", ours(dlq_timestamp="0001-01-01T00:00:00+14:00"), "between 1970 and 2200: 0001"),
    (
        "year 9999",
        ours(first_attempt_at="9999-12-31T23:59:59-14:00"),
        "first_attempt_at is no time",
    ),
    ("a time before 1970", ours(last_attempt_at="1969-12-31"), "last_attempt_at is no time"),
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


def test_a_payload_that_can_not_be_kept_leaves_the_identity_alone() -> None:
    letter = read(spliced("original_data", "[" * 500 + "]" * 500))
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
def test_what_no_sink_holds_is_mended_and_nothing_else(raw: str, kept: Any) -> None:
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


@pytest.mark.parametrize("name", sorted(TEXT_LIMITS))
def test_a_text_fits_its_column_or_is_flagged(name: str) -> None:
    limit = TEXT_LIMITS[name]
    fits = read(ours(**{name: "é" * limit}))
    assert (fits.clamped, fits.parse_error) == (None, None)
    longer = read(ours(**{name: "é" * (limit + 1)}))
    assert longer.clamped == name
    assert getattr(longer, name) == "é" * (limit + 1)  # the lake keeps it all
    assert longer.parse_error == f"{name} has {limit + 1} characters, not {limit}"


def test_mended_columns_are_named() -> None:
    letter = read(ours(error_message="\0", dlq_timestamp="?", retry_count=-5))
    assert letter.clamped == "error_message,retry_count,dlq_timestamp"
    assert (letter.error_message, letter.retry_count) == ("\ufffd", 0)
    assert letter.dlq_timestamp == PUBLISHED_AT


@pytest.mark.parametrize("depth", [150, 200, 201, 202])
def test_nesting_is_kept_to_the_depth_that_both_sides_know(depth: int) -> None:
    raw = "[" * depth + "]" * depth
    letter = read(spliced("original_data", raw))
    is_json, _ = parse_body(raw.encode())
    assert is_json == (depth < 202)
    assert (letter.original_data == raw) == is_json


def test_many_headers_are_kept() -> None:
    headers = {f"X-{number}": "v" for number in range(20_000)}
    letter = read(ours(original_headers=headers))
    assert json.loads(letter.original_headers) == headers
    assert letter.parse_error is None


# Identity


def test_a_failure_id_is_trusted_where_recomputing_gives_it() -> None:
    assert read(ours()).failure_id == ids.failure_id(*ORIGIN)


@pytest.mark.parametrize(
    "forged",
    [
        {"original_sequence": 8},
        {"original_stream": "OTHER"},
        {"original_timestamp_ns": ORIGIN[2] + 1},
        {"consumer_name": "other"},
        {"consumer_name": None},
        {"original_stream": None},
        {"original_sequence": "7"},
        {"failure_id": ids.failure_id("SAHOOL_EVENTS", 8, ORIGIN[2], "ndvi")},
        {"failure_id": ids.failure_id(*ORIGIN).upper()},
        {"failure_id": ""},
        {"failure_id": None},
        {"failure_id": {"a": 1}},
    ],
)
def test_a_failure_id_that_recomputing_does_not_give_is_not_trusted(forged: dict[str, Any]) -> None:
    letter = read(ours(**forged))
    if forged.get("original_sequence") == "7":  # says the same, in the wrong type
        assert letter.failure_id == ids.failure_id(*ORIGIN)
    else:
        assert letter.failure_id == OWN_ID


def test_forged_letters_collide_neither_with_the_real_one_nor_with_each_other() -> None:
    real = decode(message(ours(), sequence=1), "e", STREAM)
    forged = [
        decode(message(ours(original_sequence=99, event_id="forged"), sequence=n), "e", STREAM)
        for n in (2, 3)
    ]
    assert len({real.failure_id, *(letter.failure_id for letter in forged)}) == 3


def test_a_repeat_has_the_same_id_and_an_older_services_letter_never_one() -> None:
    ours_twice = {decode(message(ours(), sequence=n), "e", STREAM).failure_id for n in (1, 2)}
    old_twice = {decode(message(OLD, sequence=n), "e", STREAM).failure_id for n in (1, 2)}
    assert (len(ours_twice), len(old_twice)) == (1, 2)


def test_the_id_of_a_letter_without_proof_is_told_apart_by_the_servers_time() -> None:
    later = LogMessage("sahool.dlq.x", SEQUENCE, PUBLISHED_NS + 1, b"{}")
    assert decode(later, "e", STREAM).failure_id != read(b"{}").failure_id


# Redrives that failed again

ROOT = ids.failure_id("SAHOOL_EVENTS", 1, 1, "ndvi")


def redriven(attempt: Any = 2, **changes: Any) -> dict[str, Any]:
    keys = {"redrive_of": ROOT, "redrive_id": ids.redrive_id(ROOT, 2), "redrive_attempt": attempt}
    return ours(**(keys | changes))


def test_a_redrive_that_failed_again_names_its_root() -> None:
    letter = read(redriven())
    assert letter.root_failure_id == ROOT
    assert (letter.redrive_id, letter.redrive_attempt) == (ids.redrive_id(ROOT, 2), 2)
    assert letter.failure_id == ids.failure_id(*ORIGIN)
    assert letter.parse_error is None


def test_an_older_service_keeps_the_redrive_keys_in_its_headers() -> None:
    headers = {
        "Dlq-Redrive-Of": ROOT,
        "Dlq-Redrive-Id": ids.redrive_id(ROOT, 2),
        "Dlq-Redrive-Attempt": "2",
    }
    letter = read(OLD | {"original_headers": headers})
    assert (letter.root_failure_id, letter.redrive_attempt) == (ROOT, 2)
    assert letter.parse_error is None


@pytest.mark.parametrize(
    "changes",
    [
        {"redrive_of": "not a uuid"},
        {"redrive_of": ROOT.upper()},
        {"redrive_id": ids.redrive_id(ROOT, 3)},
        {"redrive_id": None},
        {"redrive_attempt": None},
        {"redrive_attempt": 1},
        {"redrive_attempt": 0, "redrive_id": ids.redrive_id(ROOT, 0)},
        {"redrive_attempt": -1, "redrive_id": ids.redrive_id(ROOT, -1)},
        {"redrive_attempt": 2**31, "redrive_id": ids.redrive_id(ROOT, 2**31)},
        {"redrive_attempt": "²", "redrive_id": ids.redrive_id(ROOT, 2)},
    ],
)
def test_redrive_keys_that_contradict_each_other_are_not_believed(changes: dict[str, Any]) -> None:
    letter = read(redriven(**changes))
    assert letter.root_failure_id is None
    assert (letter.redrive_id, letter.redrive_attempt) == (None, None)
    assert "its redrive keys contradict each other" in (letter.parse_error or "")


def test_a_failure_is_not_its_own_root() -> None:
    own = ids.failure_id(*ORIGIN)
    letter = read(redriven(redrive_of=own, redrive_id=ids.redrive_id(own, 2)))
    assert letter.failure_id == own
    assert letter.root_failure_id is None


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
