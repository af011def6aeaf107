"""Reads the dead-letter stream in order from any sequence, without leaving anything on the server.

It uses no acknowledgements: an ephemeral AckNone pull consumer reads from a start sequence, and the
sinks store their position. A message that the client cannot parse (a malformed header block, a
subject that is not UTF-8) silently ends its read loop. So after a stall, a reader on a new
connection reads the first messages through the JSON API, without the parser.
"""

from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import nats.errors
from nats.aio.client import Client
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    RetentionPolicy,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.errors import ServerUnavailableError, StreamError
from sahool_dlq.jetstream.acks import fields_of
from sahool_dlq.jetstream.pull import Puller, PullStalledError, delivery_of
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.jetstream.streams import find_stream

_IDLE_CONSUMER_SECONDS = 300.0
_SUSPECTS = 500  # messages read past the client's parser after a stall


@dataclass(frozen=True, slots=True)
class LogState:
    """The position of the dead-letter stream."""

    stream: str
    created: datetime
    made_at_sequence: int  # the first that it was to use when it was made; none is below it
    life: str  # the log's: its stream and its creation; a restored stream has its original's
    first_sequence: int
    last_sequence: int  # of the stream; on a shared stream it may be no dead letter
    message_count: int
    size_bytes: int
    why_gone: str  # what can have removed the oldest messages, for a person
    why_missing: str  # what can have removed others
    is_shared: bool  # it holds other subjects too, so holes in our sequences are normal


def life_id(stream: str, created: datetime) -> str:
    """`<stream>@<creation time>`."""
    return f"{stream}@{created.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


async def log_state(connection: Client, stream: str, filters: tuple[str, ...]) -> LogState:
    """The state of the stream with the log.

    If `stream` does not exist, it is the one that captures the subjects (an older `SAHOOL_EVENTS`
    on `sahool.>`). Raises StreamError if there is none, or if its retention would delete read
    messages, and ServerUnavailableError if JetStream does not answer.
    """
    js = connection.jetstream()
    try:
        try:
            info = await js.stream_info(stream)
        except NotFoundError:
            other = await find_stream(js, filters[0], stream)
            if other is None:
                raise StreamError(
                    f"There is no stream {stream}, nor one that captures {filters[0]}:"
                    " run `dlq migrate` to make it."
                ) from None
            info = await js.stream_info(other)
    except (ServiceUnavailableError, nats.errors.NoRespondersError, TimeoutError) as error:
        raise ServerUnavailableError(
            "The NATS server does not answer JetStream requests: it is overloaded, JetStream is not"
            " enabled (`jetstream {}`), or the account has no right to it."
        ) from error
    except APIError as error:
        raise StreamError(f"Stream {stream} cannot be read: {error.description}.") from error
    return _checked(info, filters)


def _checked(info: StreamInfo, filters: tuple[str, ...]) -> LogState:
    config = info.config
    if config.retention not in (None, RetentionPolicy.LIMITS):
        raise StreamError(
            f"Stream {config.name} has {config.retention} retention, which deletes dead letters"
            " once they are read: use a stream with limits retention."
        )
    is_known = isinstance(info.created, datetime)
    created = info.created if isinstance(info.created, datetime) else datetime.fromtimestamp(0, UTC)
    return LogState(
        stream=str(config.name),
        created=created,
        life=life_id(str(config.name), created),
        made_at_sequence=config.first_seq or 1,
        first_sequence=info.state.first_seq,
        last_sequence=info.state.last_seq,
        message_count=info.state.messages,
        size_bytes=info.state.bytes,
        why_gone=why_gone(config, datetime.now(UTC) - created) if is_known else "unknown",
        why_missing=why_missing(config),
        is_shared=not set(config.subjects or []) <= set(filters),
    )


def why_gone(config: StreamConfig, age: timedelta) -> str:
    """What can have removed the oldest messages of a stream with this `age`.

    The server does not say which it was, but some causes can be excluded.
    """
    limits = [
        name
        for name, is_set in (
            ("its age limit", config.max_age and age.total_seconds() > config.max_age),
            ("its count limit", (config.max_msgs or -1) > 0),
            ("its count limit by subject", (config.max_msgs_per_subject or -1) > 0),
            ("its size limit", (config.max_bytes or -1) > 0),
        )
        if is_set
    ]
    if not config.deny_purge:
        limits.append("a purge")
    if not limits:
        return (
            "they were deleted one by one: no limit of the stream applies to them yet, and purges"
            " are denied"
        )
    return f"{' or '.join(limits)} or a person removed them before they were drained"


def why_missing(config: StreamConfig) -> str:
    """What can have removed messages of a stream that still has older ones."""
    ways = [
        name
        for name, is_possible in (
            ("its count limit by subject", (config.max_msgs_per_subject or -1) > 0),
            ("a time to live of their own", config.allow_msg_ttl),
            ("a rollup", config.allow_rollup_hdrs),
            ("a purge by subject", not config.deny_purge),
            ("a person who deleted them", not config.deny_delete),
        )
        if is_possible
    ]
    if not ways:
        return "no setting of the stream explains it: its server lost them"
    return f"{' or '.join(ways)} removed them, but no older ones, before they were drained"


