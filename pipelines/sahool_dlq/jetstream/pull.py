"""Our own pull requests on a nats-py connection.

nats-py's `fetch` hides a message with a user header named `Status`; here a message is recognised by
its reply subject, whatever its headers are.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import NamedTuple, NoReturn

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sahool_dlq.jetstream.acks import ACKS, fields_of
from sahool_dlq.jetstream.api import api_subject
from sahool_dlq.jetstream.bounded import within
from sahool_dlq.jetstream.permissions import check_permitted
from sahool_dlq.jetstream.tap import RawDelivery, tapped

_GRACE_SECONDS = 3.0
_CLOSE_SECONDS = 1.0  # for the server to report that it delivers nothing more
_NOTHING_THERE = ("404", "408")
_PIN = "Nats-Pin-Id"
_PINNED_TO_ANOTHER = "423"
_GONE = ("Consumer Deleted", "Consumer is push based", "Server Shutdown", "Leadership Change")


EventKey = tuple[int, int]
"""The identity of a stored message, also in a recreated stream: sequence, time in ns."""


class PullStalledError(Exception):
    """Nothing came in time: the consumer is gone, or the connection no longer reads."""


class PullTerms(NamedTuple):
    """What a consumer requires in each pull request; the server refuses others."""

    group: str | None = None  # the priority group to pull for
    max_batch: int = 0  # messages; 0: no limit
    max_expires_seconds: float = 0  # 0: no limit
    created: str = ""  # when the consumer was made, as the server says it


class Delivery(NamedTuple):
    """The server's data about a delivered message, in its reply subject."""

    stream: str
    consumer: str
    delivery_count: int  # 1 for the first delivery
    sequence: int  # in the stream
    timestamp_ns: int  # when it was stored, nanoseconds since 1970
    pending: int  # messages that the consumer has still to deliver

    @property
    def event(self) -> EventKey:
        """The message, whatever its number of deliveries."""
        return self.sequence, self.timestamp_ns


def delivery_of(msg: Msg) -> Delivery:
    """The delivery's metadata, from the reply's subject."""
    stream, consumer, count, sequence, _, timestamp_ns, pending = fields_of(msg.reply)
    return Delivery(stream, consumer, int(count), int(sequence), int(timestamp_ns), int(pending))


