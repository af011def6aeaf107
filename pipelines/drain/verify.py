"""`dlq verify`: are stream, lake and Postgres the same, and can every byte of the lake be read?

Looks at what all sinks have reached, so drains may go on meanwhile; a repair holds the drain's
lock. Finding is pure (`compare`); here is the looking.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
from nats.aio.client import Client
from psycopg import Connection

from pipelines.drain.compare import (
    LAKE_IDENTITY,
    DamagedFile,
    Finding,
    Picture,
    counts,
    findings,
    is_of,
    life_of,
)
from pipelines.drain.from_postgres import identities
from pipelines.drain.lock import alone
from pipelines.drain.repair import Repair
from pipelines.jetstream.connection import connected
from pipelines.jetstream.contents import stored_sequences
from pipelines.jetstream.reader import LogReader, LogState, log_state
from pipelines.settings import Settings
from pipelines.stores.database import database
from pipelines.stores.erased import erased_messages, not_erased
from pipelines.stores.lake import LAYOUTS, LOG_TABLES, Lake
from pipelines.stores.lake_log import put_aside, torn_log_files
from pipelines.stores.lake_table import LakeTable


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `dlq verify` found."""

    findings: tuple[Finding, ...]
    epochs: tuple[dict[str, Any], ...]  # messages of each epoch in each store
    files: int  # files of the lake that were read, every page against its checksum
    unchecked_files: int  # those that an older version wrote without checksums
    sinks: dict[str, int | None]  # how far each holds the log

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong any more."""
        return all(finding.is_repaired for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"is_well": self.is_well}


async def verify(settings: Settings) -> VerifyReport:
    """Compare the stores; changes nothing."""
    lake = Lake(settings.lake)
    if torn := _torn(lake):  # a table whose log is torn can not be opened
        return VerifyReport(tuple(torn), (), 0, 0, {})
    async with connected(settings.nats_url, settings.nats_creds, "dlq verify") as client:
        state = await log_state(client, settings.dlq_stream, settings.subjects.log)
        with database(settings.postgres_dsn.get_secret_value()) as connection:
            return await _look(settings, client, state, connection, lake)


async def repair(settings: Settings) -> list[Finding]:
    """Mend what can be mended; returns what was found. A drain and another look should follow.

    The lake is rebuilt from the stream, what that no longer has from Postgres; Postgres from the
    lake. A sink that is merely behind is for the drain.
    """
    lake = Lake(settings.lake)
    found = _torn(lake, is_repair=True)
    async with connected(settings.nats_url, settings.nats_creds, "dlq verify") as client:
        state = await log_state(client, settings.dlq_stream, settings.subjects.log)
        dsn = settings.postgres_dsn.get_secret_value()
        with database(dsn) as connection:
            async with alone(dsn, connection, state.stream, settings.drain_lock_seconds):
                found += (await _look(settings, client, state, connection, lake)).findings
                tables = _tables(lake)
                picture = await _picture(settings, client, state, connection, tables)
                reader = LogReader(client, state.stream, settings.subjects.log)
                mender = Repair(settings, connection, reader, state, tables)
                found += await mender.lake(picture)
                picture = await _picture(settings, client, state, connection, tables)
                await asyncio.to_thread(mender.postgres, picture)
    return found


async def _look(
    settings: Settings,
    client: Client,
    state: LogState,
    connection: Connection[Any],
    lake: Lake,
) -> VerifyReport:
    tables = _tables(lake)
    picture = await _picture(settings, client, state, connection, tables)
    epoch, checkpoint = _checkpoint(connection, state)
    sinks = {"postgres": checkpoint if epoch else None} | {
        f"lake {name}": table.watermark(epoch) for name, table in tables.items()
    }
    totals = lake.table("service_totals")
    damaged = [*picture.damaged, *await asyncio.to_thread(_damaged, totals)]
    picture = replace(picture, damaged=damaged)
    files = [(table, file) for table in (*tables.values(), totals) for file in table.files]
    unchecked = sum(not table.store.has_checksums(file) for table, file in files)
    found = [*findings(picture), *_behind(sinks, state)]
    return VerifyReport(tuple(found), tuple(counts(picture)), len(files), unchecked, sinks)


async def _picture(
    settings: Settings,
    client: Client,
    state: LogState,
    connection: Connection[Any],
    tables: Mapping[str, LakeTable],
) -> Picture:
    """Look at everything; the lake's snapshots and the checkpoint come first, so bound the rest."""
    epoch, checkpoint = _checkpoint(connection, state)
    marks = [table.watermark(epoch) for table in tables.values()]
    up_to = min(checkpoint, *(mark or 0 for mark in marks))
    is_current = life_of(epoch) == life_of_state(state)
    stored = (
        await stored_sequences(client, state, settings.subjects.log, up_to) if is_current else []
    )
    damaged = await asyncio.to_thread(lambda: [d for t in tables.values() for d in _damaged(t)])
    bad = {(d.table, d.file.path) for d in damaged}
    frames = {
        name: await asyncio.to_thread(_identities, table, bad) for name, table in tables.items()
    }
    forks = connection.execute(
        "SELECT epoch, start_sequence FROM drain_epochs"
        " WHERE stream = %s AND created = %s ORDER BY fork",
        [state.stream, state.created],
    ).fetchall()
    frames["failed_events"] = identities(connection, state.stream)
    erased = erased_messages(connection)
    left = {name: not_erased(frame, erased) for name, frame in frames.items()}
    leftover = {name: frame.height - left[name].height for name, frame in frames.items()}
    # Who has the place of an erased message of another fork is in the lake, and was not erased.
    others = pl.concat(left[name].filter(is_of(life_of(epoch))) for name in LOG_TABLES)
    gone = erased.filter(pl.col("life") == life_of(epoch))["dlq_sequence"]
    kept = sorted({*stored} - ({*gone} - {*others["dlq_sequence"]}))
    leftover["the stream"] = len(stored) - len(kept)
    return Picture(
        epoch=epoch,
        up_to=up_to,
        forks=dict(forks),
        stored=kept,
        letters=left["dead_letters"],
        events=left["case_events"],
        rows=left["failed_events"],
        damaged=damaged,
        erased=erased,
        leftover=leftover,
        kept_since=settings.lake_kept_since(datetime.now(UTC)),
    )


