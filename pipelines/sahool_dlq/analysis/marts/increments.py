"""Updates the marts by day with new messages only: a small drain costs little.

They contain counts of cases, and counts can be added. So a run takes the failures that new messages
are about, with their whole chains, adds their new values, and subtracts their old ones: both from
the log, with the same views. Nothing else of the history is computed again. Oldest and newest times
need no subtraction, because a counted case stays a case, closed cases stay closed, and the log only
grows at its end. If the log changed otherwise, everything is counted again; a full count processes
the failures in parts, so that its memory does not depend on the length of history.
"""

# Annotations stay text: DuckDB's types, once held by a function that a Prefect flow reaches, are
# reported as leaked, at length, when the process ends.
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime

import duckdb

from sahool_dlq.analysis.marts.build import DAILY, FACTS
from sahool_dlq.analysis.marts.loading import (
    WORKING,
    counted_rows,
    drop_words,
    make_chains,
    number_words,
    parts,
    touch,
)
from sahool_dlq.analysis.marts.views import create_views, view_sql
from sahool_dlq.errors import QueryError
from sahool_dlq.sqlfiles import read_sql
from sahool_dlq.stores.lake.lake import LOG_TABLES

__all__ = ["Reach", "counting"]

PART_ROWS = 2_000_000
"""Failures that a full count processes at once: about 5 GB of memory."""

_LATEST = ("sample_failure_id", "parent_id", "template", "frames")


@dataclass(frozen=True, slots=True)
class Reach:
    """How much of the log is counted."""

    began: dict[str, datetime] = field(default_factory=dict)  # epochs, in the order of the log
    sequences: dict[str, dict[str, int]] = field(default_factory=dict)  # last one, by table, epoch

    def grown(self, found: Mapping[str, Mapping[str, tuple[int, datetime]]]) -> Reach | None:
        """The reach that also includes messages of these epochs (last sequence, first time; by
        table).

        None if they do not all come after the counted ones.
        """
        began, sequences = dict(self.began), {t: dict(self.sequences.get(t, {})) for t in found}
        grew = set()
        for table, epochs in found.items():
            for epoch, (last, first_at) in epochs.items():
                began[epoch] = min(first_at, began.get(epoch, first_at))
                if last > sequences[table].get(epoch, 0):
                    sequences[table][epoch] = last
                    grew.add(epoch)
        began = dict(sorted(began.items(), key=lambda item: (item[1], item[0])))
        settled = list(self.began)
        if list(began)[: len(settled)] != settled or grew & set(settled[:-1]):
            return None
        return Reach(began, sequences)


@contextmanager
def counting(
    connection: duckdb.DuckDBPyConnection,
    before: Reach | None = None,
    *,
    fresh: Mapping[str, str] | None = None,
    part_rows: int = PART_ROWS,
) -> Iterator[tuple[Reach, dict[str, list[date]]] | None]:
    """Provide the marts by day, up to date, as relations with their names; yields what has changed.

    With `before`, the connection has relations `kept_<mart>`, which count the log so far; `fresh`
    names relations with all later messages, and possibly others (else the tables are searched).
    Yields how far the log is counted now, and by mart the days with other rows than in
    `kept_<mart>`; those are in `changed_<mart>`. Yields None if the log did not only grow: then
    count everything, without `before`, and each day with rows is a changed one.
    """
    create_views(connection)
    try:
        yield _counted(connection, before, fresh, part_rows)
    except duckdb.Error as error:
        raise QueryError(f"The marts by day failed: {str(error).splitlines()[0]}") from error
    finally:
        for name in DAILY:
            connection.execute(f"DROP VIEW IF EXISTS temp.{name}")
            connection.execute(f"DROP TABLE IF EXISTS temp.changed_{name}")
            connection.execute(f"DROP TABLE IF EXISTS temp.delta_{name}")
        _forget(connection, [*FACTS, *LOG_TABLES, *WORKING, "reach"])
        drop_words(connection)


def _counted(
    connection: duckdb.DuckDBPyConnection,
    before: Reach | None,
    fresh: Mapping[str, str] | None,
    part_rows: int,
) -> tuple[Reach, dict[str, list[date]]] | None:
    sources = fresh or {name: f"memory.main.{name}" for name in LOG_TABLES}
    found = {name: _epochs_of(connection, sources[name]) for name in LOG_TABLES}
    reach = (before or Reach()).grown(found)
    if reach is None:
        return None
    if reach == before:
        for name in DAILY:
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM kept_{name}")
        return reach, {name: [] for name in DAILY}
    _make_reach(connection, before or Reach(), reach)
    make_chains(connection)
    if before is None:
        number_words(connection)
        for number, is_wanted in enumerate(parts(connection, part_rows)):
            for name in LOG_TABLES:
                rows = counted_rows(connection, name, is_whole=True)
                _hide(connection, name, f"{rows} {is_wanted[name]}")
            _add(connection, sign=1, is_first=number == 0)
    else:
        touch(connection, sources)
        for name in LOG_TABLES:
            is_touched = "m.failure_id IN (SELECT failure_id FROM touched)"
            _hide(connection, name, f"{counted_rows(connection, name)} WHERE {is_touched}")
        _add(connection, sign=1, is_first=True)
        _unload_new(connection)
        _add(connection, sign=-1, is_first=False)
    _forget(connection, [*LOG_TABLES, *WORKING])  # show the log again
    return reach, {name: _merge(connection, name, is_kept=before is not None) for name in DAILY}


