"""The bytes of a dead letter as a `DeadLetter`, for any bytes.

There are three envelopes (docs/wire-format.md): the canonical one, the `metadata` one of another
generation of services, and everything else. Nothing raises: a message that cannot be read, or not
be stored unchanged, is one row with a `parse_error` that says why, and its raw bytes stay in the
stream.
"""

from datetime import datetime
from typing import Any

import msgspec

from sahool_dlq.deadletter.decoding.cloud_events import BINARY_DATA
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.decoding.opened import Opened
from sahool_dlq.deadletter.envelope.tolerant import RAW_LIMIT, Reading
from sahool_dlq.deadletter.message import LogMessage, time_of_ns
from sahool_dlq.deadletter.record import (
    CANONICAL_KEYS,
    JSON_COLUMNS,
    LIMITS,
    LONG_TEXT_LIMIT,
    REQUIRED_KEYS,
    DeadLetter,
    Field,
)
from sahool_dlq.deadletter.sanitize import clean_text, dump_json, raw_data, storable_json


def _canonical_field(name: str, field: Field) -> Any:
    """A field for `msgspec.defstruct`."""
    if name in _TYPES:
        return name, *_TYPES[name]
    kind: Any = str if field.kind is datetime else field.kind
    return (name, kind) if name in REQUIRED_KEYS else (name, kind | None, None)


_TYPES: dict[str, tuple[Any, ...]] = {  # of the keys that hold JSON, or have a default
    "original_data": (msgspec.Raw,),
    "original_headers": (dict[str, Any],),
    "attempts": (msgspec.Raw, msgspec.Raw()),  # `Raw | None` would take null only
    "payload_encoding": (str, "json"),
}
Canonical = msgspec.defstruct(
    "Canonical",
    [_canonical_field(name, field) for name, field in CANONICAL_KEYS.items()],
    gc=False,
    kw_only=True,
)
"""The canonical envelope, typed: a matching message takes the fast path."""
_decode_canonical = msgspec.json.Decoder(Canonical).decode


BUILT_IN = Decoders()
"""The formats that need no rule."""


def decode(
    message: LogMessage, epoch: str, dlq_stream: str, decoders: Decoders = BUILT_IN
) -> DeadLetter:
    """The dead letter in a message of `dlq_stream`; never raises."""
    reading = _Reading(message, decoders)
    try:
        fields = reading.canonical()
    except (msgspec.MsgspecError, ValueError, RecursionError):
        fields = reading.anything()
    return reading.dead_letter(fields, epoch, dlq_stream)


class _Reading(Reading):
    """One message being read for the sinks: typed if possible, limited to what they accept."""

    def __init__(self, message: LogMessage, decoders: Decoders) -> None:
        super().__init__(message)
        self._decoders = decoders

    def body_to_open(self, fields: dict[str, Any]) -> bytes | None:
        """Also the body of a CloudEvent in JSON with data of another format."""
        text = fields.get("original_data", "")
        if fields.get("payload_encoding", "json") == "json" and BINARY_DATA in text:
            return str(text).encode()
        return super().body_to_open(fields)

    def opened(self, body: bytes, fields: dict[str, Any]) -> Opened:
        """The body as JSON, by its format."""
        return self._decoders.opened(
            body, fields.get("original_subject", ""), fields["original_headers"]
        )

    def canonical(self) -> dict[str, Any]:
        """The fields of a well-formed canonical envelope; raises for anything else."""
        fields = msgspec.structs.asdict(_decode_canonical(self.message.data))
        fields["original_headers"] = self.headers(fields["original_headers"])
        self._json(fields, "original_data")
        if bytes(fields["attempts"]) in (b"", b"null"):
            fields["attempts"] = None
        else:
            self._json(fields, "attempts")
        if b"\\u0000" in self.message.data:  # the only character that no sink accepts
            self._mend_texts(fields)
        return fields

    def _json(self, fields: dict[str, Any], name: str) -> None:
        """Convert a raw JSON value to text that every sink accepts."""
        data, mended = bytes(fields[name]), set[str]()
        try:
            fields[name] = storable_json(data, mended)
        except ValueError as error:
            fields[name] = raw_data(data, RAW_LIMIT)
            self.problems.append(f"{name} cannot be kept as JSON: {error}")
        if mended:
            self.clamped.append(name)
        self.note(f"{name} holds", mended)

    def _mend_texts(self, fields: dict[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, str) and (text := clean_text(value)) != value:
                fields[name] = text
                self.clamped.append(name)
                if name not in ("original_data", "attempts"):
                    self.note(f"{name} holds", {"NUL"})
        headers = fields["original_headers"]
        fields["original_headers"] = {
            clean_text(name): clean_text(held)
            if isinstance(held, str)
            else [*map(clean_text, held)]
            for name, held in headers.items()
        }
        if fields["original_headers"] != headers:
            self.clamped.append("original_headers")
            self.note("original_headers holds", {"NUL"})

    def dead_letter(self, fields: dict[str, Any], epoch: str, dlq_stream: str) -> DeadLetter:
        """The row, with completed fields and limited texts."""
        message = self.message
        fields = self.completed(fields, dlq_stream)
        timestamp_ns = fields.pop("original_timestamp_ns", None)
        if timestamp_ns is not None:
            fields["original_published_at"] = time_of_ns(timestamp_ns)
        fields["original_headers"] = msgspec.json.encode(fields["original_headers"]).decode()
        self._clamp(fields)
        service = fields.get("consumer_service") or fields.get("source_service") or "unknown"
        return DeadLetter(
            epoch=epoch,
            dlq_sequence=message.sequence,
            published_at=message.published_at,
            subject=clean_text(message.subject),
            size_bytes=len(message.data),
            service=service,
            envelope=self.envelope,
            parse_error=self.parse_error,
            clamped=",".join(dict.fromkeys(self.clamped)) or None,
            **fields,
        )

    def _clamp(self, fields: dict[str, Any]) -> None:
        """Record which texts a column must cut; JSON that is too long becomes its size."""
        for name, limit in LIMITS.items():
            text = fields.get(name)
            if text is not None and len(text) > limit:
                fields[name] = text[
                    :LONG_TEXT_LIMIT
                ]  # the lake stores what a PostgreSQL column cannot
                self.clamped.append(name)
                self.problems.append(f"{name} has {len(text)} characters, not {limit}")
        for name in JSON_COLUMNS:
            text = fields.get(name)
            if text is not None and len(text) > LONG_TEXT_LIMIT:
                fields[name] = dump_json({"cut": f"{len(text)} characters"})
                self.clamped.append(name)
                self.problems.append(f"{name} has {len(text)} characters, not {LONG_TEXT_LIMIT}")
