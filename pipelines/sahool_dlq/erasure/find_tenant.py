"""Finds messages of one tenant in the log, the lake and PostgreSQL; only reads.

A dead letter belongs to a tenant if decoding says so, as in the sinks. A case event belongs to the
tenant of its failure.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import polars as pl
from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.connections import open_nats
from sahool_dlq.deadletter.case_events import decode_case_event
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.rows import ERASED_SCHEMA
from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.drain.lives import find_life
from sahool_dlq.erasure.unread import (
    FOUND,
    IS_DOUBTFUL,
    doubtful_rows,
    in_kept_payloads,
    in_objects,
)
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.settings import Settings
from sahool_dlq.stores.epoch_ids import life_of
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.tombstones import LIFE, erased_messages

__all__ = ["Belongings", "belongings"]

_PLACE = list(ERASED_SCHEMA)


@dataclass(frozen=True, slots=True)
class Belongings:
    """A tenant's data outside of PostgreSQL."""

    messages: pl.DataFrame  # ERASED_SCHEMA: the tenant's, wherever they are
    in_stream: Sequence[int]  # sequences of these, and of whatever else was erased, in the stream
    objects: Sequence[str]  # bodies in the object store, by failure id
    counts: dict[str, Any]  # stream_dead_letters, …, lake_case_events; unread_dead_letters


async def belongings(
    settings: Settings,
    client: Client,
    connection: Connection[Any],
    state: LogState,
    tenant: str,
    live: Callable[[], object] = lambda: None,
) -> Belongings:
    """All data of a tenant, up to the last sequence of `state`; calls `live` regularly."""
    erased, lake = erased_messages(connection), Lake(settings.lake)
    doubtful = await asyncio.to_thread(doubtful_rows, lake, connection)
    tables = {name: lake.table(name) for name in LOG_TABLES}
    reader = LogReader(client, state.stream, settings.subjects.log)
    state = await find_life(connection, reader, state, tables)
    decoders = settings.decoders(settings.rules)
    look = _Look(settings, decoders, state, tenant, erased, doubtful)
    async with aclosing(_read(settings, state)) as batches:
        async for messages in batches:
            await asyncio.to_thread(look.at, messages)
            live()
    letters, events = pl.concat(look.letters), pl.concat(look.events)
    stored = await asyncio.to_thread(_in_lake, lake, "dead_letters", pl.col("tenant_id") == tenant)
    kept, unread = await asyncio.to_thread(in_kept_payloads, connection, decoders, tenant, live)
    doubtful = pl.concat([doubtful, *look.doubtful]).join(
        pl.concat(look.readable), on=_PLACE, how="anti"
    )
    bodies, doubtful = await in_objects(
        client, connection, decoders, pl.concat([doubtful, unread]), tenant, live
    )
    in_stream = bodies.join(pl.concat(look.doubtful), on=_PLACE, how="semi").unique(_PLACE)
    letters = pl.concat([letters, in_stream])
    known = pl.concat([letters, stored, kept, bodies, _in_postgres(connection, tenant)])
    failures = known.select("failure_id").unique()
    is_about = pl.col("failure_id").is_in(failures["failure_id"].implode())
    told = await asyncio.to_thread(_in_lake, lake, "case_events", is_about)
    events = events.join(failures, on="failure_id", how="semi")
    is_object = pl.col("payload_encoding") == "object"
    objects = known.filter(is_object)["failure_id"].unique().to_list()
    unread = doubtful.unique(_PLACE).join(known, on=_PLACE, how="anti")
    return Belongings(
        messages=pl.concat([known, told, events]).select(_PLACE).unique(),
        in_stream=sorted({*letters["dlq_sequence"], *events["dlq_sequence"], *look.left}),
        objects=objects,
        counts={
            "stream_dead_letters": letters.height,
            "stream_case_events": events.height,
            "object_bodies": len(objects),
            "lake_dead_letters": stored.height,
            "lake_case_events": told.height,
            "unread_dead_letters": unread.join(erased, on=_PLACE, how="anti").height,
        },
    )


class _Look:
    """Reads the stream batch by batch; frames are FOUND."""

    def __init__(
        self,
        settings: Settings,
        decoders: Decoders,
        state: LogState,
        tenant: str,
        erased: pl.DataFrame,
        doubtful: pl.DataFrame,
    ) -> None:
        self._subjects = settings.subjects
        self._decoders = decoders
        self._stream = state.stream
        self._epoch = f"{state.life}#0"
        self._tenant = tenant
        self._erased = erased
        self._in_question = doubtful
        self.letters = [pl.DataFrame(schema=FOUND)]  # the tenant's
        self.doubtful = [pl.DataFrame(schema=FOUND)]
        self.readable = [pl.DataFrame(schema=ERASED_SCHEMA)]  # of those that are in question
        self.events = [pl.DataFrame(schema=FOUND)]  # all
        self.left: list[int] = []  # sequences of what was erased

    def at(self, messages: list[LogMessage]) -> None:
        """Check these messages."""
        life = life_of(self._epoch)
        is_letter = [matches(self._subjects.dead_letters, m.subject) for m in messages]
        sent = [m for m, is_one in zip(messages, is_letter, strict=True) if is_one]
        told = [m for m, is_one in zip(messages, is_letter, strict=True) if not is_one]
        decoded = decode_all(sent, self._epoch, self._stream, self._decoders).with_columns(LIFE)
        rows = [
            (life, m.sequence, m.published_at, decode_case_event(m, self._epoch).failure_id, None)
            for m in told
        ]
        events = pl.DataFrame(rows, schema=FOUND, orient="row")
        is_doubtful = decoded.select(is_one=IS_DOUBTFUL.fill_null(value=False))["is_one"]
        self.letters.append(decoded.filter(pl.col("tenant_id") == self._tenant).select(*FOUND))
        self.doubtful.append(decoded.filter(is_doubtful).select(*FOUND))
        read = decoded.filter(~is_doubtful).select(_PLACE)
        self.readable.append(read.join(self._in_question, on=_PLACE, how="semi"))
        self.events.append(events)
        places = pl.concat([frame.select(_PLACE) for frame in (decoded, events)])
        self.left += places.join(self._erased, on=_PLACE, how="semi")["dlq_sequence"].to_list()


async def _read(settings: Settings, state: LogState) -> AsyncGenerator[list[LogMessage], None]:
    """The log; a message that stops the client's read loop is read without its parser, as in a
    drain.
    """
    reached, is_suspect = state.first_sequence - 1, False
    while reached < state.last_sequence:
        before = reached
        async with open_nats(settings, "dlq erase") as client:
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
    """The selected rows of a table; FOUND."""
    columns = ["epoch", "dlq_sequence", "published_at", "failure_id"]
    if table == "dead_letters":
        columns.append("payload_encoding")
    rows = lake.table(table).select(columns, is_wanted).with_columns(LIFE)
    return pl.concat([pl.DataFrame(schema=FOUND), rows.drop("epoch")], how="diagonal")


def _in_postgres(connection: Connection[Any], tenant: str) -> pl.DataFrame:
    """The tenant's failures that came from a log; FOUND."""
    rows = connection.execute(
        "SELECT regexp_replace(epoch, '#[0-9]+$', ''), dlq_sequence, published_at, id::text, NULL"
        " FROM failed_events WHERE tenant_id = left(%s, 255) AND dlq_sequence IS NOT NULL",
        [tenant],
    ).fetchall()
    return pl.DataFrame(rows, schema=FOUND, orient="row")
