"""MessagePack, CBOR, zstd and CloudEvents: read as JSON, and written again after an edit."""

import base64
import gzip
import json
import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import cbor2
import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.body import LARGEST_INFLATED
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.decoding.media_types import format_of
from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.sanitize import parse_json
from sahool_dlq.redrive.edit.patch import patched
from support.encoded import around, decoders
from support.letters import EPOCH, STREAM, message, ours, read

MSGPACK = "application/msgpack"
CBOR = "application/cbor"
EVENT = {"event_id": "x1", "tenant_id": "acme", "note": "قمح", "ndvi": 0.5}
DUMPS: dict[str, Callable[[Any], bytes]] = {MSGPACK: msgspec.msgpack.encode, CBOR: cbor2.dumps}
LOADS: dict[str, Callable[[bytes], Any]] = {MSGPACK: msgspec.msgpack.decode, CBOR: cbor2.loads}
BOTH = pytest.mark.parametrize("kind", [MSGPACK, CBOR])
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip+": gzip.compress,
    "zstd+": zstandard.compress,
}


def opened_json(body: bytes, kind: str, known: Decoders | None = None) -> Any:
    return parse_json((known or Decoders()).opened(body, "s", {"Content-Type": kind}).json)


def edited(body: bytes, kind: str, patch: dict[str, Any], known: Decoders | None = None) -> bytes:
    opened = (known or Decoders()).opened(body, "s", {"Content-Type": kind})
    return opened.closed(patched(opened.json, patch))


@BOTH
@pytest.mark.parametrize("packed", COMPRESS)
def test_a_body_is_decoded_by_its_content_type(kind: str, packed: str) -> None:
    letter = read(around(COMPRESS[packed](DUMPS[kind](EVENT)), kind))
    assert json.loads(letter.original_data) == EVENT
    assert (letter.event_id, letter.tenant_id) == ("x1", "acme")
    assert letter.body_format == packed + kind.partition("/")[2]
    assert (letter.payload_encoding, letter.body_error) == ("json", None)
    assert (letter.parse_error, letter.clamped) == (None, None)


@BOTH
def test_no_secret_hides_in_a_format(kind: str) -> None:
    secrets = {
        "password": "hunter2",
        "mail": "ali@example.com",
        "token": b"hunter2hunter2",
        "blob": b"password=hunter2",
        "deep": [{"pin": {"password": b"hunter2"}}],
    }
    letters = [message(around(DUMPS[kind](secrets), kind))]
    [kept] = Redactor().redact_frame(decode_all(letters, EPOCH, STREAM))["original_data"]
    assert "hunter2" not in kept
    assert base64.b64encode(b"hunter2").decode()[:8] not in kept
    assert base64.b64encode(b"password=hunter2").decode()[:20] not in kept
    assert "ali@" not in kept


@BOTH
def test_values_that_json_does_not_have(kind: str) -> None:
    at = datetime(2026, 3, 1, 10, tzinfo=UTC)
    value = {"b": b"\x00\xff", "at": at, 1: "one", "1": "text", "n": 2**64 - 1, "nan": math.nan}
    letter = read(around(DUMPS[kind](value), kind))
    assert json.loads(letter.original_data) == {
        "b": {"base64": "AP8="},
        "at": "2026-03-01T10:00:00+00:00",
        "1 2": "one",
        "1": "text",
        "n": str(2**64 - 1),
        "nan": "NaN",
    }
    assert (letter.clamped, letter.parse_error) == ("original_data", None)


def test_values_that_only_one_format_has() -> None:
    ext = msgspec.msgpack.encode([msgspec.msgpack.Ext(5, b"\x01")])
    assert opened_json(ext, MSGPACK) == [{"ext": 5, "base64": "AQ=="}]
    values = [cbor2.CBORTag(6000, "x"), cbor2.undefined, cbor2.CBORSimpleValue(16), {7}]
    more = [Decimal("1.10"), UUID(int=1), 2**100, -(2**40_000)]
    shown = opened_json(cbor2.dumps(values + more), CBOR)
    assert shown[:4] == [{"tag": 6000, "value": "x"}, None, {"simple": 16}, [7]]
    assert shown[4:7] == ["1.10", str(UUID(int=1)), str(2**100)]
    assert shown[7] == hex(-(2**40_000))