def _epochs_of(
    connection: duckdb.DuckDBPyConnection, relation: str
) -> dict[str, tuple[int, datetime]]:
    rows = connection.execute(
        f"SELECT epoch, MAX(dlq_sequence), MIN(published_at) FROM {relation} GROUP BY epoch"  # noqa: S608  (our own names, bound values)
    ).fetchall()
    return {epoch: (last, first_at) for epoch, last, first_at in rows}


def _make_reach(connection: duckdb.DuckDBPyConnection, before: Reach, after: Reach) -> None:
    """Tables `epochs`, as the view has them, and `reach`: sequences before and now."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE epochs"
        " (epoch VARCHAR, epoch_number BIGINT, began_at TIMESTAMPTZ)"
    )
    for number, (epoch, at) in enumerate(after.began.items(), 1):
        connection.execute("INSERT INTO epochs VALUES (?, ?, ?)", [epoch, number, at])
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE reach"
        " (name VARCHAR, epoch VARCHAR, sequence_before BIGINT, sequence_now BIGINT)"
    )
    for name, sequences in after.sequences.items():
        for epoch, last in sequences.items():
            counted = before.sequences.get(name, {}).get(epoch, 0)
            connection.execute(
                "INSERT INTO reach VALUES (?, ?, ?, ?)", [name, epoch, counted, last]
            )


def _hide(connection: duckdb.DuckDBPyConnection, name: str, select: str) -> None:
    """Hide a table of the log behind these rows of it."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {select}")


def _unload_new(connection: duckdb.DuckDBPyConnection) -> None:
    for name in LOG_TABLES:
        connection.execute(f"""
            DELETE FROM temp.{name} AS m USING reach AS r
            WHERE r.name = '{name}' AND r.epoch = m.epoch AND m.dlq_sequence > r.sequence_before
        """)  # noqa: S608  (our own names, bound values)


def _add(connection: duckdb.DuckDBPyConnection, *, sign: int, is_first: bool) -> None:
    """Count what is loaded into the tables `delta_<mart>`."""
    for name in FACTS:
        if name != "epochs":
            connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS\n{view_sql(name)}")
    for name in DAILY:
        start = f"CREATE OR REPLACE TEMP TABLE delta_{name} AS"
        if not is_first:
            start = f"INSERT INTO delta_{name}"
        connection.execute(
            f"{start}\nSELECT *, {sign} AS sign FROM ({read_sql(f'marts/{name}.sql')})"
        )
    _forget(connection, [name for name in FACTS if name != "epochs"])


def _merge(connection: duckdb.DuckDBPyConnection, name: str, *, is_kept: bool) -> list[date]:
    """Create `changed_<mart>` and the view with the mart's name; returns the days that changed."""
    kinds = dict(row[:2] for row in connection.execute(f"DESCRIBE delta_{name}").fetchall()[:-1])
    columns, listed = list(kinds), ", ".join(kinds)
    if is_kept:  # new and old values of an unchanged case cancel out
        connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE delta_{name} AS
            SELECT {listed}, SUM(sign) AS sign FROM delta_{name} GROUP BY ALL HAVING SUM(sign) <> 0
        """)  # noqa: S608  (our own names, bound values)
    (days,) = connection.execute(
        f"SELECT LIST(DISTINCT dlq_date ORDER BY dlq_date) FROM delta_{name}"  # noqa: S608  (our own names, bound values)
    ).fetchall()[0]
    days = days or []
    kept = ""
    is_changed = "dlq_date IN (" + (", ".join(f"DATE '{day}'" for day in days) or "NULL") + ")"
    if is_kept:
        kept = f"SELECT {listed}, 1 AS sign FROM kept_{name} WHERE {is_changed} UNION ALL"  # noqa: S608  (our own names, bound values)
    keys = [column for column in columns if _merged(column) is None]
    counts = [column for column in columns if column.endswith("_count")]
    merged = ", ".join(
        f"{_merged(column) or _as_text(column, kind)} AS {column}" for column, kind in kinds.items()
    )
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE changed_{name} AS
        SELECT {merged}
        FROM ({kept} SELECT {listed}, sign FROM delta_{name})
        GROUP BY {", ".join(keys)}
        HAVING SUM(sign * {_rows_of(counts)}) <> 0
        ORDER BY {", ".join(keys)}
    """)  # noqa: S608  (our own names, bound values)
    rest = f"UNION ALL SELECT {listed} FROM kept_{name} WHERE NOT {is_changed}" if is_kept else ""  # noqa: S608  (our own names, bound values)
    if not days:
        rest = f"UNION ALL SELECT {listed} FROM kept_{name}" if is_kept else ""  # noqa: S608  (our own names, bound values)
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {listed} FROM changed_{name} {rest}"  # noqa: S608  (our own names, bound values)
    )
    return days


def _as_text(column: str, kind: str) -> str:
    return f"CAST({column} AS VARCHAR)" if kind.startswith("ENUM") else column


def _rows_of(counts: Sequence[str]) -> str:
    """The column with the count of a row; it is never 0."""
    return next(name for name in ("attempt_count", "case_count", "failure_count") if name in counts)


def _merged(column: str) -> str | None:
    """How rows with the same key are merged; None for the key columns."""
    if column.endswith("_count") or column.startswith("total_"):
        return f"CAST(SUM(sign * {column}) AS BIGINT)"
    if column in _LATEST:
        latest = f"ARG_MAX_NULL({column}, last_log_position) FILTER (sign > 0)"
        return f"CAST({latest} AS VARCHAR)"
    if column.startswith("first_"):
        return f"MIN({column}) FILTER (sign > 0)"
    if column.startswith("last_"):
        return f"MAX({column}) FILTER (sign > 0)"
    return None


def _forget(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    for name in names:
        connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
