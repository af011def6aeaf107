"""Which redriven events were acknowledged, as far as it was received.

An acknowledgement of a position is about this event only if the position still belongs to it: a
stream that was created again gives the same sequences to others. So only acknowledgements after the
publish count, from the stream that existed before it.
"""

import asyncio
import time
from datetime import datetime
from typing import NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError

from sahool_dlq.errors import NotPermittedError

_KEPT_SECONDS = 60.0  # longer than a publish takes, because the position is known only after it
_MOST_KEPT = 100_000


class Place(NamedTuple):
    """The position of a redriven event, and the consumer whose acknowledgement counts."""

    stream: str
    sequence: int
    consumer: str  # durable name


class Mark(NamedTuple):
    """The state before a redrive is published."""

    created: datetime | None  # the stream; None where nobody could tell, and nothing is proved
    consumer_created: datetime | None
    at: float  # of the monotonic clock
    is_all_told: bool  # the server reports each acknowledgement: no report means no success


class Heard:
    """The recent acknowledgements, and who waits for one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: dict[Place, asyncio.Future[datetime]] = {}
        self._heard: dict[Place, tuple[float, datetime]] = {}  # oldest first

    async def acknowledged(self, place: Place, mark: Mark) -> None:
        """Return once the redriven event at `place` was acknowledged; waits for ever."""
        while True:
            at = await self._told(place, mark.at)
            # Checked only now: so the position belonged to this event all the time.
            created = await self.created(place.stream)
            if created is not None and created == mark.created and at >= created:
                return

    async def created(self, stream: str, consumer: str | None = None) -> datetime | None:
        """When a stream, or its consumer, was created; None if unknown."""
        js = self._client.jetstream()
        try:
            if consumer is not None:
                created = (await js.consumer_info(stream, consumer)).created
            else:
                created = (await js.stream_info(stream)).created
        except (nats.errors.Error, JetStreamError, NotPermittedError):
            return None
        return created if isinstance(created, datetime) else None

    def _hear(self, place: Place, at: datetime) -> None:
        """`at` is a time in the life of the stream that had the event: when it was stored, or
        later.
        """
        waiting = self._waiting.get(place)
        if waiting is not None and not waiting.done():
            waiting.set_result(at)
            return
        now = time.monotonic()
        self._heard.pop(place, None)
        self._heard[place] = now, at
        while len(self._heard) > _MOST_KEPT or self._oldest_at() < now - _KEPT_SECONDS:
            del self._heard[next(iter(self._heard))]

    def _oldest_at(self) -> float:
        return self._heard[next(iter(self._heard))][0]

    async def _told(self, place: Place, since: float) -> datetime:
        heard_at, at = self._heard.pop(place, (0.0, None))
        if at is not None and heard_at >= since:
            return at
        self._waiting[place] = asyncio.get_running_loop().create_future()
        try:
            return await self._waiting[place]
        finally:
            del self._waiting[place]
