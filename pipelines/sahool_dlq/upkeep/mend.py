"""Finds damaged logs of the lake's tables, and starts them again from their readable content.

The data of unreadable entries is not lost: its files are still in the table's folder, and `Repair`
takes missing rows from them. A mart is deleted and computed again.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from sahool_dlq.errors import LakeError
from sahool_dlq.stores.lake.delta import new_table, one_line
from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.lake import LAYOUTS, LOG_TABLES, Lake
from sahool_dlq.stores.lake.table import CONTENT, FILES, GENERATION
from sahool_dlq.stores.lake.torn_log import (
    LOG,
    POINTER,
    Lost,
    TableLog,
    TableState,
    begin_anew,
    drop_pointer,
    read_log,
)
from sahool_dlq.upkeep.compare import Finding

__all__ = ["Mended", "mend_logs", "torn_logs"]

_MARTS = "marts"


@dataclass(slots=True)
class Mended:
    """The damage of the logs, and the tables with a new log."""

    findings: list[Finding] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)  # of the log, that began anew
    lost: list[Lost] = field(default_factory=list)  # what their entries covered


def torn_logs(lake: Lake) -> list[Finding]:
    """The damage of the logs of all tables; changes nothing."""
    return [finding for name, _, log in _logs(lake) for finding in _findings(name, log)]


def mend_logs(lake: Lake, now: datetime) -> Mended:
    """Repair every damaged log. The caller must hold the drain's lock."""
    done = Mended()
    for name, store, log in _logs(lake):
        if not log.faults:
            continue
        done.findings += _findings(name, log)
        if log.faults.keys() == {POINTER}:
            drop_pointer(store)
        elif name not in LAYOUTS:
            # From the newest entry on: if the process is killed here, an older table is left, or
            # none.
            store.delete(sorted(store.paths(LOG), reverse=True))
            store.delete(store.paths())
        else:
            _begin_anew(name, store, log, now)
            done.tables.append(name)
            done.lost += log.lost if name in LOG_TABLES else []
    return done


def _logs(lake: Lake) -> Iterator[tuple[str, FileStore, TableLog]]:
    for name in (*LAYOUTS, *_mart_tables(lake)):
        store = FileStore(lake.path(name), (), None)
        try:
            yield name, store, read_log(store, has_marks=name in LAYOUTS)
        except OSError as error:
            raise LakeError(
                f"The log of {lake.path(name)} cannot be read: {one_line(error)}."
            ) from error


def _mart_tables(lake: Lake) -> list[str]:
    paths = FileStore(lake.path(_MARTS), (), None).paths()
    found = {path.partition(f"/{LOG}")[0] for path in paths if f"/{LOG}" in path}
    return [f"{_MARTS}/{name}" for name in sorted(found)]


def _findings(name: str, log: TableLog) -> list[Finding]:
    return [
        Finding("torn_log", f"{name}/{file}", f"{name}/{file} is torn: {reason}.", 1)
        for file, reason in log.faults.items()
    ]


def _begin_anew(name: str, store: FileStore, log: TableLog, now: datetime) -> None:
    state = log.state
    if state.metadata is None or state.protocol is None:
        with tempfile.TemporaryDirectory() as folder:
            new_table(folder, LAYOUTS[name])
            empty = read_log(FileStore(folder, (), None)).state
        state.metadata, state.protocol = empty.metadata, empty.protocol
        if not any("#" in mark for mark in state.marks):
            state.marks |= _marks_of_files(store, state)
    for mark in (GENERATION, FILES, CONTENT):  # a writer with the older log is refused
        state.marks[mark] = state.marks.get(mark, 0) + 1
    state.version = log.last_version + 1
    begin_anew(store, state, now)


def _marks_of_files(store: FileStore, state: TableState) -> dict[str, int]:
    """Up to where the files in a folder contain the log, by epoch, if no log says it."""
    marks: dict[str, int] = {}
    for file in store.left_files(state.files):
        rows = store.read(file)
        if {"epoch", "dlq_sequence"} <= {*rows.columns}:
            highest = rows.group_by("epoch").agg(pl.col("dlq_sequence").max())
            for epoch, mark in highest.iter_rows():
                marks[epoch] = max(mark, marks.get(epoch, 0))
    return marks
