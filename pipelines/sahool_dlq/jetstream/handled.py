"""The events of a stream that a consumer has handled, as far as the server shows it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

import nats.errors
from nats.aio.client import Client
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    RetentionPolicy,
    StreamConfig,
)

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.headers import is_for_another
from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.headers import every_header
from sahool_dlq.jetstream.pull import Puller, PullStalledError, delivery_of
from sahool_dlq.jetstream.stored import StoredMessage

__all__ = ["filters_of", "floor_of", "keeps_handled", "read_stored", "start_of", "was_for"]

_BATCH = 1_000  # messages of one request
_BATCH_BYTES = 8_000_000
_IDLE_SECONDS = 30.0  # then the server removes the consumer: who reads may not delete consumers


def filters_of(info: ConsumerInfo) -> list[str]:
    """The subjects of a consumer."""
    return list(info.config.filter_subjects or [info.config.filter_subject or ">"])


def keeps_handled(config: StreamConfig) -> bool:
    """Whether a stream keeps events after they were handled."""
    return config.retention in (None, RetentionPolicy.LIMITS)


def start_of(info: ConsumerInfo) -> int:
    """The first sequence for this consumer, by its configuration."""
    return info.config.opt_start_seq or 1


def floor_of(info: ConsumerInfo) -> int:
    """The sequence up to which it has acknowledged everything; 0 if nothing."""
    return info.ack_floor.stream_seq if info.ack_floor else 0


def was_for(info: ConsumerInfo, stored: StoredMessage) -> bool:
    """Whether an event was for this consumer: not from before it, and no redrive for another."""
    if stored.sequence < start_of(info):
        return False
    if (since := _since(info)) is not None and time_of_ns(stored.timestamp_ns) < since:
        return False
    return not is_for_another(stored.headers, ids.consumer_address(info.stream_name, info.name))


def _since(info: ConsumerInfo) -> datetime | None:
    """The time from which it gets events, by its configuration; None if that does not matter."""
    match info.config.deliver_policy:
        case None | DeliverPolicy.ALL | DeliverPolicy.BY_START_SEQUENCE:
            return None
        case DeliverPolicy.BY_START_TIME:
            return info.config.opt_start_time
    return info.created  # what was there before it, it never got


async def read_stored(
    client: Client,
    stream: str,
    filters: list[str],
    since: int | datetime,
    until: int,
    *,
    is_headers_only: bool = False,
) -> AsyncGenerator[list[StoredMessage], None]:
    """The stored messages of some subjects in order, in parts, from `since` up to sequence `until`.

    With `is_headers_only` their data are left out. Raises
    ServerUnavailableError if the server stops answering.
    """
    js, at = client.jetstream(), "the first"
    start = {"opt_start_time": since} if isinstance(since, datetime) else {"opt_start_seq": since}
    policy = "by_start_time" if isinstance(since, datetime) else "by_start_sequence"
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy(policy),
        filter_subjects=filters,
        headers_only=is_headers_only,
        inactive_threshold=_IDLE_SECONDS,
        mem_storage=True,
        **start,
    )
    info = await js.add_consumer(stream, config)
    puller = Puller(client, stream, info.name)
    most = max(_BATCH_BYTES, 2 * client.max_payload)
    await puller.open()
    try:
        is_over = False
        while not is_over:
            part: list[StoredMessage] = []
            is_over = True
            async with aclosing(puller.pull(_BATCH, max_bytes=most)) as arriving:
                async for msg in arriving:
                    place = delivery_of(msg)
                    if is_over := place.sequence > until:
                        break
                    headers = every_header(msg.headers)
                    part.append(
                        StoredMessage(
                            msg.subject, place.sequence, place.timestamp_ns, headers, msg.data
                        )
                    )
                    at = f"sequence {place.sequence}"
                    if is_over := place.pending == 0 or place.sequence == until:
                        break
            if part:
                yield part
    except (PullStalledError, nats.errors.Error) as error:
        raise ServerUnavailableError(
            f"Reading stream {stream} stalled after {at} ({error}): try again."
        ) from error
    finally:
        await puller.close()