def life_of_state(state: LogState) -> str:
    """The life of the stream as it stands now."""
    return f"{state.stream}@{state.created.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def _tables(lake: Lake) -> dict[str, LakeTable]:
    return {name: lake.table(name) for name in LOG_TABLES}


def _checkpoint(connection: Connection[Any], state: LogState) -> tuple[str, int]:
    row = connection.execute(
        "SELECT epoch, last_sequence FROM drain_checkpoints WHERE stream = %s", [state.stream]
    ).fetchone()
    return row or ("", 0)


def _damaged(table: LakeTable) -> list[DamagedFile]:
    checked = ((file, table.store.check(file)) for file in table.files)
    return [DamagedFile(table.name, file, reason) for file, reason in checked if reason]


def _identities(table: LakeTable, bad: set[tuple[str, str]]) -> pl.DataFrame:
    columns = [name for name in LAKE_IDENTITY if name != "path"]
    frames = [
        table.store.read(file, columns).with_columns(path=pl.lit(file.path))
        for file in table.files
        if (table.name, file.path) not in bad
    ]
    empty = pl.DataFrame(schema=LAKE_IDENTITY)
    return pl.concat([empty, *(frame.select(empty.columns) for frame in frames)])


def _behind(sinks: Mapping[str, int | None], state: LogState) -> list[Finding]:
    """Sinks that were emptied, or that lag behind what the stream still has."""
    ahead = max((mark or 0 for mark in sinks.values()), default=0)
    return [
        Finding(
            "behind",
            sink,
            f"{sink} holds the log up to {mark or 0:,}, others up to {ahead:,}: `dlq drain` fills"
            " it.",
            ahead - (mark or 0),
        )
        for sink, mark in sinks.items()
        if (mark is None and ahead) or (mark or 0) + 1 < min(state.first_sequence, ahead)
    ]


def _torn(lake: Lake, *, is_repair: bool = False) -> list[Finding]:
    found = []
    for name in LAYOUTS:
        for file, reason in torn_log_files(lake.path(name)).items():
            if is_repair:
                put_aside(file)
            where = f"{name}/_delta_log/{file.name}"
            found.append(Finding("torn_log", where, f"{where} is torn: {reason}.", 1))
    return found
