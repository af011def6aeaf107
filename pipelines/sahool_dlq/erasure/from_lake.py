"""Removes messages from the lake so that no file contains them, not even an old one."""

from collections.abc import Callable
from datetime import datetime

import polars as pl

from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.tombstones import not_erased

__all__ = ["erase_marts", "erase_rows"]

_PLACE = ("epoch", "dlq_sequence", "published_at")


def erase_rows(
    table: LakeTable, erased: pl.DataFrame, now: datetime, tell: Callable[[], object]
) -> int:
    """Rewrite the files with erased messages, then delete all files that are not live.

    These may include new files of a writer with an older snapshot: the commit, which is made in any
    case, fences that writer. So only files that existed before the commit are deleted. Returns the
    number of removed rows. Raises FencedError if another process rewrote files meanwhile.
    """
    before = table.store.paths()
    holders, count = [], 0
    for file in table.files:
        places = table.read(file, _PLACE)
        if gone := places.height - not_erased(places, erased).height:
            holders.append(file)
            count += gone
        tell()
    rows = (not_erased(table.read(file), erased) for file in holders)
    table.replace(holders, rows, now, is_data_change=True, is_fencing=True)
    live = {file.path for file in table.files}
    table.store.delete(path for path in sorted(before - live) if not path.startswith("_delta_log/"))
    return count


def erase_marts(lake: Lake) -> None:
    """Delete the marts with their logs, whose statistics contain ids; they are computed again.

    Each log is deleted from its newest entry on. If the process is killed here, an older table is
    left, or none.
    """
    store = FileStore(lake.path("marts"), (), None)
    logs = sorted((path for path in store.paths() if "/_delta_log/" in path), reverse=True)
    store.delete(logs)
    store.delete(store.paths())