@BOTH
def test_an_edit_keeps_the_type_of_what_it_does_not_name(kind: str) -> None:
    at = datetime(2026, 3, 1, 10, tzinfo=UTC)
    value = {"b": b"\x00\xff", "at": at, 1: "one", "1": "t", "n": 2**64 - 1, "list": [b"a", 1.0]}
    new = LOADS[kind](edited(DUMPS[kind](value), kind, {"1": "new", "added": {"x": 1}}))
    assert new == value | {"1": "new", "added": {"x": 1}}
    assert isinstance(new["list"][1], float)


@BOTH
def test_an_edit_gives_values_the_type_that_they_had(kind: str) -> None:
    value = {"b": b"\x00", "at": datetime(2026, 3, 1, tzinfo=UTC), "f": 1.5, "map": {2: "x"}}
    patch = {"b": {"base64": "AQI="}, "at": "2027-01-01T00:00:00+00:00", "f": 2, "map": {"2": "y"}}
    new = LOADS[kind](edited(DUMPS[kind](value), kind, patch))
    assert new["b"] == b"\x01\x02"
    assert new["at"] == datetime(2027, 1, 1, tzinfo=UTC)
    assert isinstance(new["f"], float)
    assert new["map"] == {2: "y"}


@BOTH
@pytest.mark.parametrize("packed", COMPRESS)
def test_an_edit_keeps_format_and_compression(kind: str, packed: str) -> None:
    new = edited(COMPRESS[packed](DUMPS[kind](EVENT)), kind, {"ndvi": None})
    letter = read(around(new, kind))
    assert letter.body_format == packed + kind.partition("/")[2]
    assert json.loads(letter.original_data) == {k: v for k, v in EVENT.items() if k != "ndvi"}


def test_an_edit_that_a_format_cannot_hold_is_refused() -> None:
    body = msgspec.msgpack.encode({"n": 1})
    with pytest.raises(BodyError, match="it cannot be written as msgpack"):
        edited(body, MSGPACK, {"n": 2**80})


def test_zstd_needs_no_header_and_is_written_again() -> None:
    body = zstandard.compress(json.dumps(EVENT).encode())
    letter = read(around(body))
    assert (json.loads(letter.original_data), letter.body_format) == (EVENT, "zstd")
    new = edited(body, "", {"ndvi": 0.7})
    assert json.loads(zstandard.decompress(new)) == EVENT | {"ndvi": 0.7}


def test_zstd_in_parts_is_read_to_its_end() -> None:
    text = json.dumps(EVENT).encode()
    parts = zstandard.compress(text[:20]) + zstandard.compress(text[20:])
    assert opened_json(parts, "") == EVENT


@pytest.mark.parametrize("cut", [1, 5, 15])
def test_broken_zstd_says_so(cut: int) -> None:
    letter = read(around(zstandard.compress(json.dumps(EVENT).encode())[:-cut]))
    assert letter.payload_encoding == "base64"
    assert (letter.body_error or "").startswith("its zstd is broken")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_bomb_is_not_read(compress: Callable[[bytes], bytes]) -> None:
    largest = b'{"tenant_id": "acme"}' + b" " * (LARGEST_INFLATED - 21)
    assert read(around(compress(largest))).tenant_id == "acme"
    letter = read(around(compress(largest + b" ")))
    assert letter.tenant_id is None
    assert letter.body_error == "it inflates to more than 8,388,608 bytes"


def test_references_of_cbor_are_not_followed() -> None:
    few: Any = ["a" * 8] * 10
    for _ in range(30):
        few = [few] * 10
    body = cbor2.dumps(few, value_sharing=True)
    assert len(body) < 2_000
    assert json.dumps(opened_json(body, CBOR)).count("aaaaaaaa") == 10
    assert opened_json(bytes.fromhex("d81c81d81d00"), CBOR) == {  # a list in itself
        "tag": 28,
        "value": [{"tag": 29, "value": 0}],
    }


