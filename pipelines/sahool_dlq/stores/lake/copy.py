"""A consistent copy of the lake, even while it changes.

Files of a lake never change, and those that leave its log stay for days. So the log is read first,
then exactly the files that it names are copied and checked against their checksums, and an
equivalent log is written last.
"""

from dataclasses import dataclass
from datetime import datetime

from sahool_dlq.errors import LakeError
from sahool_dlq.stores.lake.delta import one_line
from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.lake import LAYOUTS, Lake
from sahool_dlq.stores.lake.torn_log import begin_anew, read_log

__all__ = ["CopiedTable", "copy_lake"]


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """The copied part of one table."""

    table: str
    files: int
    size_bytes: int


def copy_lake(lake: Lake, target: Lake, now: datetime) -> list[CopiedTable]:
    """Copy the tables of the log to an empty place; marts are computed again there.

    Raises LakeError if the place is not empty, or something in the lake is damaged.
    """
    done = []
    try:
        if any(FileStore(target.path(name), (), None).paths() for name in LAYOUTS):
            raise LakeError(f"There is a lake at {target.uri} already: give an empty folder.")
        for name in LAYOUTS:
            source, store = (FileStore(place.path(name), (), None) for place in (lake, target))
            log = read_log(source)
            if log.faults:
                raise LakeError(
                    f"The log of {lake.path(name)} is damaged: run `dlq verify --repair` first."
                )
            if log.last_version < 0:
                continue
            copied = [source.copy_to(store, path) for path in log.state.files]
            begin_anew(store, log.state, now)
            done.append(CopiedTable(name, len(copied), sum(copied)))
    except OSError as error:
        raise LakeError(f"The lake was not copied to {target.uri}: {one_line(error)}.") from error
    return done
