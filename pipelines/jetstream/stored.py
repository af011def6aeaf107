"""One stored message of any stream, through the server's JSON API, past the client's parser."""

import base64
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.js.errors import APIError

from pipelines.deadletter.headers import Headers
from pipelines.jetstream.headers import parse_headers

_NO_MESSAGE = 10037  # the server's code for "no message found"


class StoredMessage(NamedTuple):
    """A message as its stream keeps it."""

    subject: str
    sequence: int
    timestamp_ns: int  # the server's time, nanoseconds since 1970
    headers: Headers
    data: bytes


async def stored_message(
    connection: Client, stream: str, sequence: int, next_by_subject: str | None = None
) -> StoredMessage | None:
    """The message at `sequence`, or the first of a subject filter from there on; None: no such.

    Raises APIError where the stream does not exist, or the server refuses.
    """
    wanted = {"next_by_subj": next_by_subject} if next_by_subject else {}
    return await _get(connection, stream, {"seq": sequence, **wanted})


async def last_message(connection: Client, stream: str, subject: str) -> StoredMessage | None:
    """The newest message on a subject; raises as `stored_message` does."""
    return await _get(connection, stream, {"last_by_subj": subject})


async def _get(
    connection: Client, stream: str, request: dict[str, int | str]
) -> StoredMessage | None:
    answer = await connection.request(
        f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps(request).encode(), timeout=10
    )
    value: dict[str, Any] = json.loads(answer.data)
    if error := value.get("error"):
        if error.get("err_code") == _NO_MESSAGE:
            return None
        raise APIError.from_error(error)
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