BROKEN = [
    (MSGPACK, b"\xdd\xff\xff\xff\xff"),
    (MSGPACK, b"\x91" * 100_000),
    (MSGPACK, b"\xa1\xff"),
    (MSGPACK, b"\x81\x81\x01\x02\x02"),
    (MSGPACK, b""),
    (CBOR, b"\x9b\x00\x00\x00\x01\xff\xff\xff\xff"),
    (CBOR, b"\x81" * 100_000),
    (CBOR, b"\xc5\x82\x1b\x00\x00\x00\x02\x54\x0b\xe4\x00\x01"),
    (CBOR, b"\x01\x02"),
    (CBOR, b"\xd8\x1e\x82\x01\x00"),  # a fraction of 0
    (CBOR, b""),
]


@pytest.mark.parametrize(("kind", "body"), BROKEN)
def test_what_cannot_be_read_stays_as_it_is_and_says_why(kind: str, body: bytes) -> None:
    letter = read(around(body, kind))
    assert base64.b64decode(json.loads(letter.original_data)["base64"]) == body
    assert (letter.payload_encoding, letter.body_format) == ("base64", None)
    said = letter.body_error or ""
    assert said.startswith(f"its {kind.partition('/')[2]} cannot be read: ")
    assert len(said) < 400
    assert letter.parse_error is None


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([MSGPACK, CBOR, "application/avro", ""]))
def test_no_bytes_stop_a_drain(body: bytes, kind: str) -> None:
    letter = read(around(body, kind))
    json.loads(letter.original_data)
    assert letter.payload_encoding in ("json", "base64")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
    | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=5) | st.integers(0, 9) | st.binary(max_size=2), inner),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(_VALUES, st.sampled_from([MSGPACK, CBOR]))
def test_an_edit_of_any_map_changes_only_what_it_names(inner: Any, kind: str) -> None:
    body = DUMPS[kind]({"inner": inner, "gone": 1})
    new = LOADS[kind](edited(body, kind, {"gone": None, "added": "x"}))
    before = LOADS[kind](body)
    del before["gone"]
    assert new == before | {"added": "x"}


def test_a_body_that_is_json_is_read_so_whatever_it_is_called() -> None:
    assert opened_json(b'{"a": 1}', MSGPACK) == {"a": 1}
    letter = read(around(json.dumps(EVENT).encode("utf-16"), CBOR))
    assert (json.loads(letter.original_data), letter.body_format) == (EVENT, None)


def test_cbor_that_describes_itself_needs_no_content_type() -> None:
    body = b"\xd9\xd9\xf7" + cbor2.dumps(EVENT)
    assert read(around(body)).body_format == "cbor"
    assert edited(body, "", {"ndvi": 1.5}).startswith(b"\xd9\xd9\xf7")


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/x-msgpack", "msgpack"),
        ("Application/VND.MsgPack ; charset=x", "msgpack"),
        ("application/senml+cbor", "cbor"),
        ("application/cloudevents+protobuf", "protobuf"),
        ("application/vnd.apache.avro+binary", "avro"),
        ("avro/binary", "avro"),
        ("avro/json", "json"),
        ("application/vnd.apache.avro+json", "json"),
        ("text/cbor", "json"),
        ("image/png", "json"),
        ("", "json"),
    ],
)
def test_the_format_of_a_content_type(content_type: str, kind: str) -> None:
    assert format_of(content_type) == kind


def test_an_unknown_encoding_says_so_and_other_bytes_are_no_error() -> None:
    headers = {"Content-Encoding": "br"}
    letter = read(around(b"\x0b\x02\x80", original_headers=headers))
    assert letter.body_error == "its content-encoding 'br' is not supported"
    letter = read(around(b"\x89PNG\r\n\x1a\n", "image/png"))
    assert (letter.body_error, letter.body_format, letter.parse_error) == (None, None, None)


