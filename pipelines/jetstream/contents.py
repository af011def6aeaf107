"""Which sequences of the log the stream still has, without reading its messages where possible."""

import json

from nats.aio.client import Client

from pipelines.errors import StreamError
from pipelines.jetstream.reader import LogReader, LogState

_PAGE_MESSAGES, _PAGE_BYTES = 10_000, 32 << 20


async def stored_sequences(
    client: Client, state: LogState, filters: tuple[str, ...], up_to: int
) -> list[int]:
    """The sequences of the log's messages up to `up_to`, in order.

    On a stream of our own the server says which are deleted; a shared one is read, filtered.
    """
    last = min(up_to, state.last_sequence)
    if state.is_shared:
        return await _read(client, state, filters, last)
    deleted = set(await deleted_sequences(client, state))
    first = max(state.first_sequence, 1)
    return [sequence for sequence in range(first, last + 1) if sequence not in deleted]


async def deleted_sequences(client: Client, state: LogState) -> list[int]:
    """The sequences between its first and its last that a stream of our own lacks, in order."""
    if state.is_shared or state.message_count == state.last_sequence - state.first_sequence + 1:
        return []
    answer = await client.request(
        f"$JS.API.STREAM.INFO.{state.stream}", b'{"deleted_details": true}', timeout=30
    )
    value = json.loads(answer.data)
    if error := value.get("error"):
        raise StreamError(f"Stream {state.stream} can not be read: {error.get('description')}.")
    return sorted(value["state"].get("deleted") or ())


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
