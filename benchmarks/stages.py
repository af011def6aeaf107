"""The CPU time per row in each stage of the drain, one stage after the other."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import nats
import polars as pl
from rich.table import Table

from measure import console
from sahool_dlq.deadletter.assemble import dead_letter_frame
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.drain.gc_pause import collecting_rarely
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.postgres.database import database
from sahool_dlq.stores.postgres.failed_rows import FOLDED_SCHEMA, copy_rows
from servers import Platform, reset


def stages(platform: Platform) -> dict[str, float]:
    """CPU µs per row in each stage, over the whole log, batch by batch as the drain reads it."""
    settings = platform.settings
    reset(platform)
    spent: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        spent[name] = spent.get(name, 0) + time.process_time() - started

    with stage("read"):
        batches = asyncio.run(_read(platform))
    rules = settings.rules
    redactor = settings.redactor(rules)
    table = Lake(settings.lake).table("dead_letters")
    with database(platform.dsn) as connection, collecting_rarely():
        for messages in batches:
            with stage("decode"):
                letters = decode_all(messages, "bench#0", settings.dlq_stream)
            with stage("redact"):
                redacted = redactor.redact_frame(letters)
            with stage("fingerprint"):
                add_fingerprint(redacted, rules.grouping)
            frame = dead_letter_frame(letters, redactor, rules.grouping)
            with stage("write Parquet, commit"):
                table.append(frame, "bench#0", messages[-1].sequence)
            rows = frame.with_columns(
                pl.lit(None, dtype).alias(name) for name, dtype in FOLDED_SCHEMA.items()
            ).with_columns(
                status=pl.lit("pending"),
                redrive_count=pl.lit(0),
                alert_sent=pl.lit(value=False),
                opening=pl.lit(1),
                seen_count=pl.lit(1),
            )
            with stage("encode and COPY"):
                copy_rows(connection, rows)
    count = sum(map(len, batches))
    return {name: 1e6 * seconds / count for name, seconds in spent.items()}


def print_stages(platform: Platform) -> None:
    """Print the stages as a table, with their sum."""
    found = stages(platform)
    table = Table("stage of the drain", "CPU µs/row", box=None)
    table.columns[1].justify = "right"
    for name, cost in [*found.items(), ("together", sum(found.values()))]:
        table.add_row(name, f"{cost:.1f}")
    console.print(table)
    console.print()


async def _read(platform: Platform) -> list[list[LogMessage]]:
    settings = platform.settings
    batches = []
    async with await nats.connect(settings.nats_url.get_secret_value()) as client:
        reader = LogReader(client, settings.dlq_stream, settings.subjects.log)
        last = (await reader.state()).last_sequence
        await reader.seek(1)
        size = settings.drain_batch_messages, settings.drain_batch_bytes
        while messages := await reader.read(*size, last):
            batches.append(messages)
        await reader.close()
    return batches
