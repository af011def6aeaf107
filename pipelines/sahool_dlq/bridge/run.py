"""The bridge at work: an advisory in, the dead letter that it stands for out, each exactly once.

A durable consumer on the stream of advisories. One is acknowledged after the server has
acknowledged its dead letter, whose id comes from the event and the consumer: done again after a
death in between, it is the same dead letter.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sahool_dlq.bridge.find_unadvised import Untold
from sahool_dlq.bridge.take_advisories import Advisories, OnLetter
from sahool_dlq.bridge.totals import publish_totals
from sahool_dlq.errors import DLQError, StreamError
from sahool_dlq.events.outbox import (
    PUBLISH_ERRORS,
)
from sahool_dlq.events.service import Service
from sahool_dlq.jetstream.pull import PullStalledError
from sahool_dlq.jetstream.streams import ensure_advisory_stream, ensure_log_stream
from sahool_dlq.settings import Settings

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SAMPLE_SECONDS = 60
_COUNT_SECONDS = 30


class BridgeConnection(NamedTuple):
    """How the bridge stays connected; see `events.service.ConnectionSettings`."""

    name: str = "dlq-bridge"
    connect_timeout_seconds: float = 10
    reconnect_time_wait: float = 1
    max_reconnect_attempts: int = -1
    shutdown_seconds: float = 10


class Bridge(Service):
    """Turns the server's advisories into dead letters, from `open` until `close`."""

    def __init__(
        self,
        settings: Settings,
        on_letter: OnLetter | None = None,
        *,
        ack_wait_seconds: float = 30,
    ) -> None:
        self._platform = settings
        super().__init__(settings.access, BridgeConnection())
        self._on_letter = on_letter
        self._ack_wait_seconds = ack_wait_seconds
        self._advisories: Advisories | None = None

    @property
    def counts(self) -> Counter[str]:
        """What became of advisories, and of what none said.

        Dead letters: bridged, gone (without their event), found (without an advisory). No dead
        letters: repeated (a termination of what was given up before), removed (the event left its
        stream while a consumer had it), skipped. Then acknowledged: after it was given up; and
        ids_taken: dead letters that found another one under their id, beside which they stand.
        """
        if self._advisories is None:
            return Counter()
        told_count = self._advisories.late_acks.told_count
        return self._advisories.counts + Counter(acknowledged=told_count)

    async def open(self) -> None:
        """Connect, and make the streams and the durable consumer that are missing.

        Raises ServerUnavailableError where no server answers, StreamError where a stream cannot
        be made.
        """
        settings = self._platform
        connection = await self._open()
        js = connection.jetstream()
        try:
            await ensure_log_stream(js, settings.stream_names)
            stream = await ensure_advisory_stream(js, settings.stream_names)
            self._advisories = Advisories(
                connection,
                stream,
                settings,
                self._on_letter,
                self._ack_wait_seconds,
                self._closing,
            )
            await self._advisories.prepare()
        except (*PUBLISH_ERRORS, StreamError) as error:
            await self.close()
            reason = str(error).rstrip(".")
            raise StreamError(f"The stream of advisories cannot be used: {reason}.") from error
        self._intakes.append(self._advisories)

    async def sample(self) -> list[Untold]:
        """Look for events that were given up without an advisory that we have; see `sample`.

        What the server has yet to notice, it is made to notice. What else can be proven becomes a
        dead letter, the rest is returned.
        """
        assert self._advisories is not None
        assert self._connection is not None
        try:
            return await self._advisories.sample(self._connection)
        except (*PUBLISH_ERRORS, PullStalledError, DLQError) as error:
            logger.warning("Failures without an advisory could not be searched: %s", error)
            return []

    async def count(self) -> None:
        """Publish the totals of consumers whose acknowledgements are told; see `bridge.totals`."""
        assert self._connection is not None
        try:
            await publish_totals(self._connection, self._platform)
        except (*PUBLISH_ERRORS, DLQError) as error:
            logger.warning("The totals could not be published: %s", error)

    def _chores(self) -> Iterable[Coroutine[Any, Any, None]]:
        return (self._sample_for_ever(), self._count_for_ever())

    async def _count_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_COUNT_SECONDS)
            await self.count()

    async def _sample_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            await self.sample()

    async def catch_up(self) -> None:
        """Wait until every advisory that the stream has is dealt with; the bridge must run.

        Raises StreamError where nothing becomes of any for three times its ack_wait.
        """
        assert self._advisories is not None
        assert self._background is not None
        dealt_with, since = -1, 0.0
        while not self._background.done() and (backlog := await self._advisories.backlog()):
            now = time.monotonic()
            if self.counts.total() != dealt_with:
                dealt_with, since = self.counts.total(), now
            elif now - since > 3 * self._ack_wait_seconds:
                raise StreamError(
                    f"No failure could be recorded for {now - since:.0f} s ({backlog:,} wait):"
                    " the log says why; the next run continues."
                )
            await asyncio.sleep(_POLL_SECONDS)


@asynccontextmanager
async def bridging(settings: Settings) -> AsyncIterator[Bridge]:
    """A bridge at work."""
    bridge = Bridge(settings)
    await bridge.open()
    bridge.start_in_background()
    try:
        yield bridge
    finally:
        await bridge.close()


async def bridge_pending(settings: Settings) -> tuple[Counter[str], list[Untold]]:
    """Bring in what consumers gave up until now: what became of it, by kind; what else they did.

    Raises as `Bridge.open` and `Bridge.catch_up` do.
    """
    async with bridging(settings) as bridge:
        untold = await bridge.sample()
        await bridge.catch_up()
        await bridge.count()
    return bridge.counts, untold
