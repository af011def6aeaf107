"""Recomputes the groups of old rows with the current algorithm and rules.

Each row contains the algorithm and rules that made its group, so only rows with others are
processed: after a kill, a rerun continues, and without work it writes nothing.

Drains continue meanwhile. In the lake one day is one commit, which removes the files that were
read; like a compaction, it changes neither watermarks nor the generation that fences drains. In
PostgreSQL one batch is one transaction that locks the drain's checkpoint row, so it and a drain's
batch never interleave.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.connections import open_lock, open_postgres
from sahool_dlq.deadletter.fingerprint.fingerprint import FINGERPRINT_VERSION, add_fingerprint
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.record import FINGERPRINT_COLUMNS, TEXT_LIMITS
from sahool_dlq.errors import FencedError, RegroupError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.delta import open_table, scanned
from sahool_dlq.stores.lake.files import LakeFile
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.platform import check_owner
from sahool_dlq.stores.postgres.group_care import forget_owners

_BATCH_ROWS = 5_000  # of one transaction
_TRIES = 5  # at a day's files, which a compaction may take away meanwhile
_FIRST = "00000000-0000-0000-0000-000000000000"
_KEYS = ["error_type", "error_message", "stack_trace"]
_STAMP = ["fingerprint_version", "fingerprint_rules"]


@dataclass(slots=True)
class SinkRegrouped:
    """The changes in one sink, done or planned: groups before and after, with their rows."""

    moves: Counter[tuple[str | None, str]] = field(default_factory=Counter)

    def add(self, before: pl.Series, after: pl.Series) -> None:
        """Count a batch by its group ids."""
        self.moves.update(zip(before, after, strict=True))

    @property
    def rows(self) -> int:
        """Rows with another algorithm or other rules."""
        return self.moves.total()

    def as_dict(self) -> dict[str, int]:
        """For `--json`."""
        return {
            "rows": self.rows,
            "rows_moved": sum(n for (old, new), n in self.moves.items() if old != new),
            "groups_before": len({old for old, _ in self.moves}),
            "groups_after": len({new for _, new in self.moves}),
        }


@dataclass(frozen=True, slots=True)
class Carried:
    """The words of a group whose failures move to another one."""

    group_id: str
    to: str
    failure_count: int  # that move
    kept: str | None = None  # why they are not carried; None: they are, or will be


@dataclass(slots=True)
class RegroupReport:
    """What a regroup changed, or a dry run found."""

    lake: SinkRegrouped
    postgres: SinkRegrouped
    is_dry_run: bool
    seconds: float = 0
    words: Sequence[Carried] = ()  # what people said of groups that move

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "lake": self.lake.as_dict(),
            "postgres": self.postgres.as_dict(),
            "is_dry_run": self.is_dry_run,
            "seconds": self.seconds,
            "words": [asdict(each) for each in self.words],
        }


Progress = Callable[[int], None]
"""Called with the rows done so far, in both sinks."""


def regroup(
    settings: Settings, progress: Progress | None = None, *, is_dry_run: bool = False
) -> RegroupReport:
    """Recompute the group of every row with another algorithm or other rules.

    Raises RegroupError if another regroup runs, LakeError if the lake cannot be written.
    """
    started = time.monotonic()
    rules, lake = settings.rules.grouping, Lake(settings.lake)
    report = RegroupReport(SinkRegrouped(), SinkRegrouped(), is_dry_run)

    def tell() -> None:
        if progress is not None:
            progress(report.lake.rows + report.postgres.rows)

    with open_postgres(settings) as connection, open_lock(settings, "regroup") as lock:
        check_owner(connection, lake)
        if not lock.take():
            raise RegroupError(
                f"Another regroup is running ({lock.held_by()}): try again when it has ended."
            )
        for day in sorted({file.day for file in lake.table("dead_letters").files}, key=str):
            _regroup_day(lake, day, rules, report.lake, is_dry_run=is_dry_run)
            tell()
        for _ in _regroup_rows(connection, lake, rules, report.postgres, is_dry_run=is_dry_run):
            tell()
        if report.postgres.rows and not is_dry_run:
            forget_owners(connection)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _regroup_day(
    lake: Lake, day: date | None, rules: GroupingRules, done: SinkRegrouped, *, is_dry_run: bool
) -> None:
    """One day's files in one commit, tried again if another process rewrote them meanwhile."""
    for attempt in range(_TRIES):
        table = lake.table("dead_letters")
        files = [file for file in table.files if file.day == day and _is_stale(table, file, rules)]
        if is_dry_run:
            for file in files:
                _regrouped(table, file, rules, done)
            return
        counted = SinkRegrouped()
        rows = (_regrouped(table, file, rules, counted) for file in files)
        try:
            if files:
                # The messages stay the same, and streaming readers get each of them once.
                table.replace(files, rows, datetime.now(UTC), is_data_change=False)
        except FencedError:
            if attempt == _TRIES - 1:
                raise
        else:
            done.moves += counted.moves
            return


def _is_stale(table: LakeTable, file: LakeFile, rules: GroupingRules) -> bool:
    stamps = table.store.read(file, _STAMP)
    return not stamps.filter(_by_others(stamps, rules)).is_empty()


