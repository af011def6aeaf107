"""The server's reports of acknowledgements by consumers without our library: a proof."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from sahool_dlq.jetstream.ack_metrics import ack_stream, ack_subject, read_ack, told_percent
from sahool_dlq.jetstream.api import domain_of
from sahool_dlq.jetstream.consumers import parts_of
from sahool_dlq.jetstream.pull import Puller, PullStalledError, delivery_of
from sahool_dlq.redrive.publish.heard import Heard, Mark, Place

__all__ = ["AckFollower", "following_acks"]

logger = logging.getLogger(__name__)

_ALL = 100  # percent
_BATCH, _PULL_SECONDS = 1_000, 5.0
_PAUSE_SECONDS = 0.5  # before reading continues after an error


class AckFollower(Heard):
    """Receives acknowledgements of some consumers from the stream that stores them."""

    def __init__(self, client: Client, stream: str, percents: dict[str, int]) -> None:
        super().__init__(client)
        self._stream = stream
        self._percents = {address: told for address, told in percents.items() if told}
        self._next_sequence = 0
        self._puller: Puller | None = None
        self._consumer = ""
        self.untold = [address for address, told in percents.items() if told < _ALL]
        """Consumers without reports, or without reports of all acknowledgements."""

    async def mark(self, address: str | None) -> Mark:
        """The mark to take before a publish to this consumer, `<stream>/<durable>`."""
        at, parts = time.monotonic(), parts_of(address)
        if parts is None:
            return Mark(None, None, at, is_all_told=False)
        return Mark(
            await self.created(parts[0]),
            await self.created(*parts),
            at,
            is_all_told=self._percents.get(address or "") == _ALL,
        )

    def _read(self, msg: Msg) -> None:
        self._next_sequence = delivery_of(msg).sequence + 1
        try:
            metric = read_ack(msg.data, domain_of(self._client))
        except ValueError as error:
            logger.warning("The message on %s is not valid: %s", msg.subject, error)
            return
        self._hear(Place(metric.stream, metric.stream_seq, metric.consumer), metric.timestamp)

    async def open(self) -> None:
        """Listen from now on, or from where listening was interrupted."""
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
        """Remove everything from the server, if it answers."""
        puller, self._puller = self._puller, None
        if puller is not None and self._client.is_connected:
            with suppress(nats.errors.Error, JetStreamError, OSError):
                await puller.close()
                await self._client.jetstream().delete_consumer(self._stream, self._consumer)

    async def follow(self) -> None:
        """Receive for ever; after an outage, read what was missed."""
        while True:
            try:
                if self._puller is None:
                    await self.open()
                while self._puller is not None:
                    async for msg in self._puller.pull(_BATCH, _PULL_SECONDS):
                        self._read(msg)
            except (PullStalledError, nats.errors.Error, JetStreamError, OSError) as error:
                logger.info("Reading acknowledgements failed and will be tried again: %s", error)
            await self.close()
            await asyncio.sleep(_PAUSE_SECONDS)


@asynccontextmanager
async def following_acks(
    client: Client, name: str, addresses: Iterable[str | None]
) -> AsyncIterator[AckFollower]:
    """Follows the consumers `<stream>/<durable>` whose acknowledgements a stream stores.

    `name` is that stream's name. Raises NotPermittedError if it may not be read.
    """
    js = client.jetstream()
    stream = await ack_stream(js, name) or ""
    percents = {}
    for address in filter(None, set(addresses)):
        parts = parts_of(address)
        if parts is None:
            continue  # a dead letter may contain any name
        percents[address] = 0
        with suppress(NotFoundError):
            info = await js.consumer_info(*parts) if stream else None
            percents[address] = await told_percent(js, stream, info) if info else 0
    follower = AckFollower(client, stream, percents)
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
