"""Reads the log of a lake's table, entry by entry: which parts are damaged, and what the rest says.

A log that lost an entry or a checkpoint cannot be opened. If an entry is empty, or cut at a line
end, the log opens without an error, but the rows of that entry are missing. So the entries are read
here, and their content is written as a new beginning of the log: an entry and a checkpoint that
need nothing before them. Readers of the old log then miss nothing.
"""

import json
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from sahool_dlq.stores.lake.files import FileStore

__all__ = [
    "LOG",
    "POINTER",
    "Lost",
    "TableLog",
    "TableState",
    "begin_anew",
    "drop_pointer",
    "read_log",
]

LOG = "_delta_log/"
"""The folder of a log below its table."""

POINTER = f"{LOG}_last_checkpoint"
"""The file that names the newest checkpoint; if it is wrong, readers fail."""

_ENTRY = re.compile(rf"{LOG}(\d{{20}})\.json$")
_CHECKPOINT = re.compile(rf"{LOG}(\d{{20}})\.checkpoint(?:\.\d{{10}}\.(\d{{10}}))?\.parquet$")
_KINDS = ("add", "txn", "metaData", "protocol")
_READINGS = 10  # of a log that changes meanwhile
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException)

Action = Mapping[str, Any]
"""One line of an entry: an object with one key, its kind."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Sequences of an epoch in entries that cannot be read."""

    epoch: str
    after: int
    up_to: int


@dataclass(slots=True)
class TableState:
    """The content of a log up to one of its entries."""

    version: int = -1
    protocol: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # add actions by path
    marks: dict[str, int] = field(default_factory=dict)  # versions of application transactions

    def take(self, actions: Iterable[Action]) -> None:
        """Apply the actions of the next entry, or of a checkpoint."""
        for action in actions:
            for kind, value in action.items():
                if kind == "add":
                    self.files[value["path"]] = _plain(value) | {"dataChange": False}
                elif kind == "remove":
                    self.files.pop(value["path"], None)
                elif kind == "txn":
                    self.marks[value["appId"]] = value["version"]
                elif kind == "metaData":
                    self.metadata = _plain(value)
                elif kind == "protocol":
                    self.protocol = _plain(value)

    def says_the_same(self, other: "TableState") -> bool:
        """Whether two states have the same files, marks and columns."""
        return (
            self.marks == other.marks
            and (self.metadata or {}).get("schemaString")
            == (other.metadata or {}).get("schemaString")
            and {path: _essence(add) for path, add in self.files.items()}
            == {path: _essence(add) for path, add in other.files.items()}
        )


@dataclass(slots=True)
class TableLog:
    """A log as read."""

    last_version: int  # of any entry or checkpoint; -1 where there is none
    state: TableState  # what can still be read of it
    faults: dict[str, str] = field(default_factory=dict)  # what is wrong, by file below the table
    lost: list[Lost] = field(default_factory=list)


def read_log(store: FileStore, *, has_marks: bool = True) -> TableLog:
    """Read the newest checkpoint, the entries after it, and the entries before it.

    A fault counts only where no file came or went while the log was read: a commit, a checkpoint
    or a cleanup in the middle looks like one. `has_marks` says that each commit which adds files
    names its watermark, as those of a mart do not. Raises OSError where the store cannot be read.
    """
    for _ in range(_READINGS):
        paths = store.paths(LOG)
        try:
            log = _read(store, paths, has_marks=has_marks)
        except FileNotFoundError:
            if store.paths(LOG) == paths:
                raise
            continue
        if not log.faults or store.paths(LOG) == paths:
            return log
    return _read(store, store.paths(LOG), has_marks=has_marks)


def _read(store: FileStore, paths: Collection[str], *, has_marks: bool) -> TableLog:
    entries = {int(found[1]): path for path in paths if (found := _ENTRY.match(path))}
    checkpoints = _checkpoints(paths)
    log = TableLog(max([*entries, *checkpoints], default=-1), TableState())
    if log.last_version < 0:
        if any(path.endswith(".parquet") for path in store.paths()):
            log.faults[LOG] = "it is missing although data files exist"
        return log
    bases = [TableState()]  # the checkpoints that can be read, newest first, then the beginning
    for version in sorted(checkpoints, reverse=True):
        said = _read_checkpoint(store, version, checkpoints[version])
        if isinstance(said, TableState):
            bases.insert(-1, said)
        elif len(bases) == 1:
            log.faults[checkpoints[version][0]] = said
        if len(bases) > 2:
            break
    newest = bases[0]
    if len(bases) > 1 and all(
        v in entries for v in range(bases[1].version + 1, newest.version + 1)
    ):
        again = TableLog(newest.version, deepcopy(bases[1]))
        _replay(store, entries, again, has_marks=has_marks)
        if not again.faults and not again.state.says_the_same(newest):
            log.faults[checkpoints[newest.version][0]] = "it contradicts the entries"
            newest = again.state
    log.state = newest
    _replay(store, entries, log, has_marks=has_marks)
    if reason := _wrong_pointer(store, paths, max(checkpoints, default=-1)):
        log.faults[POINTER] = reason
    return log


