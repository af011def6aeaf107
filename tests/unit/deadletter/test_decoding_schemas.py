"""Avro and protobuf: decoded with a schema, encoded again with the same, safe for any bytes."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.decoding.avro import AvroSchema
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.decoding.opened import BodyError, Opened
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.record import DeadLetter
from sahool_dlq.redrive.edit.patch import patched
from support.encoded import (
    MESSAGE,
    SCHEMA,
    around,
    avro,
    decoders,
    descriptor_set,
    protobuf,
)
from support.letters import EPOCH, STREAM, message

VALUE = {
    "event_id": "x1",
    "tenant_id": "acme",
    "note": "قمح",
    "password": None,
    "raw": b"\x00\xff",
    "price": Decimal("1.10"),
    "at": datetime(2026, 3, 1, 10, tzinfo=UTC),
}
SHOWN = VALUE | {"raw": {"base64": "AP8="}, "price": "1.10", "at": "2026-03-01T10:00:00+00:00"}
AVRO = decoders({"s.avsc": json.dumps(SCHEMA).encode()}, format="avro", schema="s.avsc")
PROTO = decoders(
    {"d.binpb": descriptor_set()}, format="protobuf", descriptors="d.binpb", message=MESSAGE
)
SENT = {
    "event_id": "x1",
    "tenant_id": "acme",
    "raw": "AP8=",
    "count": "9007199254740993",
    "place": {"crop": "wheat"},
    "parts": [{"note": "a"}],
}


def opened(body: bytes, known: Decoders, kind: str = "") -> Opened:
    return known.opened(body, "s", {"Content-Type": kind})


def stored(body: bytes, known: Decoders, kind: str = "") -> DeadLetter:
    return decode(message(around(body, kind)), EPOCH, STREAM, known)


def edited(body: bytes, known: Decoders, patch: dict[str, Any]) -> bytes:
    it = opened(body, known)
    return it.closed(patched(it.json, patch))


# Avro


def test_avro_is_decoded_with_the_schema_of_a_file() -> None:
    letter = stored(avro(VALUE), AVRO)
    assert json.loads(letter.original_data) == SHOWN
    assert (letter.event_id, letter.tenant_id, letter.body_format) == ("x1", "acme", "avro")
    assert (letter.body_error, letter.parse_error) == (None, None)


def test_an_edit_of_avro_fits_the_schema_and_keeps_the_rest() -> None:
    new = edited(avro(VALUE), AVRO, {"note": None, "price": "2.25", "raw": {"base64": "AQ=="}})
    read = fastavro.schemaless_reader(BytesIO(new), fastavro.parse_schema(SCHEMA), None)
    assert read == VALUE | {"note": None, "price": Decimal("2.25"), "raw": b"\x01"}


@pytest.mark.parametrize("patch", [{"tenant_id": 5}, {"unknown": "x"}, {"price": "a lot"}])
def test_an_edit_that_does_not_fit_the_schema_is_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(BodyError, match=r"does not fit|cannot be written"):
        edited(avro(VALUE), AVRO, patch)


def test_an_edit_that_would_change_the_branch_of_a_union_is_refused() -> None:
    either = [{"type": "record", "name": n, "fields": [{"name": "x", "type": "int"}]} for n in "AB"]
    schema = {"type": "record", "name": "R", "fields": [{"name": "v", "type": either}]}
    known = decoders({"s": json.dumps(schema).encode()}, format="avro", schema="s")
    assert json.loads(opened(b"\x02\x06", known).json) == {"v": {"x": 3}}
    with pytest.raises(BodyError, match="cannot be written again without loss"):
        edited(b"\x02\x06", known, {"v": {"x": 4}})


def test_the_header_of_single_objects_is_read_and_written() -> None:
    mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))[::-1]
    body = b"\xc3\x01" + mark + avro(VALUE)
    assert json.loads(opened(body, AVRO).json) == SHOWN
    assert edited(body, AVRO, {"note": None}) == b"\xc3\x01" + mark + avro(VALUE | {"note": None})


NODE = {
    "type": "record",
    "name": "Node",
    "fields": [{"name": "next", "type": ["null", "Node"]}],
}


def test_deep_nesting_is_an_error() -> None:
    known = decoders({"s": json.dumps(NODE).encode()}, format="avro", schema="s")
    assert json.loads(opened(b"\x02\x02\x00", known).json) == {"next": {"next": {"next": None}}}
    letter = stored(b"\x02" * 2_000 + b"\x00", known)
    assert letter.payload_encoding == "base64"
    assert "recursion" in (letter.body_error or "")


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "record", "name": "Empty", "fields": []},
        {"type": "record", "name": "Nulls", "fields": [{"name": "n", "type": "null"}]},
        {"type": "fixed", "name": "None0", "size": 0},
    ],
)
def test_a_schema_with_which_a_few_bytes_could_be_any_is_refused(items: Any) -> None:
    with pytest.raises(ValueError, match="items of no bytes"):
        AvroSchema({"type": "array", "items": items})


def test_avro_without_a_schema_says_what_is_missing() -> None:
    letter = stored(avro(VALUE), Decoders(), "application/avro")
    assert letter.body_error == (
        "its avro cannot be read: no rule has its schema, and it does not begin with the id of one"
    )
    letter = stored(b"\x00\x00\x00\x00\x07" + avro(VALUE), Decoders(), "application/avro")
    assert "DLQ_SCHEMA_REGISTRY_URL is not set, so schema 7 is unknown" in (letter.body_error or "")


def test_bytes_after_the_value_mean_another_schema() -> None:
    letter = stored(avro(VALUE) + b"\x00", AVRO)
    assert "1 bytes follow its value: it has another schema" in (letter.body_error or "")


# Protobuf


def test_protobuf_is_decoded_with_a_descriptor_set() -> None:
    letter = stored(protobuf(SENT), PROTO)
    assert json.loads(letter.original_data) == SENT
    assert (letter.event_id, letter.tenant_id, letter.body_format) == ("x1", "acme", "protobuf")
    assert (letter.body_error, letter.parse_error) == (None, None)


@pytest.mark.parametrize("name", ["messageType", "proto"])
def test_the_content_type_may_name_the_message(name: str) -> None:
    known = decoders({"d": descriptor_set()}, format="protobuf", descriptors="d")
    kind = f'application/x-protobuf; {name}="{MESSAGE}"'
    assert json.loads(opened(protobuf(SENT), known, kind).json) == SENT
    letter = stored(protobuf(SENT), known)
    assert "neither its rule nor its content type says which message" in (letter.body_error or "")


def test_an_edit_of_protobuf_is_encoded_again() -> None:
    new = edited(protobuf(SENT), PROTO, {"count": "7", "place": {"crop": "rye"}, "parts": None})
    gone = {name: value for name, value in SENT.items() if name != "parts"}
    assert json.loads(opened(new, PROTO).json) == gone | {"count": "7", "place": {"crop": "rye"}}


def test_an_edit_does_not_lose_fields_that_nobody_described() -> None:
    body = protobuf(SENT) + b"\xf2\x06\x01x"  # field 110
    assert json.loads(opened(body, PROTO).json) == SENT
    with pytest.raises(BodyError, match="does not describe, and would lose them"):
        edited(body, PROTO, {"count": "7"})


@pytest.mark.parametrize("patch", [{"unknown": 1}, {"count": "many"}, {"tenant_id": {}}])
def test_an_edit_that_does_not_fit_the_message_is_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(BodyError, match="it does not fit the protobuf message"):
        edited(protobuf(SENT), PROTO, patch)


def test_another_message_is_not_shown_as_an_empty_one() -> None:
    letter = stored(b"\xf2\x06\x01x", PROTO)
    assert "it has no field of acme.sensors.Reading" in (letter.body_error or "")


def test_protobuf_without_a_rule_says_what_is_missing() -> None:
    letter = stored(protobuf(SENT), Decoders(), "application/protobuf")
    assert letter.body_error == (
        "its protobuf cannot be read: no rule has descriptors for its subject"
    )


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([AVRO, PROTO]))
def test_no_bytes_stop_a_drain(body: bytes, known: Decoders) -> None:
    json.loads(stored(body, known).original_data)


# Rules that cannot be used


@pytest.mark.parametrize(
    ("rule", "file", "reason"),
    [
        ({"format": "protobuf", "descriptors": "f"}, b"\x0a\x7f", "no complete descriptor set"),
        ({"format": "protobuf", "descriptors": "f"}, b"", "without messages"),
        (
            {"format": "protobuf", "descriptors": "f"},
            descriptor_set(with_imports=False),
            "--include_imports",
        ),
        (
            {"format": "protobuf", "descriptors": "f", "message": "acme.Other"},
            descriptor_set(),
            "there is no message 'acme.Other'; there are acme.sensors.Place, acme.sensors.Reading",
        ),
        ({"format": "avro", "schema": "f"}, b"{}", "no Avro schema"),
        ({"format": "avro", "schema": "f"}, b"{", "Expecting property name"),
        ({"format": "avro"}, b"", "needs a schema, or DLQ_SCHEMA_REGISTRY_URL"),
        ({"format": "protobuf"}, b"", "protobuf needs descriptors"),
        ({"format": "cbor", "schema": "f"}, b"", "cbor has no schema"),
    ],
)
def test_a_rule_that_cannot_be_used_says_why(
    rule: dict[str, Any], file: bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        decoders({"f": file}, **rule)
