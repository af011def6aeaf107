"""The Parquet files of the lake: written sorted, with checksums, synced to disk before a commit.

They are written here and not by deltalake, whose writer has no page checksums and does not fsync.
"""

import hashlib
import io
import json
import os
import re
import time
import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction, RemoveAction
from pyarrow import fs

_ROW_GROUP_ROWS = 100_000
_SAMPLE_ROWS = 1_000
# A file's name ends in the start of its SHA-256: page checksums alone would miss a flipped footer.
_DIGEST_LENGTH = 32
_DAY = re.compile(r"dlq_date=(\d{4}-\d\d-\d\d)/")
_DIGEST = re.compile(rf"part-[0-9a-f]{{8}}-([0-9a-f]{{{_DIGEST_LENGTH}}})\.parquet$")


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A live file of a table, as the log describes it."""

    path: str  # below the table
    size_bytes: int
    row_count: int | None
    day: date | None  # its partition; None in a table without
    first_sequence: int | None
    last_sequence: int | None
    first_at: datetime | None  # earliest published_at


class FileStore:
    """The files below one table, on a disk or in an object store."""

    def __init__(self, path: str, statistics: Sequence[str], partition: str | None) -> None:
        self.path = path
        self._statistics = list(statistics)
        self._partition = partition
        self._is_local = "://" not in path
        self._files = (
            fs.SubTreeFileSystem(str(Path(path).absolute()), fs.LocalFileSystem())
            if self._is_local
            else fs.PyFileSystem(DeltaStorageHandler(path))
        )

    def write(self, frame: pl.DataFrame, *, is_data_change: bool = True) -> list[AddAction]:
        """Write the rows, one file per day; they count once they are committed."""
        if frame.is_empty():
            return []
        if self._partition is None:
            return [self._write_one(frame, None, is_data_change=is_data_change)]
        days = frame.partition_by(self._partition, maintain_order=True, as_dict=True)
        return [
            self._write_one(rows.drop(self._partition), day, is_data_change=is_data_change)
            for (day,), rows in days.items()
        ]

    def remove(self, file: LakeFile, now: datetime, *, is_data_change: bool) -> RemoveAction:
        """The action that removes a file from the table."""
        return RemoveAction(
            file.path,
            is_data_change,
            int(now.timestamp() * 1000),
            file.size_bytes,
            self._partition_values(file.day),
        )

    def read(self, file: LakeFile, columns: Iterable[str] | None = None) -> pl.DataFrame:
        """The rows of a file, each page checked against its checksum.

        Raises OSError or pyarrow's ArrowException if it is missing or damaged.
        """
        with self._open(file) as parquet:
            names = parquet.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in names]
            frame = pl.DataFrame(parquet.read(columns=wanted))
        return frame if file.day is None else frame.with_columns(dlq_date=pl.lit(file.day))

    def check(self, file: LakeFile, bytes_per_second: float | None = None) -> str | None:
        """The damage of a file, or None; it is read completely, not faster than the limit."""
        try:
            info = self._files.get_file_info(file.path)
            if info.type == fs.FileType.NotFound:
                return "it is missing"
            if info.size != file.size_bytes:
                return f"it has {info.size:,} bytes, not {file.size_bytes:,}"
            if digest := _DIGEST.search(file.path):
                is_whole = self._digest(file, bytes_per_second) == digest[1]
                return None if is_whole else self._torn_page(file)
            return self._wrong_page(file)
        except OSError as error:
            return _line(error)

    def paths(self, folder: str = "") -> set[str]:
        """Every file below the table, or in a folder of it, in the log or not."""
        found = self._files.get_file_info(
            fs.FileSelector(folder.rstrip("/"), allow_not_found=True, recursive=True)
        )
        return {info.path.lstrip("/") for info in found if info.type == fs.FileType.File}

    def read_bytes(self, path: str) -> bytes:
        """The bytes of a file; raises OSError."""
        with self._files.open_input_stream(path) as stream:
            return bytes(stream.read())

    def put(self, path: str, data: bytes) -> None:
        """Write a file, completely or not at all; on a disk an existing file is kept.

        Raises OSError, and FileExistsError if the file exists.
        """
        if self._is_local:
            file = Path(self.path) / path
            fresh = file.with_name(f".{uuid.uuid4().hex}")
            _write_durably(fresh, data)
            try:
                os.link(fresh, file)
            finally:
                fresh.unlink()
            sync([file.parent])
        else:
            self._put_object(path, data)

    def copy_to(self, other: "FileStore", path: str) -> int:
        """Copy a data file to another store; returns its size in bytes.

        Raises OSError, also if its bytes differ from those that were written.
        """
        data = self.read_bytes(path)
        digest = _DIGEST.search(path)
        if digest and hashlib.sha256(data).hexdigest()[:_DIGEST_LENGTH] != digest[1]:
            raise OSError(f"{self.path}/{path} is damaged: run `dlq verify --repair` first")
        other.put(path, data)
        return len(data)

    def left_files(self, live: Container[str]) -> Iterator[LakeFile]:
        """The data files that are not live but unchanged."""
        for path in sorted(self.paths()):
            if not path.endswith(".parquet") or path.startswith("_") or path in live:
                continue
            size = self._files.get_file_info(path).size or 0
            day = _DAY.match(path)
            file = LakeFile(
                path, size, None, date.fromisoformat(day[1]) if day else None, None, None, None
            )
            if self.check(file) is None:
                yield file

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files permanently, in this order."""
        for path in paths:
            with suppress(FileNotFoundError):  # a vacuum deleted it first
                self._files.delete_file(path)
            if self._is_local:
                sync([(Path(self.path) / path).parent])

    def has_checksums(self, file: LakeFile) -> bool:
        """Whether a file was written by this code: its pages have checksums, its name is its
        digest.
        """
        return _DIGEST.search(file.path) is not None

    def _digest(self, file: LakeFile, bytes_per_second: float | None) -> str:
        digest, started, read = hashlib.sha256(), time.monotonic(), 0
        with self._files.open_input_stream(file.path) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                read += len(block)
                if bytes_per_second:
                    time.sleep(max(0.0, started + read / bytes_per_second - time.monotonic()))
        return digest.hexdigest()[:_DIGEST_LENGTH]

    def _torn_page(self, file: LakeFile) -> str:
        return self._wrong_page(file) or "its bytes differ from those that were written"

    def _wrong_page(self, file: LakeFile) -> str | None:
        """The damage in the pages of a file, or None."""
        rows = 0
        try:
            with self._open(file) as parquet:
                for group in range(parquet.num_row_groups):
                    rows += parquet.read_row_group(group).num_rows
        except (OSError, ValueError, LookupError, pa.ArrowException) as error:
            return _line(error)  # a wrong footer makes the reader fail in many ways
        if file.row_count is not None and rows != file.row_count:
            return f"it has {rows:,} rows, not {file.row_count:,}"
        return None

    def _open(self, file: LakeFile) -> pq.ParquetFile:
        source = self._files.open_input_file(file.path)
        return pq.ParquetFile(source, page_checksum_verification=True)

    def _write_one(self, frame: pl.DataFrame, day: Any, *, is_data_change: bool) -> AddAction:
        values = self._partition_values(day)
        folder = "".join(f"{name}={value}/" for name, value in values.items())
        buffer = io.BytesIO()
        pq.write_table(
            frame.to_arrow(compat_level=pl.CompatLevel.newest()),
            buffer,
            row_group_size=_ROW_GROUP_ROWS,
            use_dictionary=_repeating(frame),  # type: ignore[arg-type]  # its stubs know no list
            write_statistics=self._statistics,
            write_page_index=True,
            write_page_checksum=True,
            compression="zstd",
            compression_level=1,
            store_schema=False,
        )
        size = buffer.tell()
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:_DIGEST_LENGTH]
        path = f"{folder}part-{uuid.uuid4().hex[:8]}-{digest}.parquet"
        if self._is_local:
            _write_durably(Path(self.path) / path, buffer.getbuffer())
        else:
            self._put_object(path, buffer.getbuffer())
        now = int(datetime.now(UTC).timestamp() * 1000)
        return AddAction(path, size, values, now, is_data_change, self._statistics_of(frame))

    def _put_object(self, path: str, data: bytes | memoryview) -> None:
        # Buffered, because deltalake's stream accepts only bytes.
        with self._files.open_output_stream(path, buffer_size=len(data) + 1) as stream:
            stream.write(data)

    def _partition_values(self, day: date | None) -> dict[str, str | None]:
        return {} if self._partition is None else {self._partition: str(day)}

    def _statistics_of(self, frame: pl.DataFrame) -> str:
        """The statistics in the log, with which readers skip files."""
        columns = [name for name in self._statistics if name in frame.columns]
        known = [name for name in columns if frame[name].null_count() < frame.height]
        return json.dumps(
            {
                "numRecords": frame.height,
                "minValues": {name: _in_log(frame[name].min()) for name in known},
                "maxValues": {name: _in_log(frame[name].max()) for name in known},
                "nullCount": {name: frame[name].null_count() for name in columns},
            }
        )


def live_files(actions: pl.DataFrame) -> Iterator[LakeFile]:
    """The files of a table, from its flattened add actions."""
    for row in actions.iter_rows(named=True):
        yield LakeFile(
            row["path"],
            row["size_bytes"],
            row.get("num_records"),
            row.get("partition.dlq_date"),
            row.get("min.dlq_sequence"),
            row.get("max.dlq_sequence"),
            _time(row.get("min.published_at")),
        )


def sync(paths: Iterable[Path]) -> None:
    """Sync files and folders, so that they survive a power loss."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _time(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value and value.tzinfo is None else value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def _repeating(frame: pl.DataFrame) -> list[str]:
    """The columns where a dictionary is useful: most values are repeated, unlike ids."""
    sample = frame.head(_SAMPLE_ROWS)
    return [c.name for c in sample if c.n_unique() <= sample.height / 2]


def _write_durably(file: Path, data: bytes | memoryview) -> None:
    is_new_folder = not file.parent.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        file.unlink(missing_ok=True)  # a partial file is useless, especially on a full disk
        raise
    sync([file.parent, *([file.parent.parent] if is_new_folder else [])])


def _in_log(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value