def begin_anew(store: FileStore, state: TableState, now: datetime) -> None:
    """Write a state as one entry of its version and a checkpoint of it.

    Nothing of the log before is needed any more. Raises OSError, and FileExistsError if a disk has
    that entry already.
    """
    commit = {"timestamp": int(now.timestamp() * 1000), "operation": "REPAIR"}
    actions = [
        {"commitInfo": commit},
        {"protocol": state.protocol},
        {"metaData": state.metadata},
        *({"txn": {"appId": name, "version": mark}} for name, mark in state.marks.items()),
        *({"add": add} for add in state.files.values()),
    ]
    entry = "\n".join(json.dumps(action) for action in actions).encode()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, LOG)
        log.mkdir()
        (log / f"{0:020}.json").write_bytes(entry)
        DeltaTable(folder).create_checkpoint()
        checkpoint = (log / f"{0:020}.checkpoint.parquet").read_bytes()
    store.put(f"{LOG}{state.version:020}.json", entry)
    store.put(f"{LOG}{state.version:020}.checkpoint.parquet", checkpoint)
    drop_pointer(store)


def drop_pointer(store: FileStore) -> None:
    """Delete the pointer to the newest checkpoint; it only saves readers listing all names."""
    if POINTER in store.paths(LOG):
        store.delete([POINTER])


def _checkpoints(paths: Iterable[str]) -> dict[int, list[str]]:
    """The files of each checkpoint with as many files as their names say."""
    found: dict[int, list[str]] = {}
    wanted: dict[int, int] = {}
    for path in sorted(paths):
        if match := _CHECKPOINT.match(path):
            found.setdefault(int(match[1]), []).append(path)
            wanted[int(match[1])] = int(match[2] or 1)
    return {version: parts for version, parts in found.items() if len(parts) >= wanted[version]}


def _read_checkpoint(store: FileStore, version: int, parts: Sequence[str]) -> TableState | str:
    """The content of a checkpoint, or its damage."""
    state = TableState(version)
    try:
        for part in parts:
            table = pq.read_table(pa.BufferReader(store.read_bytes(part)))
            kinds = [name for name in table.column_names if name in _KINDS]
            state.take(_rows(table.select(kinds)))
    except _DAMAGE:
        return "it cannot be read"
    if state.protocol is None or state.metadata is None:
        return "it is incomplete"
    return state


def _rows(table: pa.Table) -> Iterator[Action]:
    for row in table.to_pylist(maps_as_pydicts="strict"):
        yield {kind: value for kind, value in row.items() if value is not None}


def _replay(
    store: FileStore, entries: Mapping[int, str], log: TableLog, *, has_marks: bool
) -> None:
    """Add the later entries to the log's state, up to its last version, as far as readable."""
    missing = list[int]()
    is_hole = False
    for version in range(log.state.version + 1, log.last_version + 1):
        path = entries.get(version)
        if path is None:
            missing.append(version)
            is_hole = True
            continue
        actions = _read_entry(store, path, has_marks=has_marks)
        if isinstance(actions, str):
            log.faults[path] = actions
            is_hole = True
            continue
        before = dict(log.state.marks)
        log.state.take(actions)
        if is_hole:
            for epoch, mark in log.state.marks.items():
                if "#" in epoch and mark > before.get(epoch, 0):
                    log.lost.append(Lost(epoch, before.get(epoch, 0), mark))
        is_hole = False
    log.state.version = max(log.state.version, log.last_version)
    for version in missing[:1]:
        more = f", and {len(missing) - 1} others" if len(missing) > 1 else ""
        log.faults[f"{LOG}{version:020}.json"] = f"it is missing{more}"
    if log.state.metadata is None and not log.faults:
        log.faults[LOG] = "it does not list the columns of the table"


def _read_entry(store: FileStore, path: str, *, has_marks: bool) -> list[dict[str, Any]] | str:
    """The actions of an entry, or its damage."""
    try:
        lines = [line for line in store.read_bytes(path).splitlines() if line]
        actions = [json.loads(line) for line in lines]
    except ValueError:
        return "it ends in the middle"
    if not actions or not all(isinstance(action, dict) for action in actions):
        return "it ends in the middle"
    kinds = {kind for action in actions for kind in action}
    infos = [action["commitInfo"] for action in actions if "commitInfo" in action]
    operations = {info.get("operation") for info in infos}
    # Every commit of ours that adds or removes files says in the same entry which it is.
    is_ours = has_marks and operations <= {"WRITE"}
    if is_ours and kinds & {"add", "remove"} and "txn" not in kinds:
        return "it ends before its watermark"
    if kinds == {"commitInfo"} and not all(map(_changes_nothing, infos)):
        return "it ends before its actions"
    return actions


def _changes_nothing(info: Mapping[str, Any]) -> bool:
    """Whether a commit has no actions: an empty table that was overwritten with no rows."""
    metrics = info.get("operationMetrics") or {}
    return metrics.get("num_added_files") == metrics.get("num_removed_files") == 0


def _wrong_pointer(store: FileStore, paths: Collection[str], newest: int) -> str | None:
    if POINTER not in paths:
        return None
    try:
        version = json.loads(store.read_bytes(POINTER))["version"]
    except (ValueError, LookupError, TypeError):
        return "it is not JSON"
    if not isinstance(version, int):
        return "it has no version"
    return f"it names checkpoint {version:,}, which does not exist" if version > newest else None


def _plain(value: Any) -> Any:
    """A value of a checkpoint in the form of an entry, without missing values."""
    if isinstance(value, dict):
        return {
            name: _plain(part)
            for name, part in value.items()
            if part is not None or name.startswith("dlq_")  # a partition may be null
        }
    return value


def _essence(add: Mapping[str, Any]) -> tuple[Any, ...]:
    return add["size"], add["partitionValues"], add.get("stats")