class LogReader:
    """Reads the log's messages in order; use one for each run.

    After a stall it cannot be used any more: the stream may be another one, so the caller must
    check its state again, on a new connection.
    """

    def __init__(self, connection: Client, stream: str, filters: tuple[str, ...]) -> None:
        self._connection = connection
        self._stream = stream
        self._filters = filters
        self._is_shared = True  # as far as is known; then the server selects our subjects
        self._puller: Puller | None = None
        self._consumer = ""
        self._next_sequence = 1
        self._suspect_count = 0
        self._stall: Exception | None = None
        self.is_read_in_bulk: bool | None = None  # how the last messages came; None: none was read

    async def state(self) -> LogState:
        """The current state of the stream; raises as `log_state` does."""
        state = await log_state(self._connection, self._stream, self._filters)
        self._is_shared = state.is_shared
        return state

    async def seek(self, sequence: int, *, is_suspect: bool = False) -> None:
        """Read from `sequence`; with `is_suspect`, the first messages without the parser."""
        await self.close()
        self._next_sequence = max(sequence, 1)
        self._suspect_count = _SUSPECTS if is_suspect else 0

    async def close(self) -> None:
        """Remove everything from the server."""
        puller, self._puller = self._puller, None
        if puller is None or self._stall or self._connection.is_closed:
            return  # after a stall nobody would answer; the consumer goes by itself when idle
        try:
            await puller.close()
            await self._connection.jetstream().delete_consumer(self._stream, self._consumer)
        except (nats.errors.Error, TimeoutError):
            return

    async def read(self, max_messages: int, max_bytes: int, until: int) -> list[LogMessage]:
        """The next messages, at most `max_messages` and about `max_bytes`, up to sequence `until`.

        An empty list means that there is nothing more up to there. Raises ServerUnavailableError if
        reading stalled; messages before that have been returned.
        """
        if self._next_sequence > until:
            return []
        try:
            if self._suspect_count and not self._stall:
                return await self._read_suspects(max_messages, max_bytes, until)
            while not self._stall and self._next_sequence <= until:
                if messages := await self._read(max_messages, max_bytes, until):
                    return messages
            if not self._stall:
                return []
        except (PullStalledError, nats.errors.Error, OSError) as error:
            self._stall = error
        raise ServerUnavailableError(
            f"Reading stream {self._stream} stalled at sequence {self._next_sequence}"
            f" ({self._stall}): the next run continues."
        ) from self._stall

    async def read_raw(self, sequence: int) -> LogMessage | None:
        """One stored message at or after `sequence`, without the client's header parser."""
        found = [await self._get(sequence, wanted) for wanted in self._filters]
        return min((m for m in found if m), key=lambda m: m.sequence, default=None)

    async def _read(self, max_messages: int, max_bytes: int, until: int) -> list[LogMessage]:
        puller = self._puller or await self._open()
        # One message larger than max_bytes would never be delivered.
        max_bytes = max(max_bytes, 2 * self._connection.max_payload)
        messages: list[LogMessage] = []
        is_at_end = True
        for subject, reply, data in await self._deliveries(puller, max_messages, max_bytes):
            _, _, _, place, _, timestamp_ns, pending = fields_of(reply)
            sequence = int(place)
            if is_at_end := sequence > until:
                break
            if _is_of(self._filters, subject):
                messages.append(LogMessage(subject, sequence, int(timestamp_ns), data))
            self._next_sequence = sequence + 1
            is_at_end = pending == "0" or sequence == until
        if is_at_end:
            await self.close()  # what was delivered beyond `until` is read again by the next
            self._next_sequence = until + 1
        return messages

    async def _deliveries(
        self, puller: Puller, max_messages: int, max_bytes: int
    ) -> list[tuple[str, str, bytes]]:
        """Subject, reply and data of what has arrived, in its order."""
        bulk = await puller.pull_in_bulk(max_messages, max_bytes)
        self.is_read_in_bulk = bulk is not None
        if bulk is not None:
            return [(s.decode(errors="replace"), r.decode(), data) for s, r, data in bulk]
        found = []
        try:
            async with aclosing(puller.pull(max_messages, max_bytes=max_bytes)) as arriving:
                async for msg in arriving:
                    found.append((msg.subject, msg.reply, msg.data))
                    if delivery_of(msg).pending == 0:
                        break
        except PullStalledError as error:
            if not found:
                raise
            self._stall = error
        return found

    async def _read_suspects(
        self, max_messages: int, max_bytes: int, until: int
    ) -> list[LogMessage]:
        messages: list[LogMessage] = []
        while self._suspect_count and len(messages) < max_messages and max_bytes > 0:
            message = await self.read_raw(self._next_sequence)
            if message is None or message.sequence > until:
                self._next_sequence = until + 1
                break
            messages.append(message)
            self._next_sequence = message.sequence + 1
            self._suspect_count -= 1
            max_bytes -= len(message.data)
        return messages

    async def _open(self) -> Puller:
        info = await self._connection.jetstream().add_consumer(
            self._stream,
            ConsumerConfig(
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=self._next_sequence,
                # Filters cost the server half of its time: only where they exclude something.
                filter_subjects=list(self._filters) if self._is_shared else None,
                inactive_threshold=_IDLE_CONSUMER_SECONDS,
                mem_storage=True,
            ),
        )
        self._consumer = info.name
        self._puller = Puller(self._connection, self._stream, info.name)
        await self._puller.open()
        return self._puller

    async def _get(self, sequence: int, wanted: str) -> LogMessage | None:
        stored = await stored_message(self._connection, self._stream, sequence, wanted)
        return stored and LogMessage(
            stored.subject, stored.sequence, stored.timestamp_ns, stored.data
        )


@lru_cache(maxsize=10_000)
def _is_of(filters: tuple[str, ...], subject: str) -> bool:
    """Whether a subject is selected; a stream can have others from before it was edited."""
    return any(matches(each, subject) for each in filters)