def _by_others(frame: pl.DataFrame, rules: GroupingRules) -> pl.Series:
    """Which rows have another algorithm or other rules; files of an older version lack columns."""
    column = pl.col("fingerprint_rules") if "fingerprint_rules" in frame.columns else pl.lit(None)
    return frame.select(
        pl.col("fingerprint_version").ne_missing(FINGERPRINT_VERSION)
        | column.cast(pl.String).ne_missing(pl.lit(rules.hash, dtype=pl.String))
    ).to_series()


def _regrouped(
    table: LakeTable, file: LakeFile, rules: GroupingRules, done: SinkRegrouped
) -> pl.DataFrame:
    """All rows of a file, in its order, in the table's columns."""
    rows = table.store.read(file)
    frame = _fingerprinted(rows, rules)
    stale = _by_others(rows, rules)
    done.add(rows["group_id"].filter(stale), frame["group_id"].filter(stale))
    columns = table.empty_frame()
    return pl.concat([columns, frame], how="diagonal").select(columns.columns)


def _fingerprinted(rows: pl.DataFrame, rules: GroupingRules) -> pl.DataFrame:
    names = [name for name in FINGERPRINT_COLUMNS if name in rows.columns]
    return add_fingerprint(rows.drop(names), rules)


def _regroup_rows(
    connection: Connection[Any],
    lake: Lake,
    rules: GroupingRules,
    done: SinkRegrouped,
    *,
    is_dry_run: bool,
) -> Iterator[None]:
    last = _FIRST
    while True:
        with connection.transaction():
            connection.execute("SELECT FROM drain_checkpoints FOR UPDATE")
            rows = _stale_rows(connection, rules, last)
            if rows.is_empty():
                return
            frame = _fingerprinted(_uncut(rows, lake), rules)
            if not is_dry_run:
                _update(connection, frame)
        done.add(rows["group_id"], frame["group_id"])
        last = rows["id"][-1]
        yield


def stale_groups(
    connection: Connection[Any], lake: Lake, rules: GroupingRules, groups: Sequence[str]
) -> Iterator[tuple[pl.Series, pl.Series]]:
    """Of the failures of these groups that were made by other rules: their group, and the new one.

    In batches; reads PostgreSQL only, and changes nothing.
    """
    last = _FIRST
    while not (rows := _stale_rows(connection, rules, last, groups)).is_empty():
        yield rows["group_id"], _fingerprinted(_uncut(rows, lake), rules)["group_id"]
        last = rows["id"][-1]


def _stale_rows(
    connection: Connection[Any],
    rules: GroupingRules,
    after: str,
    groups: Sequence[str] | None = None,
) -> pl.DataFrame:
    """The next rows by other rules, of all groups or of these."""
    columns = ["id", "epoch", "dlq_sequence", *_KEYS, "group_id"]
    rows = connection.execute(
        "SELECT id::text, epoch, dlq_sequence, error_type, error_message, stack_trace, group_id"
        " FROM failed_events WHERE id > %s AND (fingerprint_version IS DISTINCT FROM %s::smallint"
        " OR fingerprint_rules IS DISTINCT FROM %s::varchar)"
        " AND (%s::text[] IS NULL OR group_id = ANY(%s)) ORDER BY id LIMIT %s",
        [after, FINGERPRINT_VERSION, rules.hash, groups, groups, _BATCH_ROWS],
    ).fetchall()
    types = dict.fromkeys(columns, pl.String) | {"dlq_sequence": pl.Int64}
    return pl.DataFrame(rows, schema=types, orient="row")


def _uncut(rows: pl.DataFrame, lake: Lake) -> pl.DataFrame:
    """The rows with the full error types from the lake, because `failed_events` cuts them."""
    limit = TEXT_LIMITS["error_type"]
    cut = rows.filter(pl.col("error_type").str.len_chars() == limit)
    if cut.is_empty():
        return rows
    sequences = cut["dlq_sequence"].drop_nulls().implode()
    whole = (
        scanned(open_table(lake.path("dead_letters")))
        .filter(
            pl.col("dlq_sequence").is_in(sequences), pl.col("error_type").str.len_chars() > limit
        )
        .select("epoch", "dlq_sequence", whole="error_type")
        .collect()
        .unique(["epoch", "dlq_sequence"])
    )
    joined = rows.join(whole, on=["epoch", "dlq_sequence"], how="left", maintain_order="left")
    return joined.with_columns(error_type=pl.coalesce("whole", "error_type")).drop("whole")


def _update(connection: Connection[Any], frame: pl.DataFrame) -> None:
    names = ("id", "group_id", "parent_id", "cause_id", "fingerprint_version", "fingerprint_rules")
    connection.execute(
        "UPDATE failed_events f SET (group_id, parent_id, cause_id, fingerprint_version,"
        " fingerprint_rules)"
        " = (n.group_id, n.parent_id, n.cause_id, n.version, n.rules) FROM"
        " unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::text[])"
        " AS n (id, group_id, parent_id, cause_id, version, rules) WHERE f.id = n.id",
        [frame[name].to_list() for name in names],
    )
