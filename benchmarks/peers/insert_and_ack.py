"""The simplest loop: fetch, INSERT each message, acknowledge it."""

import asyncio
import json

import nats
import psycopg
from nats.js.api import ConsumerConfig
from rows import INSERT, Task, row_of, stopwatch, task


async def run(task: Task) -> None:
    """Store and acknowledge one message after the other."""
    async with (
        await nats.connect(task.nats_url) as client,
        await psycopg.AsyncConnection.connect(task.dsn, autocommit=True) as connection,
    ):
        js = client.jetstream()
        stop = stopwatch()
        subscription = await js.pull_subscribe(
            task.subject, durable="insert_and_ack", stream=task.stream, config=ConsumerConfig()
        )
        stored = 0
        while stored < task.rows:
            for message in await subscription.fetch(min(100, task.rows - stored)):
                await connection.execute(INSERT, row_of(json.loads(message.data)))
                await message.ack()
                stored += 1
        stop(stored)
        await js.delete_consumer(task.stream, "insert_and_ack")


asyncio.run(run(task()))
