"""The consumers' counters: the latest of each process, sampled by every drain."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import polars as pl
from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.deadletter.message import LogMessage, time_of_ns
from sahool_dlq.deadletter.record import TEXT_LIMITS
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.rows import SERVICE_TOTALS_SCHEMA
from sahool_dlq.deadletter.sanitize import clean_text, parse_time
from sahool_dlq.drain.batch import kept_version
from sahool_dlq.jetstream.latest import latest_messages
from sahool_dlq.jetstream.pull import delivery_of
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.stores.lake.table import LakeTable

logger = logging.getLogger(__name__)

_SENSELESS = (
    ValueError,
    ArithmeticError,  # infinity
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
_PART_MESSAGES, _PART_BYTES = 10_000, 20 << 20
_STARTED_AT = [*SERVICE_TOTALS_SCHEMA].index("started_at")
_COUNTERS = ("handled", "succeeded", "retried", "dead_lettered", "skipped")


async def read_totals(
    client: Client, stream: str, subject: str, redactor: Redactor, after: int | None = None
) -> pl.DataFrame:
    """The last message of every consumer's totals subject; SERVICE_TOTALS_SCHEMA.

    With `after`, a sequence, also the last message of each process that published after it: a
    process that has ended since, or another replica. Empty if there is no such stream; an invalid
    message is logged and left out.
    """
    rows: dict[tuple[str, object], list[Any]] = {}

    def take(subject: str, data: bytes, sequence: int, timestamp_ns: int) -> None:
        try:
            row = _row(data, sequence, timestamp_ns, redactor)
        except _SENSELESS as error:
            logger.warning("Totals on %s are not valid: %r", subject, error)
        else:
            rows[subject, row[_STARTED_AT]] = row

    if after is not None:
        async for found in _since(client, stream, subject, after):
            take(found.subject, found.data, found.sequence, found.timestamp_ns)
    async with aclosing(latest_messages(client, stream, subject)) as latest:
        async for msg in latest:
            delivery = delivery_of(msg)
            take(msg.subject, msg.data, delivery.sequence, delivery.timestamp_ns)
    frame = pl.DataFrame([*rows.values()], schema=SERVICE_TOTALS_SCHEMA, orient="row")
    return frame.sort("totals_sequence")


async def _since(
    client: Client, stream: str, subject: str, after: int
) -> AsyncIterator[LogMessage]:
    last = (await client.jetstream().stream_info(stream)).state.last_seq
    reader = LogReader(client, stream, (subject,))
    await reader.seek(after + 1)
    try:
        while messages := await reader.read(_PART_MESSAGES, _PART_BYTES, last):
            for message in messages:
                yield message
    finally:
        await reader.close()


def store_totals(
    totals: pl.DataFrame,
    after: int | None,
    epoch: str,
    table: LakeTable,
    connection: Connection[Any],
) -> list[str]:
    """Add the samples that each sink does not have yet; the lake has those up to `after`.

    The lake is last, because its watermark says where the next drain reads. Returns the versions
    that are new to PostgreSQL, each as `ndvi 2.4`.
    """
    if totals.is_empty():
        return []
    columns = list(SERVICE_TOTALS_SCHEMA)
    versions = totals.select("service", "consumer_version").drop_nulls().unique().sort("service")
    appeared = connection.execute(
        "SELECT t.service || ' ' || t.version FROM unnest(%s::text[], %s::text[])"
        " AS t (service, version) WHERE NOT EXISTS (SELECT FROM service_totals s"
        " WHERE s.service = t.service AND s.consumer_version = t.version)",
        [list(column) for column in versions],
    ).fetchall()
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO service_totals ({', '.join(columns)})"  # noqa: S608  (our own names, bound values)
            f" VALUES ({', '.join(['%s'] * len(columns))}) ON CONFLICT DO NOTHING",
            totals.rows(),
        )
    new = totals.filter(pl.col("totals_sequence") > (after or 0))
    if not new.is_empty():
        table.append(new, epoch, new["totals_sequence"].item(-1))
    return [each for (each,) in appeared]


def _name(value: object) -> str:
    """A name that fits PostgreSQL's index."""
    return clean_text(str(value))[: TEXT_LIMITS["consumer_name"]]


def _row(data: bytes, sequence: int, timestamp_ns: int, redactor: Redactor) -> list[Any]:
    value = json.loads(data)
    counters = [int(value.get(name, 0)) for name in _COUNTERS]
    if not all(0 <= counter < 2**63 for counter in counters):
        raise ValueError("a counter is not a count of events")
    return [
        sequence,
        time_of_ns(timestamp_ns),
        _name(value["service"]),
        _name(value["consumer"]),
        parse_time(value["started_at"]),
        *counters,
        kept_version(value.get("consumer_version"), redactor),
    ]
