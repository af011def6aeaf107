"""One table of the lake for its single writer: rows are appended together with their watermark.

A commit contains the files and two application transactions in one log entry: the position in the
log (by epoch), and a generation that fences a stopped writer that continues later.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import (
    CommitProperties,
    DeltaTable,
    Schema,
    Transaction,
)
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction

from sahool_dlq.errors import FencedError, LakeError
from sahool_dlq.stores.lake.delta import (
    TableLayout,
    is_removed,
    new_table,
    not_read,
    one_line,
    open_table,
    reading,
    scanned,
)
from sahool_dlq.stores.lake.files import FileStore, LakeFile, live_files, sync

__all__ = [
    "CONTENT",
    "FILES",
    "GENERATION",
    "LakeTable",
]

GENERATION = "drain"  # fences a writer that stopped and continues later
CONTENT = "content"  # counts changes of rows other than appends
FILES = "files"  # fences two rewrites at once, which deltalake would allow


class LakeTable:
    """One table for its single writer.

    The watermark is read from the same snapshot that the append is based on; a new snapshot would
    accept rows that another drain has written meanwhile.
    """

    def __init__(self, path: str, name: str, layout: TableLayout) -> None:
        self.name = name
        self.path = path
        self._layout = layout
        partition = layout.partition_by[0] if layout.partition_by else None
        self._schema = pl.DataFrame(schema=layout.schema).to_arrow().schema
        try:
            self.store = FileStore(self.path, layout.statistics, partition)
            self._table = self._open()
            self._add_new_columns()
            self._generation = self._table.transaction_version(GENERATION)
        except (DeltaError, OSError) as error:
            advice = (
                "Set DLQ_LAKE_URI to a writable folder; if it was damaged, run"
                " `dlq verify --repair`."
                if "://" not in path
                else "Set DLQ_LAKE_URI to a bucket that exists, and address, region and keys in"
                " the store's own variables (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, …);"
                " if it was damaged, run `dlq verify --repair`."
            )
            raise LakeError(
                f"The lake cannot be opened at {self.path}: {one_line(error)}. {advice}"
            ) from error

    def _open(self) -> DeltaTable:
        """The table, created if missing."""
        if DeltaTable.is_deltatable(self.path):
            return DeltaTable(self.path)
        if any(path.endswith(".parquet") for path in self.store.paths()):
            raise LakeError(
                f"{self.path} has data files but no log: put its log back, or run `dlq verify"
                f" --repair`, which rebuilds it from them."
            )
        return new_table(self.path, self._layout)

    def watermark(self, epoch: str) -> int | None:
        """The last sequence of `epoch` in this table; None if it has none."""
        with reading(self.path):
            return self._table.transaction_version(epoch)

    def epochs(self, prefix: str) -> dict[str, int]:
        """The first sequence of each epoch with rows whose id begins with `prefix`."""
        rows = (
            self._scan(pl.col("epoch").str.starts_with(prefix))
            .group_by("epoch")
            .agg(pl.col("dlq_sequence").min())
        )
        return dict(self._collect(rows).iter_rows())

    def rows(self, epoch: str, after: int, up_to: int) -> pl.DataFrame:
        """The rows of an epoch above `after`, up to and including `up_to`, in order."""
        is_wanted = (pl.col("epoch") == epoch) & (pl.col("dlq_sequence") > after)
        rows = self._scan(is_wanted & (pl.col("dlq_sequence") <= up_to))
        return self._collect(rows).select(*self._layout.schema).sort("dlq_sequence")

    def positions(self, life: str, after: int) -> list[tuple[int, datetime]]:
        """Sequence and server time of a life's rows above `after`, in order.

        If two forks used a sequence, that of the later one.
        """
        is_wanted = pl.col("epoch").str.starts_with(f"{life}#") & (pl.col("dlq_sequence") > after)
        fork = pl.col("epoch").str.extract("#([0-9]+)$").cast(pl.Int64)
        rows = self._scan(is_wanted).select("dlq_sequence", "published_at", fork=fork)
        latest = self._collect(rows).sort("dlq_sequence", "fork")
        latest = latest.unique("dlq_sequence", keep="last", maintain_order=True)
        return latest.select("dlq_sequence", "published_at").rows()

    def of_other_forks(self, epoch: str, after: int) -> pl.DataFrame:
        """`dlq_sequence` and `published_at` of rows above `after` of the life's other forks."""
        is_wanted = pl.col("epoch").str.starts_with(epoch.rpartition("#")[0] + "#")
        is_wanted &= (pl.col("epoch") != epoch) & (pl.col("dlq_sequence") > after)
        return self._collect(self._scan(is_wanted).select("dlq_sequence", "published_at"))

    def select(self, columns: Sequence[str], is_wanted: pl.Expr) -> pl.DataFrame:
        """Some columns of the selected rows, in no order."""
        return self._collect(self._scan(is_wanted).select(columns))

    def _scan(self, is_wanted: pl.Expr) -> pl.LazyFrame:
        with reading(self.path):
            return scanned(self._table).filter(is_wanted)

    def _collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        try:
            return rows.collect()
        except (pl.exceptions.PolarsError, DeltaError, OSError) as error:
            raise not_read(self.path, error) from error

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever appended."""
        with reading(self.path):
            return self._table.transaction_version(GENERATION) is None

    @property
    def files(self) -> list[LakeFile]:
        """The live files of the snapshot, in log order of their rows."""
        with reading(self.path):
            actions = pl.DataFrame(pa.table(self._table.get_add_actions(flatten=True)))
        return sorted(live_files(actions), key=lambda file: (file.first_sequence or 0, file.path))

    def read(self, file: LakeFile, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of a live file in the table's columns, or some of them; missing columns are
        null.

        Raises LakeError if it is missing or damaged.
        """
        try:
            rows = self.store.read(file, columns)
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            raise LakeError(
                f"{self.path}/{file.path} is damaged ({one_line(error)}): `dlq verify --repair`"
                " rebuilds it."
            ) from error
        return pl.concat([self.empty_frame(), rows], how="diagonal_relaxed").select(
            pl.col(name).cast(self._layout.schema[name]) for name in columns or self._layout.schema
        )

    def empty_frame(self) -> pl.DataFrame:
        """No rows, in the table's columns."""
        return pl.DataFrame(schema=self._layout.schema)

    def append(self, frame: pl.DataFrame, epoch: str, last_sequence: int) -> None:
        """Add rows and the watermark in one commit; an empty frame only moves the watermark.

        Raises FencedError if another writer committed since the snapshot, LakeError if the commit
        failed; then nothing was written.
        """
        self._commit([frame], {epoch: last_sequence, **self._next_generation()})

    def replace(
        self,
        removed: Sequence[LakeFile],
        rows: Iterable[pl.DataFrame],
        now: datetime,
        *,
        is_data_change: bool,
        is_fencing: bool = False,
        is_compaction: bool = False,
    ) -> None:
        """Replace files with files that contain these rows, in one commit; watermarks stay.

        Without `is_data_change` the messages are the same as before; in a compaction all rows are.
        Drains continue undisturbed, unless `is_fencing`: then one with an older snapshot stops.
        Raises as `append` does.
        """
        versions = {FILES: (self.watermark(FILES) or 0) + 1}
        if not is_compaction:
            versions[CONTENT] = (self.watermark(CONTENT) or 0) + 1
        if is_fencing:
            versions |= self._next_generation()
        leaving = [self.store.remove(file, now, is_data_change=is_data_change) for file in removed]
        self._commit(rows, versions, leaving, is_data_change=is_data_change)

    def _next_generation(self) -> dict[str, int]:
        return {GENERATION: (self._generation or 0) + 1}

    def _commit(
        self,
        rows: Iterable[pl.DataFrame],
        versions: Mapping[str, int],
        leaving: Sequence[RemoveAction] = (),
        *,
        is_data_change: bool = True,
    ) -> None:
        if self.watermark(GENERATION) != self._generation:
            raise self._fenced()
        before = self._table.version()
        actions: list[AddAction | RemoveAction] = [*leaving]
        try:
            for frame in rows:
                actions += self.store.write(frame, is_data_change=is_data_change)
            self._table.create_write_transaction(
                actions,
                "append",
                self._schema,
                list(self._layout.partition_by),
                commit_properties=CommitProperties(
                    app_transactions=[Transaction(*item) for item in versions.items()]
                ),
            )
            self._generation = versions.get(GENERATION, self._generation)
            # also shows another's commit, which the next append refuses
            self._table.update_incremental()
        except CommitFailedError as error:
            if not re.search("oncurrent|changed since", str(error)):
                raise self._not_written(error) from error
            self._delete_unless_live(actions)
            raise self._fenced() from error
        except (DeltaError, OSError, pa.ArrowException) as error:
            if is_removed(self.path):  # data files without a log would look like a damaged table
                self.store.delete(a.path for a in actions if isinstance(a, AddAction))
            raise self._not_written(error) from error
        if "://" not in self.path:
            _sync_log(Path(self.path) / "_delta_log", before + 1, self._table.version())

    def _delete_unless_live(self, actions: Sequence[AddAction | RemoveAction]) -> None:
        """Delete the files of a refused commit: they may contain data that were erased meanwhile.

        Files that were committed after all are kept, for example if an object store's answer was
        lost.
        """
        live = set(
            pa.table(open_table(self.path).get_add_actions(flatten=True))["path"].to_pylist()
        )
        written = {action.path for action in actions if isinstance(action, AddAction)}
        with suppress(OSError):  # a vacuum deletes them later
            self.store.delete(written - live)

    def _fenced(self) -> FencedError:
        return FencedError(
            f"Another drain wrote to {self.path} meanwhile; it continues, this one stops."
        )

    def _not_written(self, error: Exception) -> LakeError:
        if is_removed(self.path):
            return not_read(self.path, error)
        return LakeError(f"The lake table {self.path} was not written: {one_line(error)}.")

    def _add_new_columns(self) -> None:
        """Add missing columns to a table of an older version; old files have null there."""
        known = {field.name for field in self._table.schema().fields}
        wanted = Schema.from_arrow(self._schema).fields
        if missing := [field for field in wanted if field.name not in known]:
            self._table.alter.add_columns(missing)
            self._table.update_incremental()


def _sync_log(log: Path, first: int, last: int) -> None:
    """Make commits survive a power loss: deltalake renames and links, but does not fsync."""
    files = [log / f"{version:020}.json" for version in range(first, last + 1)]
    files += [path for file in files for path in log.glob(f"{file.stem}.checkpoint*")]
    sync([*files, log, log.parent])
