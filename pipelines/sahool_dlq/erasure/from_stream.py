"""Deletes stored messages and objects so that the server overwrites their bytes."""

import asyncio
import json
from collections.abc import Callable, Sequence

from nats.aio.client import Client

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.api import api_subject
from sahool_dlq.jetstream.bodies import object_messages
from sahool_dlq.jetstream.stored import stored_message

__all__ = ["erase_messages", "erase_objects"]

_AT_ONCE = 4  # more are no faster: they wait in the server's queue, before the requests of others
_TIMEOUT_SECONDS = 10


async def erase_messages(
    client: Client, stream: str, sequences: Sequence[int], tell: Callable[[], object] | None = None
) -> str | None:
    """Overwrite and delete these messages; returns the reason of a refusal, None if all are
    deleted.
    """
    for start in range(0, len(sequences), _AT_ONCE):
        window = sequences[start : start + _AT_ONCE]
        refusals = await asyncio.gather(*(_erase(client, stream, each) for each in window))
        if refusal := next(filter(None, refusals), None):
            return refusal
        if tell is not None:
            tell()
    return None


async def erase_objects(
    client: Client, bucket: str, names: Sequence[str], tell: Callable[[], object]
) -> str | None:
    """Overwrite and delete these objects of an object store; returns as `erase_messages`.

    The client's own delete would purge the object, which leaves its bytes on the disk.
    """
    for name in names:
        try:
            stored = await object_messages(client, bucket, name)
        except NotPermittedError as error:
            return str(error).rstrip(".")
        if not stored:
            continue
        entry, *chunks = [message.sequence for message in stored]
        stream = f"OBJ_{bucket}"
        # The entry last, because it locates the rest.
        refusal = await erase_messages(client, stream, chunks, tell)
        refusal = refusal or await _erase(client, stream, entry)
        if refusal:
            return refusal
    return None


async def _erase(client: Client, stream: str, sequence: int) -> str | None:
    """Delete one message; returns the reason if it still exists."""
    subject = api_subject(client, f"STREAM.MSG.DELETE.{stream}")
    request = json.dumps({"seq": sequence, "no_erase": False}).encode()
    try:
        answer = await client.request(subject, request, timeout=_TIMEOUT_SECONDS)
        refusal = json.loads(answer.data).get("error")
        if refusal is None or await stored_message(client, stream, sequence) is None:
            return None
    except NotPermittedError as error:
        return str(error).rstrip(".")
    return f"{stream} refuses it: {refusal.get('description')}"
