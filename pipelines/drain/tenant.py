"""Where the log, the lake and Postgres have messages of one tenant; only looks.

A dead letter is a tenant's where decoding says so, as it does for the sinks. A case event is where
the failure that it is about is the tenant's.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import polars as pl
from psycopg import Connection

from pipelines.deadletter.bulk import decode_all
from pipelines.deadletter.case_events import decode_case_event
from pipelines.deadletter.frames import ERASED_SCHEMA
from pipelines.deadletter.message import LogMessage
from pipelines.deadletter.subjects import matches
from pipelines.drain.compare import life_of
from pipelines.drain.epochs import epoch_id
from pipelines.errors import ServerUnavailableError
from pipelines.jetstream.connection import connected
from pipelines.jetstream.reader import LogReader, LogState
from pipelines.settings import Settings
from pipelines.stores.erased import LIFE, erased_messages
from pipelines.stores.lake import Lake

__all__ = ["Belongings", "belongings"]

_FOUND = ERASED_SCHEMA | {"failure_id": pl.String(), "payload_encoding": pl.String()}


@dataclass(frozen=True, slots=True)
class Belongings:
    """What there is of a tenant outside of Postgres."""

    messages: pl.DataFrame  # ERASED_SCHEMA: the tenant's, wherever they are
    in_stream: Sequence[int]  # sequences of these, and of whatever else was erased, in the stream
    objects: Sequence[str]  # bodies in the object store, by failure id
    counts: dict[str, Any]  # the tenant's messages: stream_dead_letters, …, lake_case_events


async def belongings(
    settings: Settings,
    connection: Connection[Any],
    state: LogState,
    tenant: str,
    live: Callable[[], object] = lambda: None,
) -> Belongings:
    """Everything of a tenant, up to the last sequence of `state`; calls `live` now and then."""
    erased = erased_messages(connection)
    letters, events, left = await _in_stream(settings, state, tenant, erased, live)
    lake = Lake(settings.lake)
    is_tenants = pl.col("tenant_id") == tenant
    stored = await asyncio.to_thread(_in_lake, lake, "dead_letters", is_tenants)
    known = pl.concat([letters, stored, _in_postgres(connection, tenant)])
    failures = known.select("failure_id").unique()
    is_about = pl.col("failure_id").is_in(failures["failure_id"].implode())
    told = await asyncio.to_thread(_in_lake, lake, "case_events", is_about)
    events = events.join(failures, on="failure_id", how="semi")
    is_object = pl.col("payload_encoding") == "object"
    objects = known.filter(is_object)["failure_id"].unique().to_list()
    return Belongings(
        messages=pl.concat([known, told, events]).select(*ERASED_SCHEMA).unique(),
        in_stream=sorted({*letters["dlq_sequence"], *events["dlq_sequence"], *left}),
        objects=objects,
        counts={
            "stream_dead_letters": letters.height,
            "stream_case_events": events.height,
            "object_bodies": len(objects),
            "lake_dead_letters": stored.height,
            "lake_case_events": told.height,
        },
    )


async def _in_stream(
    settings: Settings,
    state: LogState,
    tenant: str,
    erased: pl.DataFrame,
    live: Callable[[], object],
) -> tuple[pl.DataFrame, pl.DataFrame, list[int]]:
    """The tenant's dead letters and all case events (_FOUND); sequences of what was erased."""
    epoch = epoch_id(state.stream, state.created, 0)
    life, left = life_of(epoch), list[int]()
    letters, events = [pl.DataFrame(schema=_FOUND)], [pl.DataFrame(schema=_FOUND)]

    def look(messages: list[LogMessage]) -> None:
        is_letter = [matches(settings.subjects.dead_letters, m.subject) for m in messages]
        sent = [m for m, is_one in zip(messages, is_letter, strict=True) if is_one]
        told = [m for m, is_one in zip(messages, is_letter, strict=True) if not is_one]
        decoded = decode_all(sent, epoch, state.stream).with_columns(LIFE)
        letters.append(decoded.filter(pl.col("tenant_id") == tenant).select(*_FOUND))
        rows = [
            (life, m.sequence, m.published_at, decode_case_event(m, epoch).failure_id, None)
            for m in told
        ]
        events.append(pl.DataFrame(rows, schema=_FOUND, orient="row"))
        places = pl.concat([frame.select(*ERASED_SCHEMA) for frame in (decoded, events[-1])])
        left.extend(places.join(erased, on=list(ERASED_SCHEMA), how="semi")["dlq_sequence"])

    async with aclosing(_read(settings, state)) as batches:
        async for messages in batches:
            await asyncio.to_thread(look, messages)
            live()
    return pl.concat(letters), pl.concat(events), left


async def _read(settings: Settings, state: LogState) -> AsyncGenerator[list[LogMessage], None]:
    """The log; a message that ends the client's reading is read past its parser, as in a drain."""
    reached, is_suspect = state.first_sequence - 1, False
    while reached < state.last_sequence:
        before = reached
        async with connected(settings.nats_url, settings.nats_creds, "dlq erase") as client:
            reader = LogReader(client, state.stream, settings.subjects.log)
            await reader.seek(reached + 1, is_suspect=is_suspect)
            try:
                while messages := await reader.read(
                    settings.drain_batch_messages, settings.drain_batch_bytes, state.last_sequence
                ):
                    reached = messages[-1].sequence
                    yield messages
                return
            except ServerUnavailableError:
                if is_suspect and reached == before:
                    raise
                is_suspect = True
            finally:
                await reader.close()


def _in_lake(lake: Lake, table: str, is_wanted: pl.Expr) -> pl.DataFrame:
    """The rows of a table that are wanted; _FOUND."""
    columns = ["epoch", "dlq_sequence", "published_at", "failure_id"]
    if table == "dead_letters":
        columns.append("payload_encoding")
    rows = lake.table(table).select(columns, is_wanted).with_columns(LIFE)
    return pl.concat([pl.DataFrame(schema=_FOUND), rows.drop("epoch")], how="diagonal")


def _in_postgres(connection: Connection[Any], tenant: str) -> pl.DataFrame:
    """The tenant's failures that came from a log; _FOUND."""
    rows = connection.execute(
        "SELECT regexp_replace(epoch, '#[0-9]+$', ''), dlq_sequence, published_at, id::text, NULL"
        " FROM failed_events WHERE tenant_id = left(%s, 255) AND dlq_sequence IS NOT NULL",
        [tenant],
    ).fetchall()
    return pl.DataFrame(rows, schema=_FOUND, orient="row")
