"""The lake: Delta tables of Parquet, each appended together with its own watermark.

A commit holds the files and two application transactions in one log entry: how far the table
holds the log (by epoch), and a generation that fences a stopped writer which wakes up later.
"""

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.writer import ColumnProperties

from pipelines.deadletter.frames import (
    CASE_EVENT_SCHEMA,
    DEAD_LETTER_SCHEMA,
    SERVICE_TOTALS_SCHEMA,
)
from pipelines.errors import FencedError, LakeError


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Columns and partitioning of one table of the lake."""

    schema: dict[str, pl.DataType]
    partition_by: tuple[str, ...] = ("dlq_date",)
    # Only these get min/max statistics: those of texts and ids would outlive an erasure.
    statistics: tuple[str, ...] = ("dlq_sequence", "published_at")


LAYOUTS = {
    "dead_letters": TableLayout(
        DEAD_LETTER_SCHEMA, statistics=("dlq_sequence", "published_at", "dlq_timestamp")
    ),
    "case_events": TableLayout(CASE_EVENT_SCHEMA),
    "service_totals": TableLayout(SERVICE_TOTALS_SCHEMA, (), ("totals_sequence", "published_at")),
}
_GENERATION = "drain"


class Lake:
    """The tables below one folder or object store URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")

    def table(self, name: str) -> "LakeTable":
        """One table of the log, made where it is absent.

        Raises LakeError where the lake can not be read or written.
        """
        return LakeTable(self, name, LAYOUTS[name])

    def path(self, name: str) -> str:
        """Where a table is."""
        return f"{self.uri}/{name}"

    def files(self, name: str) -> list[str]:
        """The live data files of a table, oldest first; none where there is no such table."""
        try:
            return sorted(_open(self.path(name)).file_uris())
        except TableNotFoundError:
            return []

    def watermark(self, name: str, epoch: str) -> int:
        """The last sequence of an epoch that a table holds; 0 where it has none."""
        try:
            return _open(self.path(name)).transaction_version(epoch) or 0
        except TableNotFoundError:
            return 0

    def read(self, name: str) -> pl.DataFrame:
        """A whole table, for tests and small tables."""
        return pl.read_delta(self.path(name))

    def overwrite(self, name: str, frame: pl.DataFrame) -> None:
        """Replace a mart."""
        try:
            write_deltalake(
                self.path(name),
                frame.to_arrow(),
                mode="overwrite",
                schema_mode="overwrite",
                writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
            )
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"The lake table {self.path(name)} was not written: {_line(error)}"
            ) from error


class LakeTable:
    """One table as its single writer sees it.

    The watermark is read from, and the append made on, one and the same snapshot; a fresh
    snapshot would accept rows that another drain has written meanwhile.
    """

    def __init__(self, lake: Lake, name: str, layout: TableLayout) -> None:
        self._path = lake.path(name)
        self._layout = layout
        self._is_local = "://" not in self._path
        try:
            self._table = DeltaTable.create(
                self._path,
                pl.DataFrame(schema=layout.schema).to_arrow().schema,
                mode="ignore",
                partition_by=list(layout.partition_by) or None,
                configuration={
                    "delta.dataSkippingStatsColumns": ",".join(layout.statistics),
                    "delta.logRetentionDuration": "interval 30 days",
                },
            )
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"The lake can not be opened at {self._path}: {_line(error)}. Set DLQ_LAKE_URI to a"
                " folder that can be written."
            ) from error

    def watermark(self, epoch: str) -> int | None:
        """The last sequence of `epoch` that this table holds; None where it has none."""
        return self._table.transaction_version(epoch)

    def positions(self, epoch: str, after: int) -> list[tuple[int, datetime]]:
        """Sequence and server time of the rows of an epoch above `after`, in order."""
        rows = (
            pl.scan_delta(self._table)
            .filter(pl.col("epoch") == epoch, pl.col("dlq_sequence") > after)
            .select("dlq_sequence", "published_at")
            .sort("dlq_sequence")
        )
        return rows.collect().rows()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever appended."""
        return self._table.transaction_version(_GENERATION) is None

    def empty_frame(self) -> pl.DataFrame:
        """No rows, in the table's columns."""
        return pl.DataFrame(schema=self._layout.schema)

    def append(self, frame: pl.DataFrame, epoch: str, last_sequence: int) -> None:
        """Add rows and the watermark in one commit; an empty frame moves the watermark alone.

        Raises FencedError where another writer committed since the snapshot, LakeError where the
        commit failed; nothing was written then.
        """
        generation = (self._table.transaction_version(_GENERATION) or 0) + 1
        before = self._table.version()
        try:
            write_deltalake(
                self._table,
                frame.to_arrow(),
                mode="append",
                schema_mode="merge",  # a table that an older version made lacks columns
                writer_properties=self._writer_properties(),
                commit_properties=CommitProperties(
                    app_transactions=[
                        Transaction(epoch, last_sequence),
                        Transaction(_GENERATION, generation),
                    ]
                ),
            )
        except CommitFailedError as error:
            if "oncurrent" not in str(error):
                raise LakeError(
                    f"The lake table {self._path} was not written: {_line(error)}."
                ) from error
            raise FencedError(
                f"Another drain wrote to {self._path} meanwhile; it goes on, this one stops."
            ) from error
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"The lake table {self._path} was not written: {_line(error)}."
            ) from error
        if self._is_local:
            _sync_commits(Path(self._path), before + 1, self._table.version())

    def _writer_properties(self) -> WriterProperties:
        statistics = ColumnProperties(statistics_enabled="PAGE")
        return WriterProperties(
            compression="ZSTD",
            compression_level=1,
            default_column_properties=ColumnProperties(statistics_enabled="NONE"),
            column_properties=dict.fromkeys(self._layout.statistics, statistics),
        )


def _open(path: str) -> DeltaTable:
    try:
        return DeltaTable(path)
    except TableNotFoundError:
        raise
    except (DeltaError, OSError) as error:
        raise LakeError(f"The lake table {path} can not be read: {_line(error)}.") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _sync_commits(table: Path, first: int, last: int) -> None:
    """Make commits survive a power loss: deltalake renames and links, but does not fsync."""
    log = table / "_delta_log"
    folders = {log, table}
    for version in range(first, last + 1):
        entry = log / f"{version:020}.json"
        for line in entry.read_text().splitlines():
            if added := json.loads(line).get("add"):
                file = table / added["path"]
                _fsync(file)
                folders.add(file.parent)
        _fsync(entry)
    for folder in folders:
        _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
