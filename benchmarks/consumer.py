"""The cost of `NATSConsumer` compared with a bare pull loop of nats-py: `make bench`.

All contestants take the same events from one stream, with a handler that does nothing, and
acknowledge each. A run counts only if the server has nothing left to deliver or to acknowledge.
"""

import argparse
import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

import nats
from nats.aio.client import Client
from nats.js.api import ConsumerConfig

from measure import Run, Stopwatch, cpu_each, interleaved, print_rates, print_ratios, rate, status
from sahool_dlq.events import ConsumerContext, NATSConsumer, NATSConsumerConfig, ProcessingResult
from sahool_dlq.jetstream.streams import ensure_streams
from servers import Platform, servers

_BODY = b'{"event_id": "e-%07d", "tenant_id": "t-7", "field_id": "f-31", "ndvi": 0.61}'
_BATCH = 500


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    count = arguments.events
    with servers() as platform:
        with status(f"Publishing {count:,} events"):
            asyncio.run(publish(platform, count))
        ours = partial(measure, platform, count)
        runs = interleaved(
            {
                "bare nats-py: fetch and ack": lambda: ours(bare),
                "NATSConsumer, one at a time": lambda: ours(partial(consumer, 1, 0)),
                "NATSConsumer, concurrent": lambda: ours(
                    partial(consumer, arguments.concurrency, 0)
                ),
                "NATSConsumer, concurrent, 5 % dead-lettered": lambda: ours(
                    partial(consumer, arguments.concurrency, 20)
                ),
            },
            arguments.repetitions,
        )
    print_rates("Events through a handler that does nothing, medians", runs)
    plain, single, concurrent, failing = runs.values()
    print_ratios(
        [
            ("NATSConsumer ÷ bare nats-py, concurrent", rate(concurrent) / rate(plain), "≥ 0.8"),
            ("NATSConsumer ÷ bare nats-py, one at a time", rate(single) / rate(plain), "≥ 0.8"),
            ("… with 5 % dead-lettered ÷ bare nats-py", rate(failing) / rate(plain), "≥ 0.5"),
            (
                "CPU per event, bare nats-py ÷ NATSConsumer, concurrent",
                cpu_each(plain) / cpu_each(concurrent),
                "≥ 0.8",
            ),
            ("… one at a time", cpu_each(plain) / cpu_each(single), "≥ 0.8"),
        ]
    )


async def publish(platform: Platform, count: int) -> None:
    """Publish `count` events to the stream."""
    async with await nats.connect(platform.settings.nats_url.get_secret_value()) as client:
        js = client.jetstream()
        await ensure_streams(js, platform.settings.stream_names)
        for first in range(0, count, 1_000):
            await asyncio.gather(
                *(
                    js.publish("sahool.analysis.ndvi_computed", _BODY % number)
                    for number in range(first, min(first + 1_000, count))
                )
            )


def measure(
    platform: Platform, count: int, work: Callable[[Platform, str, int], Awaitable[None]]
) -> Run:
    """Run one contestant on its own durable consumer; it must acknowledge all events."""

    async def run() -> Run:
        durable = f"bench-{uuid.uuid4().hex[:8]}"
        stopwatch = Stopwatch({"nats": platform.nats.pid})
        await work(platform, durable, count)
        done = stopwatch.run(count)
        async with await nats.connect(platform.settings.nats_url.get_secret_value()) as client:
            await check(client, platform.settings.events_stream, durable)
        return done

    return asyncio.run(run())


async def check(client: Client, stream: str, durable: str) -> None:
    """Fail if an event is left, then delete the consumer."""
    js = client.jetstream()
    async with asyncio.timeout(10):
        while True:
            info = await js.consumer_info(stream, durable)
            if not info.num_pending and not info.num_ack_pending:
                break
            await asyncio.sleep(0.05)
    await js.delete_consumer(stream, durable)


async def bare(platform: Platform, durable: str, count: int) -> None:
    """The simplest loop: fetch a batch, call the handler, acknowledge."""
    async with await nats.connect(platform.settings.nats_url.get_secret_value()) as client:
        subscription = await client.jetstream().pull_subscribe(
            "sahool.analysis.*",
            durable,
            platform.settings.events_stream,
            ConsumerConfig(max_ack_pending=10_000),
        )
        handled = 0
        while handled < count:
            for msg in await subscription.fetch(_BATCH, timeout=5):
                handled += 1
                await msg.ack()


async def consumer(
    concurrency: int, every: int, platform: Platform, durable: str, count: int
) -> None:
    """Our consumer; with `every`, one in so many events is dead-lettered."""
    handled = 0
    done = asyncio.Event()

    async def handle(_: ConsumerContext) -> ProcessingResult:
        nonlocal handled
        handled += 1
        if handled == count:
            done.set()
        if every and handled % every == 0:
            return ProcessingResult.DEAD_LETTER
        return ProcessingResult.SUCCESS

    service = NATSConsumer(
        NATSConsumerConfig(
            servers=[platform.settings.nats_url],
            name="bench",
            consumer_name=durable,
            max_concurrency=concurrency,
        )
    )
    assert await service.connect()
    await service.subscribe(handle)
    service.start_in_background()
    with contextlib.suppress(asyncio.CancelledError):
        await done.wait()
    await service.close()
    assert handled == count


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    main()
