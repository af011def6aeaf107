"""The header block of a stored message, as bytes."""

import base64
import json

from nats.aio.client import Client


async def lines_of(client: Client, stream: str, sequence: int) -> list[str]:
    """Its lines without the version, in order."""
    answer = await client.request(
        f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps({"seq": sequence}).encode()
    )
    block = base64.b64decode(json.loads(answer.data)["message"]["hdrs"])
    version, *lines = block.decode().removesuffix("\r\n\r\n").split("\r\n")
    assert version == "NATS/1.0"
    return lines
