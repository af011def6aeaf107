"""The sequences of the log that the stream still has, if possible without reading messages."""

import json
from typing import Any

from nats.aio.client import Client

from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.errors import StreamError
from sahool_dlq.jetstream.api import api_subject
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.jetstream.stored import stored_message

_PAGE_MESSAGES, _PAGE_BYTES = 10_000, 32 << 20


async def stored_sequences(
    client: Client, state: LogState, filters: tuple[str, ...], up_to: int
) -> list[int]:
    """The sequences of the log's messages up to `up_to`, in order.

    For a stream with only our subjects, the server lists deleted ones and those of other subjects;
    a shared stream is read with filters.
    """
    last = min(up_to, state.last_sequence)
    if state.is_shared:
        return await _read(client, state, filters, last)
    absent = {*await deleted_sequences(client, state), *await _foreign(client, state, filters)}
    first = max(state.first_sequence, 1)
    return [sequence for sequence in range(first, last + 1) if sequence not in absent]


async def deleted_sequences(client: Client, state: LogState) -> list[int]:
    """The missing sequences between first and last of a stream with only our subjects, in order."""
    if state.is_shared or state.message_count == state.last_sequence - state.first_sequence + 1:
        return []
    return sorted((await _info(client, state, deleted_details=True)).get("deleted") or ())


async def _foreign(client: Client, state: LogState, filters: tuple[str, ...]) -> list[int]:
    """The sequences of messages that do not belong to the log, in a stream with only its subjects.

    If somebody uses a subject of the log as a reply subject, the reply is stored in the log, with
    its own subject.
    """
    found: list[int] = []
    for subject in await _subjects(client, state):
        if not any(matches(log, subject) for log in filters):
            found += await _of_subject(client, state, subject)
    return found


async def _subjects(client: Client, state: LogState) -> set[str]:
    found: set[str] = set()
    while True:  # the server gives so many at a time
        page = await _info(client, state, subjects_filter=">", offset=len(found))
        subjects = (page.get("subjects") or {}).keys() - found
        if not subjects:
            return found
        found |= subjects


async def _of_subject(client: Client, state: LogState, subject: str) -> list[int]:
    found: list[int] = []
    after = 0
    while message := await stored_message(client, state.stream, after + 1, subject):
        after = message.sequence
        found.append(after)
    return found


async def _info(client: Client, state: LogState, **wanted: Any) -> dict[str, Any]:
    where = api_subject(client, f"STREAM.INFO.{state.stream}")
    answer = await client.request(where, json.dumps(wanted).encode(), timeout=30)
    value = json.loads(answer.data)
    if error := value.get("error"):
        raise StreamError(f"Stream {state.stream} cannot be read: {error.get('description')}.")
    found: dict[str, Any] = value["state"]
    return found


async def _read(client: Client, state: LogState, filters: tuple[str, ...], last: int) -> list[int]:
    reader = LogReader(client, state.stream, filters)
    await reader.seek(state.first_sequence)
    found: list[int] = []
    try:
        while messages := await reader.read(_PAGE_MESSAGES, _PAGE_BYTES, last):
            found += [message.sequence for message in messages]
    finally:
        await reader.close()
    return found
