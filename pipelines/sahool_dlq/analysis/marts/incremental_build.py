"""The marts by day as stored in the lake, with a note about how much of the log they contain.

The note names the exact versions of its tables. So it is detected if a run died between them, if
another run worked at the same time, or if another engine rewrote them; then everything is counted
again.
"""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime

import duckdb
import polars as pl
import pyarrow as pa

from sahool_dlq.analysis.marts.build import DAILY, SUMMARIES, build_summaries, plain
from sahool_dlq.analysis.marts.increments import Reach, counting
from sahool_dlq.analysis.marts.views import VIEWS, view_sql
from sahool_dlq.sqlfiles import read_sql
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.lake.sql import connect, files_source, source

__all__ = ["Built", "daily_marts", "update_marts", "write_marts"]

_NOTE = "marts/counted"


@dataclass(frozen=True, slots=True)
class Built:
    """Marts that were written to the lake."""

    is_rebuilt: bool  # from the whole log, not only from new messages
    rows: dict[str, int]  # by mart
    summaries: dict[str, pl.DataFrame]  # the current ones


def update_marts(lake: Lake, now: datetime, *, is_rebuild: bool = False) -> Built:
    """Update the lake's marts as of `now` (aware); see `daily_marts`."""
    with (
        connect(lake) as connection,
        daily_marts(connection, lake, is_rebuild=is_rebuild) as is_rebuilt,
    ):
        tables = build_summaries(connection, now)
        rows = {name: _row_count(connection, name) for name in DAILY}
    built = write_marts(lake, tables)
    return Built(is_rebuilt, rows | built.rows, built.summaries)


def write_marts(lake: Lake, tables: Mapping[str, pa.Table]) -> Built:
    """Replace marts in the lake by whole tables."""
    frames = {name: pl.DataFrame(table) for name, table in tables.items()}
    for name, frame in frames.items():
        lake.overwrite(f"marts/{name}", frame, by_day=name in DAILY)
    rows = {name: frame.height for name, frame in frames.items()}
    return Built(True, rows, {name: f for name, f in frames.items() if name in SUMMARIES})


def _row_count(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    return int(connection.sql(f"SELECT COUNT(*) FROM {name}").fetchall()[0][0])  # noqa: S608  (our own names, bound values)


@dataclass(frozen=True, slots=True)
class _Note:
    """The origin of the stored tables."""

    recipe: str  # hash of the SQL and its settings
    content: dict[str, str]  # by table of the log: see `Lake.content`
    files: dict[str, list[str]]  # by table of the log
    began: dict[str, str]  # see `Reach`
    sequences: dict[str, dict[str, int]]
    versions: dict[str, int]  # of the kept tables

    @property
    def reach(self) -> Reach:
        began = {epoch: datetime.fromisoformat(at) for epoch, at in self.began.items()}
        return Reach(began, self.sequences)


@contextmanager
def daily_marts(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    *,
    is_written: bool = True,
    is_rebuild: bool = False,
) -> Iterator[bool]:
    """Provide the marts by day as relations with their names, up to date, on a connection of the
    lake.

    It counts what is new since the last time; or everything, if the log changed otherwise, or on
    request. The result is stored in the lake, unless it must not be written. Yields whether
    everything was counted. Raises QueryError or LakeError.
    """
    content = {name: lake.content(name) for name in LOG_TABLES}
    files = {name: lake.files(name) for name in LOG_TABLES}
    recipe = _recipe()
    note = None if is_rebuild else _read_note(lake)
    if note and (
        (note.recipe, note.content) != (recipe, content)
        or note.versions != {name: lake.version(f"marts/{name}") for name in DAILY}
    ):
        note = None
    with ExitStack() as stack:
        found = None
        if note:
            fresh = _show_kept(connection, lake, files, note)
            found = stack.enter_context(counting(connection, note.reach, fresh=fresh))
        if found is None:
            stack.close()
            note = None
            found = stack.enter_context(counting(connection, None))
        assert found is not None  # nothing counted yet, so nothing can be out of order
        reach, days = found
        if is_written:
            _write(connection, lake, days, is_rebuilt=note is None)
            versions = {name: lake.version(f"marts/{name}") or 0 for name in DAILY}
            began = {epoch: at.isoformat() for epoch, at in reach.began.items()}
            _write_note(lake, _Note(recipe, content, files, began, reach.sequences, versions))
        yield note is None


def _recipe() -> str:
    texts = [view_sql(name) for name in VIEWS]
    texts += [read_sql(f"marts/{name}.sql") for name in DAILY]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def _show_kept(
    connection: duckdb.DuckDBPyConnection, lake: Lake, files: Mapping[str, list[str]], note: _Note
) -> dict[str, str]:
    """Create the relations that `counting` reads; returns those of messages that are not counted
    yet.
    """
    for name in DAILY:
        path = f"marts/{name}"
        if kept := source(connection, lake, path):
            connection.execute(f"CREATE OR REPLACE TEMP VIEW kept_{name} AS SELECT * FROM {kept}")  # noqa: S608  (our own names, bound values)
        else:
            connection.register(f"kept_{name}", lake.read(path).to_arrow())
    if not lake.is_local:
        return {name: f"memory.main.{name}" for name in LOG_TABLES}
    fresh = {}
    for name in LOG_TABLES:
        known = set(note.files[name])
        new = [file for file in files[name] if file not in known]
        rows = files_source(new) if new else f"memory.main.{name} WHERE false"
        columns = "failure_id, epoch, dlq_sequence, published_at"
        fresh[name] = f"fresh_{name}"
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW fresh_{name} AS SELECT {columns} FROM {rows}"  # noqa: S608  (our own names, bound values)
        )
    return fresh


def _write(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    days: Mapping[str, list[date]],
    *,
    is_rebuilt: bool,
) -> None:
    for name in DAILY:
        if days[name] or is_rebuilt:
            table = plain(connection.sql(f"FROM changed_{name}").to_arrow_table())
            frame = pl.DataFrame(table)
            lake.overwrite(
                f"marts/{name}", frame, by_day=True, days=None if is_rebuilt else days[name]
            )


def _read_note(lake: Lake) -> _Note | None:
    if lake.version(_NOTE) is None:
        return None
    try:
        return _Note(**json.loads(lake.read(_NOTE)["note"].item()))
    except (ValueError, TypeError, pl.exceptions.PolarsError):
        return None  # of another version


def _write_note(lake: Lake, note: _Note) -> None:
    lake.overwrite(_NOTE, pl.DataFrame({"note": [json.dumps(asdict(note))]}))
