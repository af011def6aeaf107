"""`nats stream backup` and `nats stream restore`, by the requests that they send."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Backup:
    """The content of a backup's folder: the state of the stream, and the chunks of its archive."""

    stream: str
    config: dict[str, Any]
    state: dict[str, Any]
    chunks: list[bytes]


async def back_up(client: Client, stream: str) -> Backup:
    """A backup of the stream."""
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=arrived.put)
    answer = await _ask(client, f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox})
    chunks = []
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        while chunk := await arrived.get():
            if not chunk.data:
                break
            chunks.append(chunk.data)
            if chunk.reply:  # the server wants to hear, so that it can slow down
                await client.publish(chunk.reply)
    await subscription.unsubscribe()
    return Backup(stream, answer["config"], answer["state"], chunks)


async def restore(client: Client, backup: Backup) -> None:
    """Restore the stream from its backup, in place of an existing one."""
    await client.jetstream().delete_stream(backup.stream)
    body = {"config": backup.config, "state": backup.state}
    answer = await _ask(client, f"STREAM.RESTORE.{backup.stream}", body)
    for chunk in [*backup.chunks, b""]:
        said = await client.request(answer["deliver_subject"], chunk, timeout=_TIMEOUT_SECONDS)
        assert b'"error"' not in said.data, said.data
    state = json.loads(said.data)["state"]
    assert state["last_seq"] == backup.state["last_seq"]


async def _ask(client: Client, what: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.request(
        f"$JS.API.{what}", json.dumps(body).encode(), timeout=_TIMEOUT_SECONDS
    )
    value: dict[str, Any] = json.loads(answer.data)
    assert "error" not in value, value
    return value
