"""Events that a consumer has handled, from the events' stream, as long as it has them."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerInfo
from nats.js.errors import APIError, NotFoundError
from psycopg import Connection

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.headers import redrive_of
from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.consumers import parts_of
from sahool_dlq.jetstream.handled import filters_of, floor_of, keeps_handled, start_of, was_for
from sahool_dlq.jetstream.reader import log_state
from sahool_dlq.jetstream.stored import StoredMessage, stored_message
from sahool_dlq.reproduce.raw import Place
from sahool_dlq.settings import Settings

__all__ = [
    "MOST_BYTES",
    "NoSuccessesError",
    "Sampling",
    "sampled_events",
    "sampled_successes",
    "undrained_count",
]

MOST_BYTES = 64_000_000
"""Bodies of one sample."""


class NoSuccessesError(Exception):
    """There are no successes to read; the message says why."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which of the events that a consumer has handled are read, spread evenly."""

    count: int
    seed: int | None = None  # chance within each part of the stream; None: the first of each part
    within: tuple[int, int] | None = None  # first and last sequence
    subject: str | None = None  # only events of this one
    most_bytes: int = MOST_BYTES  # fewer events are read if they are large


async def sampled_successes(
    client: Client, connection: Connection[Any], address: str, wanted: int
) -> list[Place]:
    """Up to `wanted` events that the consumer `<stream>/<durable>` has handled, and that never
    failed.

    They are spread evenly over the whole stream, and are always the same ones. Raises as
    `sampled_events` does.
    """
    stream, durable = parts_of(address) or ("", "")
    events = await sampled_events(client, connection, address, Sampling(wanted))
    return [
        Place(_failure_id(stream, durable, each), stream, each.sequence, durable, None, None)
        for each in events
    ]


async def sampled_events(
    client: Client, connection: Connection[Any], address: str, sampling: Sampling
) -> list[StoredMessage]:
    """Events that the consumer `<stream>/<durable>` has acknowledged, and that never failed, in
    order.

    Redrives and replays are left out, and what is after the first event that it has not
    acknowledged. Nothing is changed at the server. Raises NoSuccessesError if its stream does not
    have such events, ServerUnavailableError if NATS does not answer, and NotPermittedError.
    """
    parts = parts_of(address)
    if parts is None:
        raise NoSuccessesError(f"{address} is not a consumer")
    stream, durable = parts
    try:
        info, first = await _consumer(client, stream, durable)
        if sampling.subject and not any(matches(f, sampling.subject) for f in filters_of(info)):
            raise NoSuccessesError(f"{address} gets no events of {sampling.subject}")
        # Of these some may have failed.
        handled = [
            stored
            async for stored in _spread(client, info, first, sampling)
            if was_for(info, stored) and not redrive_of(stored.headers)
        ]
    except NotFoundError:
        raise NoSuccessesError(f"there is no consumer {address} any more") from None
    except (APIError, nats.errors.Error, TimeoutError) as error:
        said = f"Stream {stream} cannot be read ({error!r}): try again."
        raise ServerUnavailableError(said) from error
    good = _without_failures(connection, stream, durable, handled)
    step = max(len(good) / sampling.count, 1)
    return [good[int(n * step)] for n in range(min(sampling.count, len(good)))]


async def undrained_count(settings: Settings, client: Client, connection: Connection[Any]) -> int:
    """Messages of the log that no drain has read, if its stream has no other messages."""
    state = await log_state(client, settings.dlq_stream, settings.subjects.log)
    drained = connection.execute(
        "SELECT last_sequence FROM drain_checkpoints WHERE stream = %s", [state.stream]
    ).fetchone()
    after = drained[0] if drained else 0
    return 0 if state.is_shared else max(state.last_sequence - after, 0)


async def _consumer(client: Client, stream: str, durable: str) -> tuple[ConsumerInfo, int]:
    """The consumer, and the first sequence that it may have handled."""
    js = client.jetstream()
    info = await js.consumer_info(stream, durable)
    about = await js.stream_info(stream)
    if not keeps_handled(about.config):
        raise NoSuccessesError(
            f"stream {stream} deletes events that were handled (retention"
            f" {about.config.retention}), so none can be read"
        )
    if info.config.ack_policy == AckPolicy.NONE:
        raise NoSuccessesError(f"{stream}/{durable} acknowledges nothing (ack policy none)")
    if floor_of(info) == 0:
        raise NoSuccessesError(f"{stream}/{durable} has not acknowledged its first event yet")
    return info, max(about.state.first_seq, start_of(info))


async def _spread(
    client: Client, info: ConsumerInfo, first: int, sampling: Sampling
) -> AsyncIterator[StoredMessage]:
    """About twice the wanted number of messages of the consumer's filters, spread evenly up to its
    acknowledgement floor.
    """
    low, high = sampling.within or (first, floor_of(info))
    at, last = max(low, first), min(high, floor_of(info))
    filters = [sampling.subject] if sampling.subject else filters_of(info)
    chance = None if sampling.seed is None else random.Random(sampling.seed)  # noqa: S311  (a sample)
    left, count, size = 2 * sampling.count, 0, 0
    while at <= last and left > 0:
        step = max((last - at + 1) // left, 1)
        begin = at + (chance.randrange(step) if chance else 0)
        nexts = [
            message
            for each in filters
            if (message := await stored_message(client, info.stream_name, begin, each))
        ]
        stored = min(nexts, key=lambda message: message.sequence, default=None)
        if stored is None or stored.sequence > last:
            return
        yield stored
        count, size = count + 1, size + len(stored.data)
        at = max(at + step, stored.sequence + 1)
        left = min(left - 1, int((sampling.most_bytes - size) / max(size / count, 1)))


def _without_failures(
    connection: Connection[Any], stream: str, durable: str, events: Sequence[StoredMessage]
) -> list[StoredMessage]:
    """The events that are no failure of this consumer, as far as they are drained."""
    keys = [_failure_id(stream, durable, each) for each in events]
    failed = {
        failure
        for (failure,) in connection.execute(
            "SELECT id::text FROM failed_events WHERE id = ANY(%s::uuid[])", [keys]
        )
    }
    return [each for key, each in zip(keys, events, strict=True) if key not in failed]


def _failure_id(stream: str, durable: str, event: StoredMessage) -> str:
    """The id of the failure that an event would have been."""
    return ids.failure_id(stream, event.sequence, event.timestamp_ns, durable)
