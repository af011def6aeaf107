"""The bridge at work: an advisory in, the dead letter that it stands for out, each exactly once.

A durable consumer on the stream of advisories. One is acknowledged after the server has
acknowledged its dead letter, whose id comes from the event and the consumer: done again after a
death in between, it is the same dead letter.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from pipelines.bridge.advisory import Advisory, dead_letter_of, read_advisory, service_of
from pipelines.bridge.sample import Untold, sample
from pipelines.deadletter.subjects import matches
from pipelines.errors import DLQError, ServerUnavailableError, StreamError
from pipelines.events.intake import Intake
from pipelines.events.outbox import (
    PUBLISH_ERRORS,
    publish_dead_letter,
    publish_until_acknowledged,
)
from pipelines.events.service import Service
from pipelines.jetstream.pull import Delivery, PullStalledError
from pipelines.jetstream.stored import StoredMessage, stored_message
from pipelines.jetstream.streams import ensure_advisory_stream, ensure_log_stream
from pipelines.settings import Settings

logger = logging.getLogger(__name__)

_NO_STREAM = 10059  # the server's code for "stream not found"
_POLL_SECONDS = 0.2
_SAMPLE_SECONDS = 60

OnLetter = Callable[[Advisory, dict[str, Any]], object]
"""Called with each advisory that became a dead letter, and the dead letter's fields."""


class BridgeConnection(NamedTuple):
    """How the bridge connects; see `events.service.ConnectionSettings`."""

    servers: list[str]
    user_credentials: str | None
    name: str = "dlq-bridge"
    connect_timeout_seconds: float = 10
    reconnect_time_wait: float = 1
    max_reconnect_attempts: int = -1


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
        creds = settings.nats_creds
        servers = [server.strip() for server in settings.nats_url.split(",")]
        super().__init__(BridgeConnection(servers, str(creds) if creds else None))
        self._on_letter = on_letter
        self._ack_wait_seconds = ack_wait_seconds
        self._advisories: _Advisories | None = None

    @property
    def counts(self) -> Counter[str]:
        """What became of advisories: bridged, gone, skipped; and found: what no advisory said."""
        return self._advisories.counts if self._advisories else Counter()

    async def open(self) -> None:
        """Connect, and make the streams and the durable consumer that are missing.

        Raises ServerUnavailableError where no server answers, StreamError where a stream can not
        be made.
        """
        settings = self._platform
        if not await self.connect() or self._connection is None:
            raise ServerUnavailableError(
                f"No NATS server answers at {settings.nats_url}: start one, run `dlq up`, or set"
                " DLQ_NATS_URL."
            )
        js = self._connection.jetstream()
        try:
            await ensure_log_stream(js, settings.stream_names)
            stream = await ensure_advisory_stream(js, settings.stream_names)
            self._advisories = _Advisories(
                self._connection,
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
            raise StreamError(f"The stream of advisories can not be used: {reason}.") from error
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
            logger.warning("What no advisory said could not be looked for: %s", error)
            return []

    def _chores(self) -> Iterable[Coroutine[Any, Any, None]]:
        return (self._sample_for_ever(),)

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
                    f"No failure could be brought in for {now - since:.0f} s ({backlog:,} wait):"
                    " the log says why; the next run goes on."
                )
            await asyncio.sleep(_POLL_SECONDS)


class _Advisories(Intake):
    """The advisories, each settled by its dead letter."""

    def __init__(
        self,
        connection: Client,
        stream: str,
        settings: Settings,
        on_letter: OnLetter | None,
        ack_wait_seconds: float,
        closing: asyncio.Event,
    ) -> None:
        durable = settings.bridge_durable
        super().__init__(
            connection,
            stream=stream,
            wanted=ConsumerConfig(
                durable_name=durable,
                name=durable,
                ack_policy=AckPolicy.EXPLICIT,
                deliver_policy=DeliverPolicy.ALL,
                ack_wait=ack_wait_seconds,
                max_deliver=-1,
            ),
            ack_wait_seconds=ack_wait_seconds,
            max_concurrency=32,
            shutdown_seconds=10,
            closing=closing,
        )
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._on_letter = on_letter
        names = settings.stream_names
        self._own_streams = {names.dead_letters, names.totals, names.advisories, names.attempts}

    async def backlog(self) -> int:
        """Advisories that are still to be dealt with, or to be acknowledged."""
        try:
            info = await self.connection.jetstream().consumer_info(self._stream, self.durable)
        except PUBLISH_ERRORS:
            return 1  # nobody can say: look again
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def _settle(self, msg: Msg, delivery: Delivery) -> None:
        try:
            advisory = read_advisory(msg.data)
        except ValueError as error:
            logger.warning("Advisory %d is left out: %s", delivery.sequence, error)
            self.counts["skipped"] += 1
            self._acknowledge(msg)
            return
        event = await self._event(advisory)
        if self._is_own(advisory, event):
            self.counts["skipped"] += 1
        elif not await self._publish(advisory, event, "bridged" if event else "gone"):
            await self._give_back(msg)
            return
        self._acknowledge(msg)

    async def _event(self, advisory: Advisory) -> StoredMessage | None:
        """The event that was given up; None where its stream no longer has it."""
        try:
            event = await stored_message(self.connection, advisory.stream, advisory.stream_seq)
            # Another event with its sequence, in a stream that was made anew? Clocks may differ, so
            # the stream's own age decides.
            if event is not None and event.timestamp_ns > advisory.timestamp_ns:
                stream = await self.connection.jetstream().stream_info(advisory.stream)
                if isinstance(stream.created, datetime) and stream.created > advisory.timestamp:
                    return None
        except APIError as error:
            if error.err_code == _NO_STREAM:
                return None
            raise
        return event

    def _is_own(self, advisory: Advisory, event: StoredMessage | None) -> bool:
        """Whether a reader of the log itself gave up: its dead letter would come back to it."""
        subjects = self._settings.subjects
        return advisory.stream in self._own_streams or (
            event is not None and any(matches(own, event.subject) for own in subjects.own)
        )

    async def sample(self, client: Client) -> list[Untold]:
        """See `Bridge.sample`."""
        publish = partial(self._publish, counted_as="found")
        return await sample(client, self._settings, self._stream, self._own_streams, publish)

    async def _publish(
        self, advisory: Advisory, event: StoredMessage | None, counted_as: str
    ) -> bool:
        """Publish until the server has the dead letter; False where the bridge closes before."""
        service = service_of(advisory, self._settings.bridge_services)
        headers = self._settings.bridge_headers
        fields, body, is_json = dead_letter_of(advisory, event, service, headers)
        is_out = await publish_until_acknowledged(
            partial(
                publish_dead_letter,
                self.connection,
                self._settings.subjects.dead_letter(fields["event_type"]),
                fields,
                body,
                is_json,
            ),
            what=f"The dead letter of {advisory.consumer} about {advisory.stream}"
            f" {advisory.stream_seq}",
            give_up=self._closing,
        )
        if is_out:
            self.counts[counted_as] += 1
            if self._on_letter is not None:
                self._on_letter(advisory, fields)
        return is_out


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
    return bridge.counts, untold
