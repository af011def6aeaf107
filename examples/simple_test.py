"""Everything in a few seconds: three events, one handler, and what happens to each event.

pip install 'sahool-dlq[embedded]'     # brings a NATS server; nothing else is needed
python simple_test.py

One event succeeds. The other two fail three times each (one call and two retries), and arrive in
the dead-letter queue. The last lines count the calls of the handlers.
"""

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import (
    AnalysisEvent,
    ConsumerContext,
    DLQAction,
    DLQConsumerConfig,
    DLQEvent,
    NATSConfig,
    NATSConsumerConfig,
    NATSPublisher,
    ProcessingResult,
    start_consumer,
    start_dlq_consumer,
)

FIELDS = ["field-1", "field-in-the-clouds", "field-off-the-map"]


async def run(url: str) -> tuple[list[str], Counter[str], list[str]]:
    """Fields handled, failed calls of each other field, and fields found in the DLQ."""
    handled: list[str] = []
    failed: Counter[str] = Counter()
    dead: list[str] = []
    ended: asyncio.Queue[str] = asyncio.Queue()  # events that succeeded or reached the DLQ

    async def handle(context: ConsumerContext) -> ProcessingResult:
        field = json.loads(context.data)["field_id"]
        if field == "field-1":
            handled.append(field)
            ended.put_nowait(field)
            return ProcessingResult.SUCCESS
        failed[field] += 1
        print(f"{field}: call {context.attempt + 1} of {context.max_retries + 1} fails")
        if field == "field-in-the-clouds":
            return ProcessingResult.RETRY
        raise LookupError(f"no map shows {field}")

    async def inspect(event: DLQEvent) -> DLQAction:
        field = event.field_id or "?"
        print(f"{field}: dead letter, {event.error_type}: {event.error_message}")
        dead.append(field)
        ended.put_nowait(field)
        return DLQAction.STORE

    publisher = NATSPublisher(NATSConfig(servers=[url]))
    assert await publisher.connect()
    for field in FIELDS:
        event = AnalysisEvent(event_type="ndvi.computed", source_service="demo", field_id=field)
        assert await publisher.publish_analysis_event(event)
    await publisher.close()

    settings = NATSConsumerConfig(servers=[url], max_retries=2, retry_delay_seconds=0.2)
    consumer = await start_consumer(handle, settings)
    monitor = await start_dlq_consumer(inspect, DLQConsumerConfig(servers=[url]))
    async with asyncio.timeout(60):
        for _ in FIELDS:
            await ended.get()
    await monitor.close()
    await consumer.close()
    return handled, failed, dead


def main() -> None:
    """Run on a separate NATS server, and count."""
    with tempfile.TemporaryDirectory() as home, NatsServer(Path(home)) as server:
        handled, failed, dead = asyncio.run(run(server.url))
    [calls] = set(failed.values())  # of each event that failed: all as many
    print()
    print(f"Successful processes: {len(handled)}")
    print(f"Retry attempts: {failed.total()} ({len(failed)} retries × {calls} attempts)")
    print(f"DLQ events: {len(dead)}")


if __name__ == "__main__":
    main()
