"""Reads bodies that were too large for a dead letter from the object store, through the JSON API.

nats-py's `get` reads the number of pending messages at a fixed position in each reply. With the
server's feature flag `js_ack_fc_v2` that position is different, and `get` waits for ever, as it
does if a chunk is missing. It also uses flow control, which needs rights that nothing else here
needs.
"""

import base64
import json

from nats.aio.client import Client
from nats.js.errors import APIError

from sahool_dlq.jetstream.stored import StoredMessage, stored_message


async def stored_body(client: Client, bucket: str, name: str) -> bytes | None:
    """An object's bytes; None if it is missing or incomplete.

    Raises as `stored_message` does.
    """
    stored = await object_messages(client, bucket, name)
    if not stored:
        return None
    entry, *chunks = stored
    body = b"".join(chunk.data for chunk in chunks)
    return body if len(body) == json.loads(entry.data)["size"] else None


async def object_messages(client: Client, bucket: str, name: str) -> list[StoredMessage]:
    """The messages of an object in an object store, its entry first; empty if there is no such
    object.

    Raises as `stored_message` does.
    """
    stream = f"OBJ_{bucket}"
    name_token = base64.urlsafe_b64encode(name.encode()).decode()
    try:
        entry = await stored_message(client, stream, 1, f"$O.{bucket}.M.{name_token}")
    except APIError:
        return []  # there is no such store
    if entry is None:
        return []
    found, chunks = [entry], f"$O.{bucket}.C.{json.loads(entry.data)['nuid']}"
    after = 0
    while chunk := await stored_message(client, stream, after + 1, chunks):
        after = chunk.sequence
        found.append(chunk)
    return found
