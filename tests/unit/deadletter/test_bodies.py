"""Bodies in every form that a handler may read: the same ids, and the original bytes back."""

import base64
import codecs
import gzip
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.body import LARGEST_INFLATED, InflateError, text_of
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.event import event_ids
from sahool_dlq.deadletter.redaction import json_text
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.sanitize import MAX_DEPTH, clean_text, parse_json
from sahool_dlq.events import DLQEvent
from sahool_dlq.events.failure import parse_body
from sahool_dlq.redrive.edit.patch import patched
from sahool_dlq.redrive.origin import RefusedError
from support import wild
from support.letters import EPOCH, STREAM, message, ours, read

EVENT = {"event_id": "x1", "tenant_id": "acme", "note": "قمح", "ndvi": 0.5}
TEXT = json.dumps(EVENT, ensure_ascii=False)
BE = "utf-16-be"
FORMS = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "UTF-16 with a mark": TEXT.encode("utf-16"),
    "UTF-16, big-endian, with a mark": codecs.BOM_UTF16_BE + TEXT.encode(BE),
    "UTF-16-LE": TEXT.encode("utf-16-le"),
    "UTF-16-BE": TEXT.encode(BE),
    "UTF-32 with a mark": TEXT.encode("utf-32"),
    "UTF-32-LE": TEXT.encode("utf-32-le"),
    "UTF-32, big-endian, with a mark": codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
}
FORMS |= {f"{name}, gzip": gzip.compress(data, mtime=0) for name, data in FORMS.items()}
FORMS["gzip in parts"] = gzip.compress(TEXT.encode()[:20]) + gzip.compress(TEXT.encode()[20:])


def around(body: bytes, **changes: Any) -> dict[str, Any]:
    """A dead letter of our consumer with a body that is not strict JSON."""
    data = {"base64": base64.b64encode(body).decode()}
    nothing = {"event_id": "unknown", "tenant_id": None, "field_id": None, "original_headers": {}}
    return ours(payload_encoding="base64", original_data=data, **(nothing | changes))


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_a_body_in_every_form_is_read_by_services_and_jobs(body: bytes) -> None:
    assert parse_body(body)[1] == EVENT
    letter = read(around(body))
    assert json.loads(letter.original_data) == EVENT
    assert (letter.event_id, letter.tenant_id) == ("x1", "acme")
    assert (letter.payload_encoding, letter.parse_error, letter.clamped) == ("json", None, None)


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_an_edit_keeps_the_form(body: bytes) -> None:
    edited = patched(body, {"ndvi": 0.7, "نوع": "حبوب"})
    before, after = text_of(body), text_of(edited)
    assert after[1] == before[1]
    assert parse_json(edited) == EVENT | {"ndvi": 0.7, "نوع": "حبوب"}
    if not after[1].is_gzip:
        assert json.loads(edited) == parse_json(edited)


def ids_by_python(value: Any) -> dict[str, str]:
    """The ids in what `json.loads` reads, as text."""
    found = {}
    for name in ("event_id", "tenant_id", "field_id", "farmer_id", "source_service"):
        each = value.get(name) if isinstance(value, dict) else None
        if each is not None:
            found[name] = clean_text(each if isinstance(each, str) else json.dumps(each))
    return {name: text for name, text in found.items() if text or name != "event_id"}


_SCALARS = wild.STRINGS | st.sampled_from([b"7", b"1.5", b"NaN", b"-Infinity", b"null", b"true"])
_IDS = st.sampled_from([b'"event_id"', b'"tenant_id"', b'"field_id"', rb'"tenant\u005fid"'])
_OBJECTS = st.lists(st.tuples(_IDS, _SCALARS) | st.tuples(wild.KEYS, wild.VALUES), max_size=4).map(
    lambda pairs: b" {" + b", ".join(b": ".join(pair) for pair in pairs) + b"}\n"
)


@settings(max_examples=300, deadline=None)
@given(wild.encoded(_OBJECTS | wild.VALUES) | st.binary(max_size=30))
def test_whatever_python_reads_is_read_with_the_same_ids(body: bytes) -> None:
    try:
        value = json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
    except (ValueError, RecursionError, EOFError, OSError):
        parse_body(body)  # what Python does not read is no reason to fail
        return
    expected = ids_by_python(value)
    assert event_ids(parse_body(body)[1], {}) == expected
    letter = read(around(body))
    assert letter.payload_encoding == "json"
    assert letter.tenant_id == expected.get("tenant_id")
    assert letter.event_id == expected.get("event_id", "unknown")


