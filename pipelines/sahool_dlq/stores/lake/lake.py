"""The lake: Delta tables of Parquet below one folder or object store URI."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import polars as pl
from deltalake import (
    DeltaTable,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError, TableNotFoundError

from sahool_dlq.deadletter.rows import (
    CASE_EVENT_SCHEMA,
    DEAD_LETTER_SCHEMA,
    ERASED_SCHEMA,
    SERVICE_TOTALS_SCHEMA,
)
from sahool_dlq.errors import LakeError
from sahool_dlq.stores.lake.delta import TableLayout, one_line, open_table, reading, scanned
from sahool_dlq.stores.lake.table import CONTENT, LakeTable

if TYPE_CHECKING:  # it loads pandas, where that is installed: a third of a second
    from pyarrow.dataset import Dataset

__all__ = ["LAYOUTS", "LOG_TABLES", "Lake"]

LAYOUTS = {
    "dead_letters": TableLayout(
        DEAD_LETTER_SCHEMA, statistics=("dlq_sequence", "published_at", "dlq_timestamp")
    ),
    "case_events": TableLayout(CASE_EVENT_SCHEMA),
    "service_totals": TableLayout(SERVICE_TOTALS_SCHEMA, (), ("totals_sequence", "published_at")),
    "erased_messages": TableLayout(ERASED_SCHEMA, ()),
}
_OWNED, _OWNER = "dead_letters", "dlq.platform"  # the table with the owner's id, and its property
LOG_TABLES = ("dead_letters", "case_events")  # those that hold the log's messages


class Lake:
    """The tables below one folder or object store URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.is_local = "://" not in uri

    def table(self, name: str) -> LakeTable:
        """One table of the log, created if missing.

        Raises LakeError if the lake cannot be read or written.
        """
        return LakeTable(self.path(name), name, LAYOUTS[name])

    def path(self, name: str) -> str:
        """The path of a table."""
        return f"{self.uri}/{name}"

    def files(self, name: str) -> list[str]:
        """The live data files of a table, oldest first; empty if there is no such table."""
        try:
            table = open_table(self.path(name))
        except TableNotFoundError:
            return []
        files = sorted(table.file_uris())
        if self.is_local:  # the folder is escaped as in a URI, which file functions do not expect
            escaped = urlsplit(table.table_uri).path
            files = [unquote(escaped) + file.removeprefix(escaped) for file in files]
        return files

    def dataset(self, name: str) -> "Dataset | None":
        """A table for Arrow, in a folder or an object store; None if there is no such table."""
        try:
            return open_table(self.path(name)).to_pyarrow_dataset()
        except TableNotFoundError:
            return None

    def watermark(self, name: str, epoch: str) -> int:
        """The last sequence of an epoch in a table; 0 if it has none."""
        try:
            return open_table(self.path(name)).transaction_version(epoch) or 0
        except TableNotFoundError:
            return 0

    def version(self, name: str) -> int | None:
        """The number of a table's newest commit; None if there is no such table."""
        try:
            return open_table(self.path(name)).version()
        except TableNotFoundError:
            return None

    @property
    def owner(self) -> str | None:
        """The id of the platform that owns it; None if it has none."""
        try:
            return open_table(self.path(_OWNED)).metadata().configuration.get(_OWNER)
        except TableNotFoundError:
            return None

    def give_to(self, owner: str) -> None:
        """Set the platform that owns it; raises LakeError."""
        self.table(_OWNED)
        with reading(self.path(_OWNED)):
            table = open_table(self.path(_OWNED))
            table.alter.set_table_properties({_OWNER: owner}, raise_if_not_exists=False)

    def content(self, name: str) -> str:
        """A value that stays the same while a table of the log only grows, or rows move between
        files.
        """
        try:
            table = open_table(self.path(name))
        except TableNotFoundError:
            return ""
        return f"{table.metadata().id} {table.transaction_version(CONTENT) or 0}"

    def read(self, name: str) -> pl.DataFrame:
        """A whole table, for tests and small tables."""
        with reading(self.path(name)):
            return scanned(open_table(self.path(name))).collect()

    def vacuum(self, name: str, hours: int) -> int:
        """Delete files that left the log that long ago, or were never in it; returns how many."""
        try:
            table = DeltaTable(self.path(name))
            return len(table.vacuum(retention_hours=hours, dry_run=False, full=True))
        except TableNotFoundError:
            return 0
        except (DeltaError, OSError) as error:
            raise LakeError(f"{self.path(name)} was not vacuumed: {one_line(error)}.") from error

    def overwrite(
        self,
        name: str,
        frame: pl.DataFrame,
        *,
        by_day: bool = False,
        days: Sequence[date] | None = None,
    ) -> None:
        """Replace a mart; if it is stored `by_day`, replace these days by their rows in `frame`."""
        listed = ", ".join(f"'{day}'" for day in days or ())
        try:
            write_deltalake(
                self.path(name),
                frame.to_arrow(),
                mode="overwrite",
                schema_mode=None if days else "overwrite",
                partition_by=["dlq_date"] if by_day else None,
                predicate=f"dlq_date IN ({listed})" if days else None,
                writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
            )
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"The lake table {self.path(name)} was not written: {one_line(error)}"
            ) from error
