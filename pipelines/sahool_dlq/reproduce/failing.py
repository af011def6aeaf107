"""The events of failures, from the events' stream, to be compared with those that succeeded."""

import asyncio
from typing import Any, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError, NotFoundError
from psycopg import Connection

from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.stored import StoredMessage
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.raw import AT_ONCE, PLACE, Place, stored_event
from sahool_dlq.stores.postgres.addressees import FAILED_AT

__all__ = ["FailingConsumer", "FailingEvent", "failing_consumers", "failing_events"]


class FailedPlace(NamedTuple):
    """A failure whose event is read, and the version of its consumer."""

    place: Place
    version: str | None


class FailingConsumer(NamedTuple):
    """The consumer `<stream>/<durable>` that failed, and some of its failures."""

    address: str
    failures: int  # that the selection has
    places: tuple[FailedPlace, ...]


class FailingEvent(NamedTuple):
    """The event of a failure, and the version of the consumer that failed on it."""

    event: StoredMessage
    version: str | None


def failing_consumers(
    connection: Connection[Any], selection: Selection, seed: int
) -> tuple[list[FailingConsumer], int]:
    """The consumers of a selection, open or not, those with most failures first.

    Of each at most `selection.limit` failures at random, but always the same with the same seed;
    redrives that failed again are left out. Also the number of failures of which the consumer is
    unknown. Raises as `Selection.condition` does.
    """
    sql, values = selection.condition()
    rows = connection.execute(
        f"SELECT * FROM (SELECT {PLACE}, f.consumer_version, {FAILED_AT} AS address,"  # noqa: S608  (our own names, bound values)
        f" count(*) OVER (PARTITION BY {FAILED_AT}),"
        f" row_number() OVER (PARTITION BY {FAILED_AT} ORDER BY md5(f.id::text || %s)) AS nth"
        f" FROM failed_events f WHERE f.root_failure_id IS NULL AND {sql}) AS each_consumer"
        " WHERE nth <= %s ORDER BY address, nth",
        [str(seed), *values, selection.limit],
    ).fetchall()
    width = len(Place._fields)
    found: dict[str, tuple[int, list[FailedPlace]]] = {}
    unknown = 0
    for *place, version, address, count, _ in rows:
        if address is None:
            unknown = count
        else:
            each = FailedPlace(Place(*place[:width]), version)
            found.setdefault(address, (count, []))[1].append(each)
    consumers = [
        FailingConsumer(address, count, tuple(places)) for address, (count, places) in found.items()
    ]
    return sorted(consumers, key=lambda each: (-each.failures, each.address)), unknown


async def failing_events(
    client: Client, consumer: FailingConsumer, most_bytes: int
) -> tuple[list[FailingEvent], int]:
    """The events of a consumer's failures that the stream still has, and how many it has lost.

    At most about `most_bytes` of bodies are read. Raises ServerUnavailableError, and
    NotPermittedError.
    """
    found: list[FailingEvent] = []
    size = read = 0
    try:
        for start in range(0, len(consumer.places), AT_ONCE):
            part = consumer.places[start : start + AT_ONCE]
            events = await asyncio.gather(*(stored_event(client, each.place) for each in part))
            for each, event in zip(part, events, strict=True):
                if event is not None:
                    found.append(FailingEvent(event, each.version))
                    size += len(event.data)
            read += len(part)
            if size > most_bytes:
                break
    except NotFoundError:  # the stream is gone
        return [], len(consumer.places)
    except (APIError, nats.errors.Error, TimeoutError) as error:
        said = f"The events cannot be read from their stream ({error!r}): try again."
        raise ServerUnavailableError(said) from error
    return found, read - len(found)
