"""Events that a consumer has handled, from the events' stream, as long as it has them."""

from collections.abc import AsyncIterator
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.api import ConsumerInfo
from nats.js.errors import APIError, NotFoundError
from psycopg import Connection

from sahool_dlq.deadletter import ids
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.consumers import parts_of
from sahool_dlq.jetstream.handled import filters_of, floor_of, start_of, was_for
from sahool_dlq.jetstream.stored import StoredMessage, stored_message
from sahool_dlq.reproduce.raw import Place

__all__ = ["NoSuccessesError", "sampled_successes"]


class NoSuccessesError(Exception):
    """There are no successes to read; the message says why."""


async def sampled_successes(
    client: Client, connection: Connection[Any], address: str, wanted: int
) -> list[Place]:
    """Up to `wanted` events that the consumer `<stream>/<durable>` has handled, and that never
    failed.

    They are spread evenly over the whole stream, and are always the same ones. Raises
    NoSuccessesError if the consumer or its stream cannot be read, and ServerUnavailableError if
    NATS does not answer.
    """
    parts = parts_of(address)
    if parts is None:
        raise NoSuccessesError(f"{address} is not a consumer")
    stream, durable = parts
    js = client.jetstream()
    try:
        info = await js.consumer_info(stream, durable)
        first = max((await js.stream_info(stream)).state.first_seq, start_of(info))
        # Of these some may have failed.
        handled = [
            place
            async for stored in _spread(client, info, first, 2 * wanted)
            if (place := _handled(info, stored))
        ]
    except NotFoundError:
        raise NoSuccessesError(f"there is no consumer {address} any more") from None
    except (APIError, nats.errors.Error, TimeoutError) as error:
        said = f"Stream {stream} cannot be read ({error!r}): try again."
        raise ServerUnavailableError(said) from error
    failed = {
        failure
        for (failure,) in connection.execute(
            "SELECT id::text FROM failed_events WHERE id = ANY(%s::uuid[])",
            [[place.failure_id for place in handled]],
        )
    }
    good = [place for place in handled if place.failure_id not in failed]
    step = max(len(good) / wanted, 1)
    return [good[int(n * step)] for n in range(min(wanted, len(good)))]


async def _spread(
    client: Client, info: ConsumerInfo, first: int, count: int
) -> AsyncIterator[StoredMessage]:
    """About `count` messages of the consumer's filters, spread evenly up to its acknowledgement
    floor.
    """
    floor = floor_of(info)
    filters = filters_of(info)
    at, left = first, count
    while at <= floor and left > 0:
        step = max((floor - at + 1) // left, 1)
        nexts = [
            message
            for each in filters
            if (message := await stored_message(client, info.stream_name, at, each))
        ]
        stored = min(nexts, key=lambda message: message.sequence, default=None)
        if stored is None or stored.sequence > floor:
            return
        yield stored
        at, left = max(at + step, stored.sequence + 1), left - 1


def _handled(info: ConsumerInfo, stored: StoredMessage) -> Place | None:
    """The position of an event that this consumer has handled; None if it was not for it.

    The id is that of the failure that it would have been.
    """
    if not was_for(info, stored):
        return None
    stream, durable = info.stream_name, info.name
    failure = ids.failure_id(stream, stored.sequence, stored.timestamp_ns, durable)
    return Place(failure, stream, stored.sequence, durable, None, None)
