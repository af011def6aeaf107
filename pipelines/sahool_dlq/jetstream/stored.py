"""Reads one stored message of any stream through the server's JSON API, without the client's
parser.
"""

import base64
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.js.errors import APIError

from sahool_dlq.deadletter.headers import Headers, value_of
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.api import api_subject
from sahool_dlq.jetstream.headers import every_header, parse_headers
from sahool_dlq.jetstream.permissions import check_permitted

_NO_MESSAGE = 10037  # the server's code for "no message found"


class StoredMessage(NamedTuple):
    """A message as stored in its stream."""

    subject: str
    sequence: int
    timestamp_ns: int  # the server's time, nanoseconds since 1970
    headers: Headers
    data: bytes


async def stored_message(
    connection: Client, stream: str, sequence: int, next_by_subject: str | None = None
) -> StoredMessage | None:
    """The message at `sequence`, or the first of a subject filter from there; None if there is
    none.

    Raises APIError if the stream does not exist, or the server refuses.
    """
    wanted = {"next_by_subj": next_by_subject} if next_by_subject else {}
    return await _get(connection, stream, {"seq": sequence, **wanted})


async def last_message(connection: Client, stream: str, subject: str) -> StoredMessage | None:
    """The newest message on a subject; raises as `stored_message` does.

    A user that may read only this subject needs the subject in the request's subject.
    """
    try:
        return await _get(connection, stream, {"last_by_subj": subject})
    except NotPermittedError:
        return await _get_direct(connection, stream, subject)


async def is_stored(connection: Client, stream: str, sequence: int, timestamp_ns: int) -> bool:
    """Whether a stream still has this message; raises as `stored_message` does.

    A user that may not read other messages asks which ones are missing: then a message that
    replaced another counts as that one.
    """
    try:
        stored = await stored_message(connection, stream, sequence)
    except NotPermittedError:
        state = (await _ask(connection, f"STREAM.INFO.{stream}", {"deleted_details": True}))[
            "state"
        ]
        is_between = state["first_seq"] <= sequence <= state["last_seq"]
        return is_between and sequence not in (state.get("deleted") or ())
    return stored is not None and stored.timestamp_ns == timestamp_ns


async def _ask(connection: Client, what: str, request: dict[str, Any]) -> dict[str, Any]:
    where = api_subject(connection, what)
    try:
        answer = await connection.request(where, json.dumps(request).encode(), timeout=10)
    except TimeoutError:
        check_permitted(connection, where)  # other clients do not report this
        raise
    value: dict[str, Any] = json.loads(answer.data)
    if error := value.get("error"):
        raise APIError.from_error(error)
    return value


async def _get_direct(connection: Client, stream: str, subject: str) -> StoredMessage | None:
    where = api_subject(connection, f"DIRECT.GET.{stream}.{subject}")
    answer = await connection.request(where, timeout=10)
    headers = every_header(answer.headers)
    stored_at = value_of(headers, "Nats-Time-Stamp")
    if stored_at is None:
        return None
    sequence = int(value_of(headers, "Nats-Sequence") or 0)
    return StoredMessage(subject, sequence, _nanoseconds(stored_at), headers, answer.data)


async def _get(
    connection: Client, stream: str, request: dict[str, int | str]
) -> StoredMessage | None:
    try:
        value = await _ask(connection, f"STREAM.MSG.GET.{stream}", request)
    except APIError as error:
        if error.err_code == _NO_MESSAGE:
            return None
        raise
    stored = value["message"]
    return StoredMessage(
        stored["subject"],
        stored["seq"],
        _nanoseconds(stored["time"]),
        parse_headers(base64.b64decode(stored.get("hdrs") or "")),
        base64.b64decode(stored.get("data") or ""),
    )


def _nanoseconds(text: str) -> int:
    """An RFC 3339 time in UTC with up to nine fractional digits, as nanoseconds since 1970."""
    whole, _, rest = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int(rest.ljust(9, "0")[:9] or 0)
