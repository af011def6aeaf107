"""The already known events that a consumer gave up: their sequences in its stream."""

import asyncio
from contextlib import suppress

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy, StreamInfo

from sahool_dlq.bridge.advisory import MAX_DELIVERIES, read_advisory
from sahool_dlq.connections import open_postgres
from sahool_dlq.jetstream.api import domain_of
from sahool_dlq.jetstream.pull import Puller, delivery_of
from sahool_dlq.jetstream.streams import GIVEN_UP
from sahool_dlq.settings import Settings


async def told_by_advisories(
    client: Client, advisories: str, stream: StreamInfo, consumer: ConsumerInfo
) -> set[int]:
    """Known from stored advisories, for events that the stream may still have."""
    js = client.jetstream()
    reader = await js.add_consumer(
        advisories,
        ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.ALL,
            filter_subject=f"{GIVEN_UP}.{consumer.stream_name}.{consumer.name}",
            inactive_threshold=60,
            mem_storage=True,
        ),
    )
    puller = Puller(client, advisories, reader.name)
    await puller.open()
    told = set()
    try:
        for _ in range(0, reader.num_pending or 0, 10_000):
            async for msg in puller.pull(10_000):
                with suppress(ValueError):
                    advisory = read_advisory(msg.data, domain_of(client))
                    # An earlier one is about a stream that this one has replaced.
                    if stream.created is None or advisory.timestamp >= stream.created:
                        told.add(advisory.stream_seq)
                if not delivery_of(msg).pending:
                    break
    finally:
        await puller.close()
        await js.delete_consumer(advisories, reader.name)
    return {sequence for sequence in told if sequence >= stream.state.first_seq}


async def told_by_database(
    settings: Settings, stream: StreamInfo, consumer: ConsumerInfo
) -> set[int]:
    """Known from drained failures, for events that the stream may still have."""

    def ask() -> set[int]:
        with open_postgres(settings) as connection:
            rows = connection.execute(
                "SELECT original_sequence FROM failed_events WHERE original_stream = %s"
                " AND consumer_name = %s AND dlq_reason = %s"
                " AND original_sequence >= %s AND dlq_timestamp >= %s",
                [
                    consumer.stream_name,
                    consumer.name,
                    MAX_DELIVERIES,
                    stream.state.first_seq,
                    stream.created,
                ],
            )
            return {sequence for (sequence,) in rows}

    return await asyncio.to_thread(ask)