class Puller:
    """One pull consumer's messages, one request at a time.

    If a consumer's group is pinned to one client, `pin` proves that we are this client. Another
    Puller must get the pin, or wait until the server notices that we are gone.
    """

    def __init__(
        self,
        connection: Client,
        stream: str,
        consumer: str,
        terms: PullTerms = PullTerms(),  # noqa: B008  (it cannot be changed)
        pin: str | None = None,
    ) -> None:
        self.pin = pin
        self._terms = terms
        self._connection = connection
        self._consumer = consumer
        self._api_subject = api_subject(connection, f"CONSUMER.MSG.NEXT.{stream}.{consumer}")
        self._inbox = ""
        self._request_count = 0
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._on_arrival: Callable[[], object] | None = None
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Listen for deliveries; needed before `pull`."""
        self._inbox = self._connection.new_inbox()
        self._subscription = await self._connection.subscribe(
            f"{self._inbox}.*",
            cb=self._put,
            pending_msgs_limit=0,  # the request limits what can arrive
            pending_bytes_limit=0,
        )

    async def close(self) -> None:
        """Stop listening; the server delivers nothing more, even for open requests."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and self._connection.is_connected:
            with suppress(nats.errors.Error, OSError):
                await within(_CLOSE_SECONDS, subscription.drain())  # type: ignore[no-untyped-call]  # nats-py has no types here

    def left(self) -> list[Msg]:
        """Messages that arrived and were not yielded: if given back, they need not wait for their
        ack_wait.
        """
        left = []
        while not self._arrived.empty():
            left.append(self._arrived.get_nowait())
        return [msg for msg in left if _is_delivery(msg)]

    async def pull(
        self, batch: int, expires_seconds: float = 0, max_bytes: int | None = None
    ) -> AsyncGenerator[Msg, None]:
        """Up to `batch` messages as they arrive, fewer if `expires_seconds` pass without more.

        With 0 seconds, those that the server has now. Never more, nor longer, than the terms allow.

        Raises PullStalledError if neither a message nor a status came for too long, if the next
        message alone exceeds `max_bytes`, and while there is no connection: nats-py would keep the
        requests and send them all at once later. Raises NotPermittedError if the server refused the
        request or the inbox.
        """
        terms = self._terms
        batch = min(batch, terms.max_batch or batch)
        expires_seconds = min(expires_seconds, terms.max_expires_seconds or expires_seconds)
        request, inbox = await self._ask(batch, expires_seconds, max_bytes)
        missing = batch
        while missing:
            msg = await self._next(expires_seconds + _GRACE_SECONDS)
            if _is_delivery(msg):
                missing -= 1
                if terms.group is not None:
                    self.pin = (msg.headers or {}).get(_PIN, self.pin)
                yield msg
            elif msg.subject == inbox and self._is_last_word(
                msg, request, is_first=missing == batch
            ):
                return

    async def pull_in_bulk(self, batch: int, max_bytes: int) -> list[RawDelivery] | None:
        """Those that the server has now, as bytes, at a third of the cost; raises as `pull` does.

        None if the connection permits no tap (`jetstream.tap`): then use `pull`.
        """
        woken = asyncio.Event()
        self._on_arrival = woken.set
        with tapped(self._connection, self._consumer, woken.set) as tap:
            if tap is None:
                return None
            request, inbox = await self._ask(batch, 0, max_bytes)
            while len(tap) < batch and not self._is_over(request, inbox, is_first=not len(tap)):
                woken.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_GRACE_SECONDS):
                        await woken.wait()
                if tap.is_lost or not woken.is_set():
                    if not len(tap):
                        self._stalled("the connection was lost" if tap.is_lost else "")
                    break
            return tap.take()

    def _is_over(self, request: dict[str, int | bool | str], inbox: str, *, is_first: bool) -> bool:
        """Whether a status has arrived that ends the request."""
        while not self._arrived.empty():
            msg = self._arrived.get_nowait()
            if msg.subject == inbox and self._is_last_word(msg, request, is_first=is_first):
                return True
        return False

    async def _ask(
        self, batch: int, expires_seconds: float, max_bytes: int | None
    ) -> tuple[dict[str, int | bool | str], str]:
        """Send a pull request; the request, and the inbox of its statuses."""
        if not self._connection.is_connected:
            raise PullStalledError("not connected")
        self._request_count += 1
        inbox = f"{self._inbox}.{self._request_count}"
        request: dict[str, int | bool | str] = {"batch": batch}
        if expires_seconds:
            request["expires"] = int(expires_seconds * 1e9)
        else:
            request["no_wait"] = True
        if max_bytes is not None:
            request["max_bytes"] = max_bytes
        if self._terms.group is not None:
            request["group"] = self._terms.group
            if self.pin is not None:
                request["id"] = self.pin
        await self._connection.publish(self._api_subject, json.dumps(request).encode(), reply=inbox)
        return request, inbox

    def _is_last_word(
        self, msg: Msg, request: dict[str, int | bool | str], *, is_first: bool
    ) -> bool:
        """Whether a status ends the request; raises PullStalledError if it refuses it."""
        headers = msg.headers or {}
        status, reason = headers.get("Status"), headers.get("Description", "")
        if status == "100":
            return False
        if status == _PINNED_TO_ANOTHER and "id" in request:
            self.pin = None  # the next request waits until it is our turn again
            return True
        if status == "503" or any(gone in reason for gone in _GONE):
            raise PullStalledError(reason or "no responders")
        if is_first and status not in _NOTHING_THERE:
            raise PullStalledError(reason)  # asked again at once it would be refused again
        return True

    async def _next(self, patience_seconds: float) -> Msg:
        """The next arrival: on a slow line it waits as long as data arrive."""
        try:
            return self._arrived.get_nowait()
        except asyncio.QueueEmpty:
            pass
        try:
            async with asyncio.timeout(patience_seconds):
                return await self._arrived.get()
        except TimeoutError:
            self._stalled()

    def _stalled(self, reason: str = "") -> NoReturn:
        check_permitted(self._connection, self._api_subject, f"{self._inbox}.*")
        raise PullStalledError(reason or "no answer to a pull request") from None

    async def _put(self, msg: Msg) -> None:
        self._arrived.put_nowait(msg)
        if self._on_arrival is not None:
            self._on_arrival()


def _is_delivery(msg: Msg) -> bool:
    return msg.reply.startswith(ACKS)
