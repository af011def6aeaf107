"""From a dead letter in the stream back to its event: original subject, bytes, headers."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from psycopg import Connection

from sahool_dlq.deadletter.body import text_of
from sahool_dlq.deadletter.envelope.encode import base64_body
from sahool_dlq.deadletter.headers import Headers, MutableHeaders, headers_of_json
from sahool_dlq.deadletter.message import LogMessage, time_of_ns
from sahool_dlq.deadletter.record import INT64_MAX
from sahool_dlq.deadletter.redaction.json_text import members
from sahool_dlq.deadletter.sanitize import parse_json
from sahool_dlq.deadletter.subjects import subject_token
from sahool_dlq.jetstream.bodies import stored_body
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.redrive.lifetime import ttl_of
from sahool_dlq.stores.postgres.payloads import kept_payload

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class RefusedError(Exception):
    """The event cannot, or must not, be published again; the message says why."""


class ExpiredError(Exception):
    """The event's bytes no longer exist."""


@dataclass(frozen=True, slots=True)
class Event:
    """The original event."""

    subject: str
    body: bytes
    headers: MutableHeaders  # that it is published with again
    traceparent: str | None = None  # of the dead letter
    published_at: datetime | None = None  # when it was stored, by the server's clock
    ttl: str | None = None  # its Nats-TTL
    stream: str | None = None  # its position, from the dead letter
    sequence: int | None = None
    timestamp_ns: int | None = None
    had: Headers = field(default_factory=dict)  # all its headers, also those that are left out


class _Canonical(msgspec.Struct):
    original_subject: str
    original_data: msgspec.Raw
    original_headers: msgspec.Raw = msgspec.Raw(b"{}")
    payload_encoding: str | None = None  # older services do not say
    traceparent: Any = None
    original_stream: Any = None
    original_sequence: Any = None
    original_timestamp_ns: Any = None


class _Metadata(msgspec.Struct):
    original_subject: str


class _Second(msgspec.Struct):
    metadata: _Metadata
    original_message: str


_Envelope = TypeVar("_Envelope", bound=msgspec.Struct)


async def stored_dead_letter(
    reader: LogReader,
    connection: Connection[Any],
    failure_id: str,
    sequence: int | None,
    published_at: datetime | None,
) -> LogMessage:
    """The dead letter of a failure, unmasked: from the stream, or else from `failed_payloads`.

    Raises ExpiredError if neither has it.
    """
    if sequence is None:
        raise ExpiredError("it was stored by an older monitor, without its position in the stream")
    message = await reader.read_raw(sequence)
    # A recreated stream has another message there.
    if message is None or (message.sequence, message.published_at) != (sequence, published_at):
        message = kept_payload(connection, failure_id)
    if message is None:
        raise ExpiredError("the stream no longer has its dead letter")
    return message


async def original_event(client: Client, message: LogMessage) -> Event:
    """The event in a dead letter.

    Raises RefusedError if the dead letter does not contain the original bytes, ExpiredError if the
    object store no longer has them.
    """
    try:
        letter = _read(message.data, _Canonical)
    except _UNREADABLE:
        try:
            second = _read(message.data, _Second)
        except _UNREADABLE:
            raise RefusedError("the message is not a dead letter with an event") from None
        body = second.original_message.encode(errors="surrogatepass")
        return Event(second.metadata.original_subject, body, {})
    body = await _body(client, message.data, bytes(letter.original_data), letter.payload_encoding)
    sent = _headers(bytes(letter.original_headers))
    trace = letter.traceparent if isinstance(letter.traceparent, str) else None
    stream = letter.original_stream
    timestamp_ns = _number(letter.original_timestamp_ns)
    return Event(
        letter.original_subject,
        body,
        event_headers(sent),
        trace,
        None if timestamp_ns is None else time_of_ns(timestamp_ns),
        ttl_of(sent),
        stream if isinstance(stream, str) else None,
        _number(letter.original_sequence),
        timestamp_ns,
        sent,
    )


def event_headers(sent: Headers) -> MutableHeaders:
    """The event's headers that are published again."""
    return {
        name: value if isinstance(value, str) else list(value)
        for name, value in sent.items()
        # Nats-* headers act or are rejected; an older redrive's marks are not this one's. The
        # client strips a name before it sends it.
        if not name.strip().lower().startswith(("nats-", "dlq-"))
    }


def _number(said: Any) -> int | None:
    return said if type(said) is int and 0 <= said <= INT64_MAX else None


def _read(data: bytes, envelope: type[_Envelope]) -> _Envelope:
    """The dead letter of this kind, in any form of JSON; raises one of _UNREADABLE if it is not
    one.
    """
    try:
        return msgspec.json.decode(data, type=envelope)
    except _UNREADABLE:
        value, spelt = parse_json(data), members(text_of(data)[0])
    for name in ("original_data", "original_headers"):  # the event's own, which must not be changed
        if name in spelt:
            value[name] = msgspec.Raw(spelt[name].value.encode(errors="surrogatepass"))
    if "original_message" in spelt:
        value["original_message"] = json.loads(spelt["original_message"].value)
    return msgspec.convert(value, type=envelope)


def _headers(data: bytes) -> MutableHeaders:
    """All values of all headers; numbers in their original spelling."""
    try:
        found = json.loads(data, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        raise RefusedError("the headers of its event cannot be read") from None
    if found is None:  # as Go writes that there are none
        return {}
    if not isinstance(found, dict):
        raise RefusedError("the message is not a dead letter with an event's headers")
    return headers_of_json(found)


async def _body(client: Client, message: bytes, data: bytes, encoding: str | None) -> bytes:
    if encoding == "base64":
        try:
            return base64_body(data)
        except ValueError as error:
            raise RefusedError(str(error)) from None
    if encoding == "object":
        return await _stored_body(client, data)
    if encoding == "json":
        return _with_margins(message, data)
    if encoding is not None:
        raise RefusedError(f"its payload_encoding {encoding[:40]!r} is unknown")
    try:
        value = msgspec.json.decode(data)
    except _UNREADABLE:
        return data  # JSON that this reader cannot read is still the service's original
    if isinstance(value, dict) and list(value) == ["raw_data"]:
        raise RefusedError("an older service stored its body only as an inexact text")
    return data


def _with_margins(message: bytes, data: bytes) -> bytes:
    """A body with its surrounding white space, which our consumer copies at the end of the dead
    letter.
    """
    before, _, after = message.rpartition(data)
    if after.strip() != b"}":
        return data
    leading = before[len(before.rstrip()) + 1 :]  # without the space after each key
    return leading + data + after[: after.index(b"}")]


async def _stored_body(client: Client, data: bytes) -> bytes:
    try:
        pointer = msgspec.json.decode(data)["object"]
        bucket, name = pointer["bucket"], pointer["name"]
        if not isinstance(name, str) or subject_token(bucket) != bucket:
            raise TypeError
        body = await stored_body(client, bucket, name)
    except (*_UNREADABLE, KeyError, TypeError):
        raise RefusedError("its pointer to the object store cannot be read") from None
    except JetStreamError as error:
        raise ExpiredError(f"the object store no longer has its body ({error})") from None
    if body is None:
        raise ExpiredError("the object store no longer has its body")
    if hashlib.sha256(body).hexdigest() != pointer.get("sha256"):
        raise RefusedError("the object store has another body than the one that failed")
    return body
