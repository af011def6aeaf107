"""nats-sinks with a PostgreSQL sink of its extension point: executemany for each batch."""

import asyncio
import json
from collections.abc import Sequence

import psycopg
from nats_sinks import JetStreamSinkRunner
from nats_sinks.core.config import ConsumerManagementConfig, DeliveryConfig
from nats_sinks.core.envelope import NatsEnvelope
from rows import INSERT, Task, row_of, stopwatch, task

_BATCH = 1_000


class PostgresSink:
    """The `Sink` protocol: returns from `write_batch` once the batch is committed."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.stored = 0
        self.all_stored = asyncio.Event()

    async def start(self) -> None:
        """Connect."""
        self._connection = await psycopg.AsyncConnection.connect(self._task.dsn, autocommit=True)

    async def write_batch(self, messages: Sequence[NatsEnvelope]) -> None:
        """Store one batch in one transaction."""
        rows = [row_of(json.loads(message.data)) for message in messages]
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            await cursor.executemany(INSERT, rows)
        self.stored += len(rows)
        if self.stored >= self._task.rows:
            self.all_stored.set()

    async def stop(self) -> None:
        """Disconnect."""
        await self._connection.close()


async def run(task: Task) -> None:
    """Run until all rows are stored."""
    sink = PostgresSink(task)
    runner = JetStreamSinkRunner(
        nats_url=task.nats_url,
        stream=task.stream,
        consumer="nats_sinks",
        subject=task.subject,
        sink=sink,
        delivery=DeliveryConfig(batch_size=_BATCH),
        consumer_management=ConsumerManagementConfig(max_ack_pending=4 * _BATCH),
    )
    stop = stopwatch()
    running = asyncio.create_task(runner.run())
    stored = asyncio.create_task(sink.all_stored.wait())
    await asyncio.wait({running, stored}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    stop(sink.stored)
    runner.request_stop()
    await running


asyncio.run(run(task()))
