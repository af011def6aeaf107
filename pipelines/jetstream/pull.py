"""Pull requests of our own on a nats-py connection.

`fetch` of nats-py hides a message that carries a user header named `Status`; here a message is
real when its reply subject says so, whatever its headers.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

_GRACE_SECONDS = 3.0
_GONE = ("Consumer Deleted", "Consumer is push based", "Server Shutdown", "Leadership Change")


class PullStalledError(Exception):
    """Nothing came back in time: the consumer is gone, or the connection no longer reads."""


class Delivery(NamedTuple):
    """What the server says of a delivered message, in its reply subject."""

    stream: str
    consumer: str
    delivery_count: int  # 1 for the first delivery
    sequence: int  # in the stream
    timestamp_ns: int  # when it was stored, nanoseconds since 1970
    pending: int  # messages that the consumer has still to deliver


def delivery_of(msg: Msg) -> Delivery:
    """The delivery's metadata, from the 9-token reply or the 12-token one with a domain."""
    tokens = msg.reply.split(".")
    tokens = tokens[2:] if len(tokens) == 9 else tokens[4:11]
    stream, consumer, count, sequence, _, timestamp_ns, pending = tokens
    return Delivery(stream, consumer, int(count), int(sequence), int(timestamp_ns), int(pending))


class Puller:
    """One pull consumer's messages, a request at a time."""

    def __init__(self, connection: Client, stream: str, consumer: str) -> None:
        self._connection = connection
        self._api_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = connection.new_inbox()
        self._request_count = 0
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Listen for deliveries; needed once, before `pull`."""
        self._subscription = await self._connection.subscribe(
            f"{self._inbox}.*",
            cb=self._arrived.put,
            pending_msgs_limit=0,  # what was asked for bounds what can arrive
            pending_bytes_limit=0,
        )

    async def close(self) -> None:
        """Stop listening; messages that were not yielded are delivered again by the server."""
        if self._subscription is not None and not self._connection.is_closed:
            await self._subscription.unsubscribe()
        self._subscription = None

    async def pull(
        self, batch: int, expires_seconds: float = 0, max_bytes: int | None = None
    ) -> AsyncGenerator[Msg, None]:
        """Up to `batch` messages as they come, fewer when `expires_seconds` pass without more.

        With 0 seconds, those that the server has now.

        Raises PullStalledError where neither messages nor a status came back in time, and where
        the next message alone exceeds `max_bytes`.
        """
        self._request_count += 1
        inbox = f"{self._inbox}.{self._request_count}"
        request: dict[str, int | bool] = {"batch": batch}
        if expires_seconds:
            request["expires"] = int(expires_seconds * 1e9)
        else:
            request["no_wait"] = True
        if max_bytes is not None:
            request["max_bytes"] = max_bytes
        await self._connection.publish(self._api_subject, json.dumps(request).encode(), reply=inbox)
        deadline = asyncio.get_running_loop().time() + expires_seconds + _GRACE_SECONDS
        missing = batch
        while missing:
            msg = await self._next(deadline)
            if msg.reply.startswith("$JS.ACK."):
                missing -= 1
                yield msg
            elif msg.subject == inbox:
                headers = msg.headers or {}
                if headers.get("Status") == "100":
                    continue
                reason = headers.get("Description", "")
                if headers.get("Status") == "503" or any(gone in reason for gone in _GONE):
                    raise PullStalledError(reason or "no responders")
                if missing == batch and "MaxBytes" in reason:
                    raise PullStalledError(reason)
                return

    async def _next(self, deadline: float) -> Msg:
        try:
            return self._arrived.get_nowait()
        except asyncio.QueueEmpty:
            pass
        try:
            async with asyncio.timeout_at(deadline):
                return await self._arrived.get()
        except TimeoutError as error:
            raise PullStalledError("no answer to a pull request") from error