@settings(max_examples=150, deadline=None)
@given(wild.encoded(_OBJECTS))
def test_an_edit_of_whatever_is_read_changes_what_it_names(body: bytes) -> None:
    try:
        before = parse_json(body)
    except ValueError:
        with pytest.raises(RefusedError):
            patched(body, {"added": 1})
        return
    edited = patched(body, {"added": 1, "tenant_id": None})
    after = {name: value for name, value in before.items() if name != "tenant_id"}
    assert parse_json(edited) == after | {"added": 1}
    assert text_of(edited)[1] == text_of(body)[1]


def test_an_edit_leaves_what_has_no_other_spelling() -> None:
    body = rb'{"a": NaN, "b": "\ud800", "\udc00": 1E5, "deep": ' + b"[" * 900 + b"]" * 900 + b"}"
    edited = patched(body, {"c": 1})
    assert edited == body.replace(b": ", b":").replace(b", ", b",")[:-1] + b',"c":1}'
    assert math.isnan(json.loads(edited)["a"])


def test_numbers_that_no_sink_holds_are_strings_there_and_said() -> None:
    letter = read(around(b'{"tenant_id": "t", "a": [NaN, Infinity, -Infinity], "b": "\\ud800"}'))
    kept = json.loads(letter.original_data)
    assert kept == {"tenant_id": "t", "a": ["NaN", "Infinity", "-Infinity"], "b": "\ufffd"}
    assert (letter.clamped, letter.parse_error) == ("original_data", None)


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 2, 900, 5_000, 100_000])
@pytest.mark.parametrize("is_first", [True, False])
def test_ids_beside_what_is_nested_deeply_are_found(depth: int, is_first: bool) -> None:
    members = [f'"deep": {"[" * depth}1{"]" * depth}', '"event_id": "x1"', '"tenant_id": "acme"']
    body = ("{" + ", ".join(members if is_first else members[::-1]) + "}").encode()
    assert event_ids(parse_body(body)[1], {}) == {"event_id": "x1", "tenant_id": "acme"}
    assert read(around(body)).tenant_id == "acme"
    assert patched(body, {"a": 1}).endswith(b'"a":1}')


def flattened(value: Any, depth: int) -> Any:
    """The value, with everything that is nested deeper than `depth` as text."""
    if not isinstance(value, list | dict):
        return value
    if depth == 0:
        return json.dumps(value)
    if isinstance(value, list):
        return [flattened(each, depth - 1) for each in value]
    return {key: flattened(each, depth - 1) for key, each in value.items()}


