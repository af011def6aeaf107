"""Delta tables of the lake: create, open and scan one, and say in one sentence why that failed."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from sahool_dlq.errors import LakeError

__all__ = [
    "TableLayout",
    "is_removed",
    "new_table",
    "not_read",
    "one_line",
    "open_table",
    "reading",
    "scanned",
]

_ARROW = re.compile(r"\s*(?:\x1b\[\d*m)*↳(?:\x1b\[\d*m)*")  # deltalake colours what caused what
_OS_ERROR = re.compile(r' Error: Os \{ code: \d+, kind: \w+, message: "([^"]*)" \}')  # Rust's
_XML = re.compile(r"<\?xml.*<Code>(\w+)</Code>.*</Error>")  # an object store's answer


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Columns and partitioning of one table of the lake."""

    schema: dict[str, pl.DataType]
    partition_by: tuple[str, ...] = ("dlq_date",)
    # Only these get min/max statistics, because those of texts and ids would survive an erasure.
    statistics: tuple[str, ...] = ("dlq_sequence", "published_at")


def open_table(path: str) -> DeltaTable:
    """The current table; raises LakeError if it cannot be read."""
    with reading(path):
        return DeltaTable(path)


def scanned(table: DeltaTable) -> pl.LazyFrame:
    """Its rows; Polars' own reader does not find a file whose folder is escaped in a URI."""
    return pl.scan_delta(table, use_pyarrow="%" in table.table_uri)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Convert errors of reading a table to ours, except a missing table: TableNotFoundError."""
    try:
        yield
    except TableNotFoundError:
        raise
    except (DeltaError, OSError) as error:
        raise not_read(path, error) from error


def new_table(path: str, layout: TableLayout) -> DeltaTable:
    """Create an empty table; if another process just created it, open that one."""
    return DeltaTable.create(
        path,
        pl.DataFrame(schema=layout.schema).to_arrow().schema,
        mode="ignore",
        partition_by=list(layout.partition_by) or None,
        configuration={
            "delta.dataSkippingStatsColumns": ",".join(layout.statistics),
            "delta.logRetentionDuration": "interval 30 days",
            "delta.checkpointInterval": "20",  # by 100, each commit reads ever more
        },
    )


def is_removed(path: str) -> bool:
    """Whether a folder with the table's log no longer exists; False in an object store."""
    return "://" not in path and not Path(path, "_delta_log").is_dir()


def not_read(path: str, error: Exception) -> LakeError:
    """The error for a table that cannot be read."""
    if is_removed(path):
        return LakeError(
            f"The lake table {path} no longer exists: somebody removed it. Restore a copy, or run"
            f" `dlq drain`, which creates it again from the stream and Postgres."
        )
    return LakeError(
        f"The lake table {path} cannot be read: {one_line(error)}: `dlq verify --repair` repairs "
        "a damaged log and rebuilds damaged files."
    )


def one_line(error: Exception) -> str:
    """The error in one line; deltalake may append a backtrace."""
    text = _ARROW.sub(": ", str(error).partition("   0: ")[0])
    text = _OS_ERROR.sub(r": \1", " ".join(text.split()))
    return _XML.sub(r"\1", text).rstrip(".")
