"""How a redrive ended at a consumer without our code, by what the server says of acknowledgements.

What it says of an event's place proves that this event was acknowledged, if the place is still
that event's: a stream that was made anew gives the same sequences to others. So what counts comes
after the publish, from the very stream that was there before it.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from pipelines.jetstream.ack_metrics import ack_stream, ack_subject, read_ack, told_percent
from pipelines.jetstream.pull import Puller, PullStalledError, delivery_of

__all__ = ["AckFollower", "Mark", "Place", "following_acks"]

logger = logging.getLogger(__name__)

_NO_NAME = re.compile(r"[^!-~]|[.*>/\\]")
_BATCH, _PULL_SECONDS = 1_000, 5.0
_PAUSE_SECONDS = 0.5  # before what broke off is read again
_KEPT_SECONDS = 60.0  # longer than a publish takes, whose place is known only then


class Place(NamedTuple):
    """Where a redriven event stands, and whose answer counts."""

    stream: str
    sequence: int
    consumer: str  # durable name


class Mark(NamedTuple):
    """How things stand before a redrive is published."""

    created: datetime | None  # the stream; None where nobody could tell, and nothing is proved
    at: float  # of the monotonic clock
    is_all_told: bool  # of each acknowledgement the server tells: silence is no success


class AckFollower:
    """Hears of the acknowledgements of some consumers, from the stream that keeps them."""

    def __init__(self, client: Client, stream: str, percents: dict[str, int]) -> None:
        self._client = client
        self._stream = stream
        self._percents = percents  # told, by `stream/consumer`
        self._next_sequence = 0
        self._puller: Puller | None = None
        self._consumer = ""
        self._waiting: dict[Place, asyncio.Future[datetime]] = {}
        self._heard: dict[Place, tuple[float, datetime]] = {}  # oldest first

    async def mark(self, address: str | None) -> Mark | None:
        """To be had before a publish; None for a consumer of which nothing is told."""
        percent = self._percents.get(address or "", 0)
        if not percent:
            return None
        at = time.monotonic()
        created = await self._created((address or "").partition("/")[0])
        return Mark(created, at, percent == 100)

    async def acknowledged(self, place: Place, mark: Mark) -> str:
        """`proved`, once the redriven event at `place` was acknowledged; waits for ever for it."""
        while True:
            at = await self._told(place, mark.at)
            # Asked only now: whatever the place is since, it was this event's all the time.
            created = await self._created(place.stream)
            if created is not None and created == mark.created and at >= created:
                return "proved"

    async def _told(self, place: Place, since: float) -> datetime:
        heard_at, at = self._heard.pop(place, (0.0, None))
        if at is not None and heard_at >= since:
            return at
        self._waiting[place] = asyncio.get_running_loop().create_future()
        try:
            return await self._waiting[place]
        finally:
            del self._waiting[place]

    async def _created(self, stream: str) -> datetime | None:
        try:
            created = (await self._client.jetstream().stream_info(stream)).created
        except (nats.errors.Error, JetStreamError):
            return None
        return created if isinstance(created, datetime) else None

    def _hear(self, msg: Msg) -> None:
        self._next_sequence = delivery_of(msg).sequence + 1
        try:
            metric = read_ack(msg.data)
        except ValueError as error:
            logger.warning("What %s says makes no sense: %s", msg.subject, error)
            return
        place, now = Place(metric.stream, metric.stream_seq, metric.consumer), time.monotonic()
        waiting = self._waiting.get(place)
        if waiting is not None and not waiting.done():
            waiting.set_result(metric.timestamp)
            return
        self._heard.pop(place, None)
        self._heard[place] = now, metric.timestamp
        while (oldest := next(iter(self._heard))) and self._heard[oldest][0] < now - _KEPT_SECONDS:
            del self._heard[oldest]

    async def open(self) -> None:
        """Listen from now on, or from where listening broke off."""
        subjects = [ack_subject(*address.split("/", 1)) for address in self._percents]
        start = ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
        if self._next_sequence:
            start.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
            start.opt_start_seq = self._next_sequence
        start.ack_policy = AckPolicy.NONE
        start.filter_subjects = subjects
        start.inactive_threshold = 60
        start.mem_storage = True
        info = await self._client.jetstream().add_consumer(self._stream, start)
        if not self._next_sequence:
            self._next_sequence = (info.delivered.stream_seq if info.delivered else 0) + 1
        self._consumer = info.name
        self._puller = Puller(self._client, self._stream, info.name)
        await self._puller.open()

    async def close(self) -> None:
        """Leave nothing behind on the server, where it answers."""
        puller, self._puller = self._puller, None
        if puller is not None and self._client.is_connected:
            with suppress(nats.errors.Error, JetStreamError, OSError):
                await puller.close()
                await self._client.jetstream().delete_consumer(self._stream, self._consumer)

    async def follow(self) -> None:
        """Hear for ever; an outage is waited for, and what was told meanwhile heard after it."""
        while True:
            try:
                if self._puller is None:
                    await self.open()
                while self._puller is not None:
                    async for msg in self._puller.pull(_BATCH, _PULL_SECONDS):
                        self._hear(msg)
            except (PullStalledError, nats.errors.Error, JetStreamError, OSError) as error:
                logger.info("Acknowledgements are read again in a moment: %s", error)
            await self.close()
            await asyncio.sleep(_PAUSE_SECONDS)


@asynccontextmanager
async def following_acks(
    client: Client, name: str, addresses: Iterable[str | None]
) -> AsyncIterator[AckFollower]:
    """Follows those of the consumers `<stream>/<durable>` of whose acknowledgements a stream hears.

    `name` is what that stream is called. Raises NotPermittedError where it may not be read.
    """
    js = client.jetstream()
    stream = await ack_stream(js, name) or ""
    percents = {}
    for address in filter(None, set(addresses) if stream else ()):
        of_stream, _, consumer = address.partition("/")
        if _NO_NAME.search(of_stream + consumer):
            continue  # a dead letter may say what it likes
        with suppress(NotFoundError):
            info = await js.consumer_info(of_stream, consumer)
            percents[address] = await told_percent(js, stream, info)
    follower = AckFollower(client, stream, {a: part for a, part in percents.items() if part})
    if not any(percents.values()):
        yield follower
        return
    await follower.open()
    following = asyncio.create_task(follower.follow())
    try:
        yield follower
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await follower.close()
