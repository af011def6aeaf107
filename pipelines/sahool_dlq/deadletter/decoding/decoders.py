"""Opens the bodies of events as JSON, whatever their format, and closes edited ones.

The format is that of the first rule whose subject matches, else of the content type. A compression
is found by the first bytes. What cannot be read in its format, but is JSON, is read as JSON.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from sahool_dlq.deadletter.decoding.avro import AvroSchema, SchemaSource, decode_avro
from sahool_dlq.deadletter.decoding.cloud_events import with_opened_data
from sahool_dlq.deadletter.decoding.compression import COMPRESSIONS, Compression
from sahool_dlq.deadletter.decoding.formats import Decoded, decode_cbor, decode_msgpack
from sahool_dlq.deadletter.decoding.media_types import (
    content_type_of,
    format_of,
    message_of,
)
from sahool_dlq.deadletter.decoding.opened import BodyError, Opened
from sahool_dlq.deadletter.decoding.protobuf import Descriptors
from sahool_dlq.deadletter.decoding.rules import DecodingRule
from sahool_dlq.deadletter.headers import Headers, value_of
from sahool_dlq.deadletter.sanitize import parse_json
from sahool_dlq.deadletter.subjects import matches

__all__ = ["Decoders"]

_CBOR = b"\xd9\xd9\xf7"  # CBOR that describes itself
_LONGEST_REASON = 300

_Decode = Callable[[bytes, str], Decoded]
"""Decodes a body, given its content type."""


class _Rule(NamedTuple):
    subject: str
    format: str
    decode: _Decode | None  # None: JSON, or opaque


class Decoders:
    """The decoders of one platform: its rules, and the formats that need none."""

    def __init__(
        self,
        rules: Sequence[DecodingRule] = (),
        read_file: Callable[[str], bytes] | None = None,
        registry: SchemaSource | None = None,
    ) -> None:
        """Reads the files that the rules name.

        Raises ValueError for a rule that cannot be used, and what `read_file` raises.
        """
        self._registry = registry
        self._read_file = read_file
        self._rules = [_Rule(rule.subject, rule.format, self._decoder(rule)) for rule in rules]

    def opened(self, body: bytes, subject: str, headers: Headers) -> Opened:
        """The body of an event; raises BodyError if it has a known format and cannot be read."""
        content_type = content_type_of(headers)
        rule = next((r for r in self._rules if matches(r.subject, subject)), None)
        if rule and rule.format == "opaque":
            raise BodyError(f"the rule for {rule.subject} says that it is opaque")
        if rule:
            opened = self._unpacked(body, rule.format, rule.decode, content_type)
        else:
            encoding = value_of(headers, "content-encoding")
            if _is_unknown(encoding) and not _is_json(body):
                raise BodyError(f"its content-encoding {encoding!r:.60} is not supported")
            opened = self._by_content_type(body, content_type)
        return with_opened_data(opened, self._by_content_type)

    def _by_content_type(self, body: bytes, content_type: str) -> Opened:
        kind = format_of(content_type)
        return self._unpacked(body, kind, self._ruleless(kind), content_type)

    def _unpacked(
        self, body: bytes, kind: str, decode: _Decode | None, content_type: str
    ) -> Opened:
        compression = next((c for c in COMPRESSIONS if body.startswith(c.magic)), None)
        if compression is None:
            return self._decoded(body, kind, decode, content_type)
        try:
            inner = compression.expand(body)
        except BodyError:
            if decode is None:
                raise
            return self._decoded(body, kind, decode, content_type)  # it only begins like that
        return _packed(self._decoded(inner, kind, decode, content_type), compression)

    def _decoded(self, body: bytes, kind: str, decode: _Decode | None, content_type: str) -> Opened:
        if decode is None and body.startswith(_CBOR):
            kind, decode = "cbor", lambda data, _: decode_cbor(data)
        if decode is None:
            return Opened(body)
        try:
            text, encode = decode(body, content_type)
        except Exception as error:  # whatever a parser raises for foreign bytes
            if _is_json(body):
                return Opened(body)
            raise BodyError(f"its {kind} cannot be read: {_reason(error)}") from error
        return Opened(text.encode("utf-8", "surrogatepass"), kind, partial(_closed, kind, encode))

    def _ruleless(self, kind: str) -> _Decode | None:
        if kind == "msgpack":
            return lambda data, _: decode_msgpack(data)
        if kind == "cbor":
            return lambda data, _: decode_cbor(data)
        if kind == "avro":
            return lambda data, _: decode_avro(data, None, self._registry)
        return _without_descriptors if kind == "protobuf" else None

    def _decoder(self, rule: DecodingRule) -> _Decode | None:
        if rule.format == "protobuf":
            descriptors = Descriptors(self._file(rule.descriptors or ""))
            if rule.message:
                descriptors.message(rule.message)
            return lambda data, kind: descriptors.decode(data, _message(rule.message, kind))
        if rule.format == "avro" and rule.schema is not None:
            schema = AvroSchema(json.loads(self._file(rule.schema)))
            return lambda data, _: decode_avro(data, schema, None)
        if rule.format == "avro" and self._registry is None:
            raise ValueError(
                f"the avro of {rule.subject} needs a schema, or DLQ_SCHEMA_REGISTRY_URL"
            )
        decode = self._ruleless(rule.format)
        if rule.format == "cbor":
            decode_cbor(b"\xf6")  # raises if its library is not installed
        return decode

    def _file(self, name: str) -> bytes:
        if self._read_file is None:
            raise ValueError("a rule names a file, and no files can be read here")
        return self._read_file(name)


def _packed(opened: Opened, compression: Compression) -> Opened:
    return opened._replace(
        format=f"{compression.name}+{opened.format}" if opened.format else compression.name,
        closed=lambda edited: compression.compress(opened.closed(edited)),
    )


def _closed(kind: str, encode: Callable[[str], bytes], edited: bytes) -> bytes:
    try:
        return encode(edited.decode("utf-8", "surrogatepass"))
    except BodyError:
        raise
    except Exception as error:
        raise BodyError(f"it cannot be written as {kind}: {_reason(error)}") from error


def _without_descriptors(_data: bytes, _content_type: str) -> Decoded:
    raise BodyError("no rule has descriptors for its subject")


def _message(said: str | None, content_type: str) -> str:
    """The name of the message, from the rule or from the content type."""
    found = said or message_of(content_type)
    if not found:
        raise BodyError("neither its rule nor its content type says which message it is")
    return found


def _is_unknown(encoding: str | None) -> bool:
    known = {"", "identity", *(each.name for each in COMPRESSIONS)}
    return encoding is not None and not {e.strip() for e in encoding.lower().split(",")} <= known


def _is_json(body: bytes) -> bool:
    try:
        parse_json(body)
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}…"
