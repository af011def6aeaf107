"""Keeps the lake fast and small: few sorted files, no unused files, no expired rows.

This and drains do not stop each other: appends and rewrites have separate counters in the log. Two
rewrites at once are detected, and the later one starts again.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import polars as pl

from sahool_dlq.errors import FencedError
from sahool_dlq.stores.lake.files import LakeFile
from sahool_dlq.stores.lake.lake import LAYOUTS, Lake

logger = logging.getLogger(__name__)

FILE_BYTES = 32 << 20
"""About the size of a compacted file: some 60,000 dead letters, sorted in memory."""

VACUUM_HOURS = 7 * 24
"""How long files that left the log are kept, for readers of an older version and for a repair."""


@dataclass(frozen=True, slots=True)
class TableCare:
    """The maintenance of one table."""

    table: str
    files_before: int
    files_after: int
    expired_rows: int  # removed by the retention
    vacuumed_files: int


def care_for(
    lake: Lake, now: datetime, kept_since: datetime | None, marts: Sequence[str] = ()
) -> list[TableCare]:
    """Expire, compact and vacuum every table of the log, and vacuum the marts."""
    done = []
    for name in LAYOUTS:
        before = len(lake.table(name).files)
        expired = _expire(lake, name, kept_since, now) if kept_since else 0
        _compact(lake, name, now)
        after = len(lake.table(name).files)
        done.append(TableCare(name, before, after, expired, lake.vacuum(name, VACUUM_HOURS)))
    for mart in marts:
        lake.vacuum(f"marts/{mart}", VACUUM_HOURS)
    return done


def bins(files: Iterable[LakeFile], file_bytes: int = FILE_BYTES) -> Iterator[list[LakeFile]]:
    """Small files of one day, neighbours in the log, to merge into one; at least two."""
    small = [file for file in files if file.size_bytes < file_bytes // 2]
    for _, of_day in groupby(sorted(small, key=_by_day), key=lambda file: file.day):
        current: list[LakeFile] = []
        size = 0
        for file in of_day:
            if size + file.size_bytes > file_bytes and len(current) > 1:
                yield current
                current, size = [], 0
            current.append(file)
            size += file.size_bytes
        if len(current) > 1:
            yield current


def _by_day(file: LakeFile) -> tuple[str, int, str]:
    return str(file.day), file.first_sequence or 0, file.path


def _compact(lake: Lake, name: str, now: datetime) -> None:
    for files in list(bins(lake.table(name).files)):
        table = lake.table(name)  # the newest snapshot: a drain may have appended meanwhile
        if not {file.path for file in files} <= {file.path for file in table.files}:
            continue  # rewritten by another
        rows = pl.concat(table.read(file) for file in files).sort(LAYOUTS[name].statistics[0])
        try:
            table.replace(files, [rows], now, is_data_change=False, is_compaction=True)
        except FencedError as error:
            logger.info("%s Compaction of %s is left to the next run.", error, name)
            return


def _expire(lake: Lake, name: str, kept_since: datetime, now: datetime) -> int:
    """Remove rows older than the retention; returns how many."""
    table = lake.table(name)
    old = [file for file in table.files if file.first_at and file.first_at < kept_since]
    if not old:
        return 0
    frames = [table.read(file) for file in old]
    kept = [frame.filter(pl.col("published_at") >= kept_since) for frame in frames]
    table.replace(old, kept, now, is_data_change=True)
    return _height(frames) - _height(kept)


def _height(frames: Sequence[pl.DataFrame]) -> int:
    return sum(frame.height for frame in frames)
