"""Checks every consumer for events that it gave up without an advisory that we have.

The server is made to check overdue events: then it sends the advisory as usual. Events that the
counters prove become dead letters, with the id that they would have from their advisory. For the
rest only the number is known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from typing import NamedTuple

from nats.aio.client import Client
from nats.js.api import ConsumerInfo, StreamInfo

from sahool_dlq.bridge.advisory import Advisory
from sahool_dlq.bridge.consumer_figures import (
    all_consumers,
    exhausted_at_least,
    is_late,
    nudge,
    proven,
)
from sahool_dlq.bridge.known_failures import told_by_advisories, told_by_database
from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.deadletter.subjects import Subjects, overlaps
from sahool_dlq.jetstream.handled import filters_of
from sahool_dlq.jetstream.stored import StoredMessage, stored_message
from sahool_dlq.settings import Settings

_EXACT_SINCE = (2, 14)
"""The first nats-server whose `num_redelivered` does not count removed events. Earlier values are
too high.
"""
_ON_ITS_WAY_SECONDS = 0.5  # time for a new advisory to be stored

Publish = Callable[[Advisory, StoredMessage], Awaitable[bool]]
"""Publishes the dead letter of an event; False if the bridge closes before."""


class Untold(NamedTuple):
    """Events that a consumer gave up, of which only the number is known."""

    stream: str
    consumer: str
    at_least: int


async def sample(
    client: Client,
    settings: Settings,
    advisories: str,
    own_streams: Collection[str],
    publish: Publish,
) -> list[Untold]:
    """Check every consumer once; `advisories` is the stream that stores advisories."""
    version = client.connected_server_version
    is_exact = (version.major, version.minor) >= _EXACT_SINCE
    untold = []
    is_nudged = False
    async for stream, consumer in all_consumers(client, own_streams):
        if _may_read_log(settings.subjects, stream, consumer):
            continue
        if is_late(consumer):
            await nudge(client, consumer)
            is_nudged = True
        if not is_exact or not (count := exhausted_at_least(consumer)):
            continue
        told = await told_by_advisories(client, advisories, stream, consumer)
        if count > len(told):
            await asyncio.sleep(_ON_ITS_WAY_SECONDS)
            told |= await told_by_advisories(client, advisories, stream, consumer)
            told |= await told_by_database(settings, stream, consumer)
        if count <= len(told):
            continue
        sequences = await proven(client, consumer)
        if sequences is None:
            untold.append(Untold(consumer.stream_name, consumer.name, count - len(told)))
            continue
        for sequence in (each for each in sequences if each not in told):
            event = await stored_message(client, consumer.stream_name, sequence)
            if event is None:
                continue
            stored_at = time_of_ns(event.timestamp_ns)
            advisory = Advisory.unsaid(consumer, sequence, stored_at, datetime.now(UTC))
            if not await publish(advisory, event):
                return untold
    if is_nudged:
        await asyncio.sleep(_ON_ITS_WAY_SECONDS)
    return untold


def _may_read_log(own: Subjects, stream: StreamInfo, consumer: ConsumerInfo) -> bool:
    """Whether it gets the log's own messages, which are also in its counters."""
    return all(
        any(overlaps(log, each) for log in own.log for each in subjects)
        for subjects in (filters_of(consumer), stream.config.subjects or [])
    )