def test_json_with_an_unknown_encoding_is_still_read() -> None:
    headers = {"Content-Encoding": "br"}
    letter = read(around(json.dumps(EVENT).encode("utf-16"), original_headers=headers))
    assert (json.loads(letter.original_data), letter.body_error) == (EVENT, None)


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cbor2", None)
    letter = read(around(b"\xa0", CBOR))
    assert letter.body_error == (
        "its cbor cannot be read: cbor2 is not installed: pip install 'sahool-dlq[decoders]'"
    )


# Rules


def test_a_rule_says_the_format_of_a_subject() -> None:
    body, known = msgspec.msgpack.encode(EVENT), decoders(format="msgpack")
    assert opened_json(body, "", known) == EVENT
    opaque = decoders(format="opaque")
    with pytest.raises(BodyError, match="the rule for > says that it is opaque"):
        opaque.opened(body, "s", {"Content-Type": MSGPACK})


# CloudEvents


def cloud_event(data: bytes, kind: str) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "c1",
        "datacontenttype": kind,
        "data_base64": base64.b64encode(data).decode(),
        "n": 1.10,
    }


@BOTH
@pytest.mark.parametrize("is_strict", [True, False])
def test_data_of_another_format_in_a_cloud_event(kind: str, is_strict: bool) -> None:
    event = cloud_event(DUMPS[kind]({"tenant_id": "acme", "password": "hunter2"}), kind)
    text = json.dumps(event)
    if is_strict:
        sent = ours(original_data=event, event_id="unknown", tenant_id=None)
    else:
        sent = around(text.encode("utf-8-sig"), "application/cloudevents+json")
    letter = read(sent)
    data = {"tenant_id": "acme", "password": "hunter2"}
    without = {name: value for name, value in event.items() if name != "data_base64"}
    assert json.loads(letter.original_data) == without | {"data": data}
    assert (letter.event_id, letter.tenant_id) == ("c1", "acme")
    assert letter.body_format == f"cloudevent+{kind.partition('/')[2]}"
    [kept] = Redactor().redact_frame(decode_all([message(sent)], EPOCH, STREAM))["original_data"]
    assert "hunter2" not in kept


def test_a_cloud_event_in_a_cloud_event_is_opened_once() -> None:
    """Otherwise a few bytes could be any depth."""
    body = json.dumps({"a": 1}).encode()
    for _ in range(60):
        body = gzip.compress(json.dumps(cloud_event(body, "")).encode())
    letter = read(around(body))
    assert letter.body_format == "gzip+cloudevent+gzip"
    assert "data_base64" in json.loads(letter.original_data)["data"]


@BOTH
def test_an_edit_of_a_cloud_event_encodes_its_data_again(kind: str) -> None:
    body = json.dumps(cloud_event(DUMPS[kind]({"a": 1, "b": b"x"}), kind)).encode()
    new = json.loads(edited(body, "", {"data": {"a": 2}, "n": None}))
    assert LOADS[kind](base64.b64decode(new["data_base64"])) == {"a": 2, "b": b"x"}
    assert "data" not in new
    assert "n" not in new


def test_data_that_cannot_be_read_leaves_a_cloud_event_as_it_is() -> None:
    event = cloud_event(b"\xc1", MSGPACK)
    letter = read(json.dumps(ours(original_data=event)).encode().replace(b"1.1}", b"1.10}"))
    assert json.loads(letter.original_data) == event
    assert letter.original_data.endswith("1.10}")
    assert (letter.body_error or "").startswith("its data_base64: its msgpack cannot be read")


@pytest.mark.parametrize("kind", ["image/png", ""])
def test_data_of_no_known_format_stays_in_a_cloud_event(kind: str) -> None:
    event = cloud_event(b"\x89PNG", kind)
    letter = read(ours(original_data=event, event_id="unknown"))
    assert json.loads(letter.original_data) == event
    assert (letter.body_error, letter.body_format) == (None, None)


@BOTH
def test_a_cloud_event_in_binary_mode(kind: str) -> None:
    headers = {"ce-id": "c9", "ce-specversion": "1.0", "ce-datacontenttype": kind}
    letter = read(around(DUMPS[kind]({"tenant_id": "acme"}), original_headers=headers))
    assert (letter.event_id, letter.tenant_id) == ("c9", "acme")
