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
from pipelines.stores.erased import erased_messages
from pipelines.stores.lake import Lake

__all__ = ["Belongings", "belongings"]

_FOUND = ERASED_SCHEMA | {"failure_id": pl.String(), "payload_encoding": pl.String()}
_LIFE = pl.col("epoch").str.replace("#[0-9]+$", "").alias("life")


@dataclass(frozen=True, slots=True)
class Belongings:
    """Messages of a tenant, and those that were erased before and are still somewhere."""

    messages: pl.DataFrame  # ERASED_SCHEMA: the tenant's, wherever they are
    in_stream: Sequence[int]  # sequences of these and the erased that the stream has
    stream_letters: int  # how many of those are dead letters
    lake_rows: dict[str, int]  # the tenant's, by table
    objects: Sequence[str]  # bodies in the object store, by failure id

    def counts(self) -> dict[str, Any]:
        """How many there are of each kind."""
        return {
            "stream_dead_letters": self.stream_letters,
            "stream_case_events": len(self.in_stream) - self.stream_letters,
            "object_bodies": len(self.objects),
            **{f"lake_{name}": count for name, count in self.lake_rows.items()},
        }


async def belongings(
    settings: Settings,
    connection: Connection[Any],
    state: LogState,
    tenant: str,
    live: Callable[[], object] = lambda: None,
) -> Belongings:
    """Everything of a tenant, up to the last sequence of `state`; calls `live` now and then."""
    erased = erased_messages(connection)
    letters, events = await _in_stream(settings, state, tenant, erased, live)
    lake = await asyncio.to_thread(_in_lake, settings, tenant)
    known = pl.concat([letters, lake["dead_letters"], _in_postgres(connection, tenant)])
    failures = known.select("failure_id").unique()
    told = lake["case_events"].join(failures, on="failure_id", how="semi")
    is_told = events.join(failures, on="failure_id", how="semi")
    still = events.join(erased, on=list(ERASED_SCHEMA), how="semi")
    stream_events = pl.concat([is_told, still]).unique()
    return Belongings(
        messages=pl.concat([known, told, is_told]).select(*ERASED_SCHEMA).unique(),
        in_stream=sorted({*letters["dlq_sequence"], *stream_events["dlq_sequence"]}),
        stream_letters=letters.height,
        lake_rows={"dead_letters": lake["dead_letters"].height, "case_events": told.height},
        objects=pl.concat([letters, lake["dead_letters"]])
        .filter(pl.col("payload_encoding") == "object")["failure_id"]
        .unique()
        .to_list(),
    )


async def _in_stream(
    settings: Settings,
    state: LogState,
    tenant: str,
    erased: pl.DataFrame,
    live: Callable[[], object],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Dead letters that are the tenant's or erased, and all case events; _FOUND."""
    epoch = epoch_id(state.stream, state.created, 0)
    letters, events = [pl.DataFrame(schema=_FOUND)], [pl.DataFrame(schema=_FOUND)]

    def look(messages: list[LogMessage]) -> None:
        is_letter = [matches(settings.subjects.dead_letters, m.subject) for m in messages]
        sent = [m for m, is_one in zip(messages, is_letter, strict=True) if is_one]
        told = [m for m, is_one in zip(messages, is_letter, strict=True) if not is_one]
        decoded = decode_all(sent, epoch, state.stream).with_columns(_LIFE)
        is_erased = decoded.join(erased, on=list(ERASED_SCHEMA), how="semi")
        is_tenants = decoded.filter(pl.col("tenant_id") == tenant)
        letters.append(pl.concat([is_erased, is_tenants]).select(*_FOUND).unique())
        life = life_of(epoch)
        rows = [
            (life, m.sequence, m.published_at, decode_case_event(m, epoch).failure_id, None)
            for m in told
        ]
        events.append(pl.DataFrame(rows, schema=_FOUND, orient="row"))

    async with aclosing(_read(settings, state)) as batches:
        async for messages in batches:
            await asyncio.to_thread(look, messages)
            live()
    return pl.concat(letters), pl.concat(events)


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


def _in_lake(settings: Settings, tenant: str) -> dict[str, pl.DataFrame]:
    """The tenant's dead letters, and all case events; _FOUND."""
    lake, place = Lake(settings.lake), ["epoch", "dlq_sequence", "published_at", "failure_id"]
    letters = lake.table("dead_letters").select(
        [*place, "payload_encoding"], pl.col("tenant_id") == tenant
    )
    events = lake.table("case_events").select(place, pl.col("failure_id").is_not_null())
    events = events.with_columns(payload_encoding=pl.lit(None, pl.String))
    tables = {"dead_letters": letters, "case_events": events}
    return {name: frame.with_columns(_LIFE).select(*_FOUND) for name, frame in tables.items()}


def _in_postgres(connection: Connection[Any], tenant: str) -> pl.DataFrame:
    """The tenant's failures that came from a log; _FOUND."""
    rows = connection.execute(
        "SELECT regexp_replace(epoch, '#[0-9]+$', ''), dlq_sequence, published_at, id::text, NULL"
        " FROM failed_events WHERE tenant_id = left(%s, 255) AND dlq_sequence IS NOT NULL",
        [tenant],
    ).fetchall()
    return pl.DataFrame(rows, schema=_FOUND, orient="row")
