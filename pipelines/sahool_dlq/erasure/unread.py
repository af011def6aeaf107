"""Finds dead letters without a tenant whose body was not decoded; only reads.

Bodies in the object store and in `failed_payloads` are read here. Unreadable ones may belong to any
tenant.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from typing import Any

import polars as pl
from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.decoding.opened import Opened
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.event import event_ids
from sahool_dlq.deadletter.headers import Headers
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.rows import ERASED_SCHEMA
from sahool_dlq.deadletter.sanitize import parse_json
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.bodies import object_messages
from sahool_dlq.jetstream.streams import BODIES_BUCKET
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.tombstones import LIFE

__all__ = ["FOUND", "IS_DOUBTFUL", "doubtful_rows", "in_kept_payloads", "in_objects"]

FOUND = ERASED_SCHEMA | {"failure_id": pl.String(), "payload_encoding": pl.String()}
"""A message, and the location of its body."""

_COLUMNS = ["epoch", "dlq_sequence", "published_at", "failure_id", "payload_encoding"]
_IS_TEXT = pl.col("original_data").str.starts_with('{"raw_data"')  # of what was no JSON
_IS_STORED_DOUBT = pl.col("tenant_id").is_null() & (
    _IS_TEXT | pl.col("payload_encoding").is_in(["text", "object"])
)
IS_DOUBTFUL = _IS_STORED_DOUBT | (
    pl.col("tenant_id").is_null() & (pl.col("payload_encoding") == "base64")
)
"""Whether a decoded dead letter may belong to any tenant. The sinks store no base64 bodies."""

_KEPT = """
SELECT f.epoch, p.failure_id::text, p.subject, p.dlq_sequence, p.timestamp_ns, p.data
FROM failed_payloads p JOIN failed_events f ON f.id = p.failure_id
WHERE f.tenant_id IS NULL AND f.epoch IS NOT NULL ORDER BY f.epoch, p.dlq_sequence
"""
_AT_ONCE = 50  # of them: each may have a megabyte


def doubtful_rows(lake: Lake, connection: Connection[Any]) -> pl.DataFrame:
    """Rows of lake and PostgreSQL that may belong to any tenant; FOUND."""
    in_lake = lake.table("dead_letters").select(_COLUMNS, _IS_STORED_DOUBT).with_columns(LIFE)
    rows = connection.execute(
        "SELECT regexp_replace(epoch, '#[0-9]+$', ''), dlq_sequence, published_at, id::text,"
        " payload_encoding FROM failed_events WHERE tenant_id IS NULL AND dlq_sequence IS NOT NULL"
        " AND (payload_encoding IN ('text', 'object') OR original_data ? 'raw_data')"
    ).fetchall()
    in_postgres = pl.DataFrame(rows, schema=FOUND, orient="row")
    return pl.concat([in_lake.select(*FOUND), in_postgres])


def in_kept_payloads(
    connection: Connection[Any], decoders: Decoders, tenant: str, live: Callable[[], object]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Raw dead letters without a tenant's id: those of the tenant, and the doubtful ones; FOUND."""
    owned, doubtful = [pl.DataFrame(schema=FOUND)], [pl.DataFrame(schema=FOUND)]
    with connection.transaction(), connection.cursor("unread") as cursor:
        cursor.itersize = _AT_ONCE
        for epoch, failures, messages in _batches(cursor.execute(_KEPT)):
            decoded = decode_all(messages, epoch, epoch, decoders).with_columns(
                LIFE, failure_id=pl.Series(failures)
            )
            owned.append(decoded.filter(pl.col("tenant_id") == tenant).select(*FOUND))
            doubtful.append(decoded.filter(IS_DOUBTFUL).select(*FOUND))
            live()
    return pl.concat(owned), pl.concat(doubtful)


def _batches(rows: Any) -> Iterator[tuple[str, list[str], list[LogMessage]]]:
    """Rows of _KEPT, some of one epoch at a time, in the order of their sequences."""
    for epoch, of_epoch in groupby(rows, key=lambda row: row[0]):
        failures: list[str] = []
        messages: list[LogMessage] = []
        for _, failure, *message in of_epoch:
            failures.append(failure)
            messages.append(LogMessage(*message))
            if len(messages) == _AT_ONCE:
                yield epoch, failures, messages
                failures, messages = [], []
        if messages:
            yield epoch, failures, messages


async def in_objects(
    client: Client,
    connection: Connection[Any],
    decoders: Decoders,
    doubtful: pl.DataFrame,
    tenant: str,
    live: Callable[[], object],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read bodies in the object store: the tenant's, and those that stay doubtful; FOUND."""
    is_object = pl.col("payload_encoding") == "object"
    owned, readable = list[str](), list[str]()
    for failure in doubtful.filter(is_object)["failure_id"].unique(maintain_order=True):
        subject, headers = _described(connection, failure)
        opened = partial(decoders.opened, subject=subject, headers=headers)
        ids = await _ids_in_object(client, failure, opened)
        if ids is not None:
            (owned if ids.get("tenant_id") == tenant else readable).append(failure)
        live()
    is_owned = is_object & pl.col("failure_id").is_in(owned)
    is_settled = is_object & pl.col("failure_id").is_in([*owned, *readable])
    return doubtful.filter(is_owned), doubtful.filter(~is_settled)


def _described(connection: Connection[Any], failure: str) -> tuple[str, Headers]:
    """Subject and headers of a failure's event, which say how its body is encoded."""
    row = connection.execute(
        "SELECT original_subject, original_headers FROM failed_events WHERE id = %s", [failure]
    ).fetchone()
    return row or ("", {})


async def _ids_in_object(
    client: Client, failure: str, opened: Callable[[bytes], Opened]
) -> dict[str, str] | None:
    """The ids in a body in the object store; None if it cannot be read."""
    try:
        stored = await object_messages(client, BODIES_BUCKET, failure)
        if not stored:
            return {}  # there is none any more
        body = b"".join(chunk.data for chunk in stored[1:])
        return event_ids(await asyncio.to_thread(lambda: parse_json(opened(body).json)), {})
    except (ValueError, NotPermittedError):
        return None
