"""Messages taken out of the lake so that no file has them any more, whatever its age."""

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
    """Rewrite the files that hold erased messages, then delete all that are not live.

    Among those may be files in flight, of one who works on an older snapshot: the commit, which is
    made in any case, fences whoever that is. So only files that were there before it are deleted.
    Returns how many rows went. Raises FencedError where another rewrote files meanwhile.
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
    """Delete the marts with their logs, whose statistics have ids; they are computed anew.

    Each log from its newest entry on, so that one who is killed leaves an older table, or none.
    """
    store = FileStore(lake.path("marts"), (), None)
    logs = sorted((path for path in store.paths() if "/_delta_log/" in path), reverse=True)
    store.delete(logs)
    store.delete(store.paths())
