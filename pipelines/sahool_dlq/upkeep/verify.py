"""`dlq verify`: are stream, lake and PostgreSQL equal, and can every byte of the lake be read?

It checks only what all sinks have reached, so drains may continue; a repair holds the drain's lock.
The comparison is pure (`compare`); this module reads.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.connections import find_log, open_nats, open_postgres
from sahool_dlq.drain.lives import find_life
from sahool_dlq.drain.lock import alone
from sahool_dlq.jetstream.contents import stored_sequences
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.refill.from_postgres import identities
from sahool_dlq.settings import Settings
from sahool_dlq.stores.epoch_ids import is_of, life_of
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.platform import check_owner
from sahool_dlq.stores.tombstones import copy_to_lake, erased_messages, not_erased
from sahool_dlq.upkeep.compare import LAKE_IDENTITY, DamagedFile, Finding, Picture, counts, findings
from sahool_dlq.upkeep.mend import mend_logs, torn_logs
from sahool_dlq.upkeep.repair import Repair


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of `dlq verify`."""

    findings: tuple[Finding, ...]
    epochs: tuple[dict[str, Any], ...]  # messages of each epoch in each store
    files: int  # files of the lake that were read, every page against its checksum
    read_bytes: int  # that these files have
    unchecked_files: int  # those that an older version wrote without checksums
    sinks: dict[str, int | None]  # how far each holds the log
    started_at: datetime
    seconds: float

    @property
    def is_well(self) -> bool:
        """Whether no problem is left."""
        return all(finding.is_repaired for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"is_well": self.is_well}


async def verify(settings: Settings, bytes_per_second: float | None = None) -> VerifyReport:
    """Compare the stores; changes nothing. With `bytes_per_second`, the lake is read at most at
    that rate.
    """
    started = datetime.now(UTC)
    lake, checks = Lake(settings.lake), _Checks(bytes_per_second)
    if torn := torn_logs(lake):  # a table whose log is torn cannot be opened, or lacks rows
        return VerifyReport(tuple(torn), (), 0, 0, 0, {}, started, _since(started))
    async with _servers(settings) as (_, _, connection):  # before what may take hours
        check_owner(connection, lake)
    for name in (*LOG_TABLES, "service_totals"):
        await asyncio.to_thread(checks.damaged, lake.table(name))
    checks.pace = None  # newer data are read without the limit
    async with _servers(settings) as (client, state, connection):
        report = await _look(settings, client, state, connection, lake, checks)
    return replace(report, started_at=started, seconds=_since(started))


async def repair(settings: Settings) -> list[Finding]:
    """Repair what can be repaired; returns what was found. Then drain and check again.

    The lake is rebuilt from files that left it but still exist, from the stream, and from
    PostgreSQL for messages that the stream no longer has; PostgreSQL from the lake. A sink that
    only lags is left to the drain.
    """
    lake, checks = Lake(settings.lake), _Checks()
    async with (
        _servers(settings) as (client, state, connection),
        alone(settings, connection, state.stream),
    ):
        mended = await asyncio.to_thread(mend_logs, lake, datetime.now(UTC))
        check_owner(connection, lake)
        if "erased_messages" in mended.tables:
            copy_to_lake(connection, lake, datetime.now(UTC))
        look = await _look(settings, client, state, connection, lake, checks)
        tables = _tables(lake)
        picture = await _picture(settings, client, state, connection, tables, checks)
        reader = LogReader(client, state.stream, settings.subjects.log)
        mender = Repair(settings, connection, reader, state, tables, mended)
        lost = await mender.lake(picture)
        picture = await _picture(settings, client, state, connection, tables, checks)
        await asyncio.to_thread(mender.postgres, picture)
    return [*mended.findings, *look.findings, *lost]


@asynccontextmanager
async def _servers(
    settings: Settings,
) -> AsyncIterator[tuple[Client, LogState, Connection[Any]]]:
    async with open_nats(settings, "dlq verify") as client:
        state = await find_log(client, settings)
        with open_postgres(settings) as connection:
            yield client, state, connection


class _Checks:
    """Files that were checked against their checksums; each is read once.

    A file with a given name never changes, so its result is valid as long as it is live.
    """

    def __init__(self, bytes_per_second: float | None = None) -> None:
        self.pace = bytes_per_second
        self._found: dict[tuple[str, str], str | None] = {}

    def damaged(self, table: LakeTable) -> list[DamagedFile]:
        """The live files of a table whose content is unreadable or differs from what was
        written."""
        found = []
        for file in table.files:
            key = (table.name, file.path)
            if key not in self._found:
                self._found[key] = table.store.check(file, self.pace)
            if reason := self._found[key]:
                found.append(DamagedFile(table.name, file, reason))
        return found


async def _look(
    settings: Settings,
    client: Client,
    state: LogState,
    connection: Connection[Any],
    lake: Lake,
    checks: _Checks,
) -> VerifyReport:
    started = datetime.now(UTC)
    tables = _tables(lake)
    picture = await _picture(settings, client, state, connection, tables, checks)
    epoch, checkpoint = _checkpoint(connection, state)
    sinks = {"postgres": checkpoint if epoch else None} | {
        f"lake {name}": table.watermark(epoch) for name, table in tables.items()
    }
    totals = lake.table("service_totals")
    damaged = [*picture.damaged, *await asyncio.to_thread(checks.damaged, totals)]
    picture = replace(picture, damaged=damaged)
    files = [(table, file) for table in (*tables.values(), totals) for file in table.files]
    unchecked = sum(not table.store.has_checksums(file) for table, file in files)
    read = sum(file.size_bytes for _, file in files)
    found = (*findings(picture), *_behind(sinks, state))
    epochs = tuple(counts(picture))
    return VerifyReport(found, epochs, len(files), read, unchecked, sinks, started, _since(started))


async def _picture(
    settings: Settings,
    client: Client,
    state: LogState,
    connection: Connection[Any],
    tables: Mapping[str, LakeTable],
    checks: _Checks,
) -> Picture:
    """Read everything; the lake's snapshots and the checkpoint come first and limit the rest."""
    reader = LogReader(client, state.stream, settings.subjects.log)
    epoch, checkpoint = _checkpoint(connection, state)
    marks = [table.watermark(epoch) for table in tables.values()]
    up_to = min(checkpoint, *(mark or 0 for mark in marks))
    state = await find_life(connection, reader, state, tables)
    is_current = life_of(epoch) == state.life
    stored = (
        await stored_sequences(client, state, settings.subjects.log, up_to) if is_current else []
    )
    damaged = await asyncio.to_thread(
        lambda: [d for t in tables.values() for d in checks.damaged(t)]
    )
    bad = {(d.table, d.file.path) for d in damaged}
    frames = {
        name: await asyncio.to_thread(_identities, table, bad) for name, table in tables.items()
    }
    forks = connection.execute(
        "SELECT epoch, start_sequence FROM drain_epochs WHERE starts_with(epoch, %s) ORDER BY fork",
        [f"{state.life}#"],
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


def _tables(lake: Lake) -> dict[str, LakeTable]:
    return {name: lake.table(name) for name in LOG_TABLES}


def _checkpoint(connection: Connection[Any], state: LogState) -> tuple[str, int]:
    row = connection.execute(
        "SELECT epoch, last_sequence FROM drain_checkpoints WHERE stream = %s", [state.stream]
    ).fetchone()
    return row or ("", 0)


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
    """Sinks that were emptied, or that lag behind the stream."""
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


def _since(started: datetime) -> float:
    return round((datetime.now(UTC) - started).total_seconds(), 3)
