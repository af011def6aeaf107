"""FastStream with a batch subscriber, and psycopg's executemany for each batch."""

import asyncio
from typing import Any

import psycopg
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import AckPolicy, ConsumerConfig
from rows import INSERT, Task, row_of, stopwatch, task

_BATCH = 1_000


async def run(task: Task) -> None:
    """Store batches until all rows are there; FastStream acknowledges after the handler."""
    broker = NatsBroker(task.nats_url, logger=None)
    connection = await psycopg.AsyncConnection.connect(task.dsn, autocommit=True)
    stored, all_stored = 0, asyncio.Event()

    @broker.subscriber(
        task.subject,
        stream=JStream(task.stream, declare=False),
        durable="faststream",
        pull_sub=PullSub(batch_size=_BATCH, timeout=1, batch=True),
        config=ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=4 * _BATCH),
    )
    async def store(letters: list[dict[str, Any]]) -> None:
        nonlocal stored
        async with connection.transaction(), connection.cursor() as cursor:
            await cursor.executemany(INSERT, [row_of(letter) for letter in letters])
        stored += len(letters)
        if stored >= task.rows:
            all_stored.set()

    stop = stopwatch()
    async with broker:
        await broker.start()
        await all_stored.wait()
        stop(stored)
    await connection.close()


asyncio.run(run(task()))