NESTED = st.recursive(
    st.none() | st.integers(0, 9) | st.text('[]{}"\\,: a', max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"a', max_size=3), inner),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(NESTED, st.integers(0, 4))
def test_only_what_is_nested_deeper_becomes_its_text(value: Any, depth: int) -> None:
    text = json.dumps(value)
    assert json.loads(json_text.shallow(text, depth)) == flattened(value, depth)
    if isinstance(value, dict):
        found = json_text.members(text)
        assert {key: json.loads(member.value) for key, member in found.items()} == value


@pytest.mark.parametrize("depth", [10, 300, 3_000])
def test_no_secret_hides_in_nesting(depth: int) -> None:
    inside = '{"password": "hunter2", "mail": "ali@example.com"}'
    letter = message(around(("[" * depth + inside + "]" * depth).encode("utf-16")))
    frame = decode_all([letter], EPOCH, STREAM)
    [kept] = Redactor().redact_frame(frame)["original_data"]
    assert "hunter2" not in kept
    assert "ali@" not in kept


def test_a_bomb_is_not_read_and_says_why() -> None:
    largest = gzip.compress(b'{"tenant_id": "acme"}' + b" " * (LARGEST_INFLATED - 21))
    bomb = gzip.compress(b'{"tenant_id": "acme"}' + b" " * (LARGEST_INFLATED - 20))
    assert parse_body(largest)[1] == {"tenant_id": "acme"}
    assert parse_body(bomb) == (False, None)
    letter = read(around(bomb))
    assert (letter.tenant_id, letter.payload_encoding) == (None, "base64")
    assert letter.body_error == "it inflates to more than 8,388,608 bytes"
    assert letter.parse_error is None
    with pytest.raises(RefusedError):
        patched(bomb, {"a": 1})


@pytest.mark.parametrize("cut", [1, 5, 9, 20])
def test_broken_gzip_says_so(cut: int) -> None:
    body = gzip.compress(TEXT.encode())[:-cut]
    with pytest.raises(InflateError, match="broken"):
        text_of(body)
    letter = read(around(body))
    assert "its gzip is broken" in (letter.body_error or "")


def test_what_inflates_beyond_measure_is_kept_by_its_size_alone() -> None:
    body = gzip.compress(json.dumps({"tenant_id": "acme", "a": [0] * 300_000}).encode())
    letter = read(around(body))
    assert letter.tenant_id == "acme"
    assert json.loads(letter.original_data) == {"cut": "600026 characters"}
    assert (letter.clamped, letter.parse_error) == ("original_data", None)


@pytest.mark.parametrize("body", [b"", b"\x08\x96\x01", b"hello", b"\x1f\x8b", b"\xff\xfe{"])
def test_what_is_no_json_stays_as_it_is(body: bytes) -> None:
    letter = read(around(body))
    assert letter.payload_encoding == "base64"
    assert base64.b64decode(json.loads(letter.original_data)["base64"]) == body
    assert (letter.event_id, letter.parse_error, letter.clamped) == ("unknown", None, None)


def test_what_the_dead_letter_says_itself_stands() -> None:
    letter = read(around(TEXT.encode("utf-16"), event_id="mine", tenant_id="theirs"))
    assert (letter.event_id, letter.tenant_id) == ("mine", "theirs")


@pytest.mark.parametrize("charset", ["utf-8-sig", "utf-16", "utf-32-be"])
def test_a_dead_letter_itself_may_come_in_another_encoding(charset: str) -> None:
    letter = read(json.dumps(ours()).encode(charset))
    assert (letter.parse_error, letter.tenant_id) == (None, "t1")


@pytest.mark.parametrize("charset", ["utf-8", "utf-16"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_no_secret_hides_in_an_encoding(charset: str, compress: Any) -> None:
    text = json.dumps({"password": "hunter2", "mail": "ali@example.com", "deep": [[["x"]]]})
    letter = message(around(compress(text.encode(charset))))
    frame = decode_all([letter], EPOCH, STREAM)
    [kept] = Redactor().redact_frame(frame)["original_data"]
    assert json.loads(kept) == {
        "password": "[redacted:secret]",
        "mail": "[redacted:email]",
        "deep": [[["x"]]],
    }


# An event's id


@pytest.mark.parametrize(
    ("body", "headers", "event_id"),
    [
        ({"event_id": "e", "specversion": "1.0", "id": "c"}, {"ce-id": "h"}, "e"),
        ({"specversion": "1.0", "id": "c"}, {"ce-id": "h", "Nats-Msg-Id": "m"}, "c"),
        ({"specversion": "1.0", "id": 7}, {}, "7"),
        ({"id": "c"}, {"ce-id": "h", "Nats-Msg-Id": "m"}, "h"),
        ({"id": "c"}, {"CE-ID": "h"}, "h"),
        (None, {"Ce-Id": "h"}, "h"),
        ({"id": "c"}, {"nats-msg-id": "m"}, "m"),
        ({"event_id": "", "specversion": "1.0", "id": ""}, {"ce-id": "", "Nats-Msg-Id": "m"}, "m"),
        ({"id": "c"}, {}, None),
        ({"specversion": "1.0"}, {}, None),
    ],
)
def test_the_id_of_an_event(body: Any, headers: dict[str, str], event_id: str | None) -> None:
    assert event_ids(body, headers).get("event_id") == event_id


def test_a_cloud_event_says_whose_it_is_in_its_data() -> None:
    event = {"specversion": "1.0", "id": "c", "data": {"tenant_id": "acme", "event_id": "no"}}
    assert event_ids(event, {}) == {"event_id": "c", "tenant_id": "acme"}
    assert event_ids(event | {"tenant_id": "own"}, {})["tenant_id"] == "own"
    assert event_ids({"data": {"tenant_id": "acme"}}, {}) == {}


def test_a_monitor_reads_the_same() -> None:
    event = DLQEvent.read(message(around(TEXT.encode("utf-16"))), STREAM)
    assert (event.original_data, event.payload_encoding) == (EVENT, "json")
    assert (event.event_id, event.tenant_id) == ("x1", "acme")
