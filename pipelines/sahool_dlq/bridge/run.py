"""The bridge: turns each advisory into its dead letter, exactly once.

It is a durable consumer on the stream of advisories. An advisory is acknowledged after the server
has acknowledged its dead letter, whose id is computed from the event and the consumer. If the
bridge dies in between, it publishes the same dead letter again.
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
from sahool_dlq.deadletter.imports.profile import with_streams
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
    """Turns the server's advisories into dead letters, from `open` to `close`."""

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
        """The results of advisories, and of failures without one.

        Dead letters: bridged, gone (without their event), found (without an advisory). No dead
        letters: repeated (a termination after the event was given up), removed (the event left its
        stream while a consumer had it), moved (its consumer wrote a dead letter that is imported),
        skipped. Also: acknowledged (after it was given up);
        ids_taken (dead letters whose id was already used; both are kept).
        """
        if self._advisories is None:
            return Counter()
        told_count = self._advisories.late_acks.told_count
        return self._advisories.counts + Counter(acknowledged=told_count)

    async def open(self) -> None:
        """Connect, and create missing streams and the durable consumer.

        Raises ServerUnavailableError if no server answers, StreamError if a stream cannot be
        created, SettingsError if the rules file is not valid.
        """
        settings = self._platform
        profiles = with_streams(settings.rules.profile)
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
                profiles,
            )
            await self._advisories.prepare()
        except (*PUBLISH_ERRORS, StreamError) as error:
            await self.close()
            reason = str(error).rstrip(".")
            raise StreamError(f"The stream of advisories cannot be used: {reason}.") from error
        self._intakes.append(self._advisories)

    async def sample(self) -> list[Untold]:
        """Search for events that were given up without an advisory that we have; see `sample`.

        The server is made to check overdue events. Other proven ones become dead letters, the rest
        is returned.
        """
        assert self._advisories is not None
        assert self._connection is not None
        try:
            return await self._advisories.sample(self._connection)
        except (*PUBLISH_ERRORS, PullStalledError, DLQError) as error:
            logger.warning("Failures without an advisory could not be searched: %s", error)
            return []

    async def count(self) -> None:
        """Publish totals of consumers whose acknowledgements are reported; see `bridge.totals`."""
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
        """Wait until every advisory in the stream is processed; the bridge must run.

        Raises StreamError if none is processed for three times its ack_wait.
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
    """A running bridge."""
    bridge = Bridge(settings)
    await bridge.open()
    bridge.start_in_background()
    try:
        yield bridge
    finally:
        await bridge.close()


async def bridge_pending(settings: Settings) -> tuple[Counter[str], list[Untold]]:
    """Process what consumers gave up until now: the results by kind, and the other events.

    Raises as `Bridge.open` and `Bridge.catch_up` do.
    """
    async with bridging(settings) as bridge:
        untold = await bridge.sample()
        await bridge.catch_up()
        await bridge.count()
    return bridge.counts, untold
