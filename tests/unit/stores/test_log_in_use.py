"""A Delta log that others write while it is read is not reported as torn."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.torn_log import LOG, read_log


class BusyStore(FileStore):
    """A table that another writer changes after its files were listed."""

    def __init__(self, path: str, change: Callable[[], object], times: int = 1) -> None:
        super().__init__(path, (), None)
        self._change = change
        self._times = times

    def paths(self, folder: str = "") -> set[str]:
        """The list of files just before the change."""
        found = super().paths(folder)
        if self._times:
            self._times -= 1
            self._change()
        return found


def add_rows(path: Path) -> None:
    write_deltalake(path, pl.DataFrame({"number": [1]}), mode="append")


def checkpoint(path: Path) -> None:
    add_rows(path)
    DeltaTable(path).create_checkpoint()


def clean_up(path: Path) -> None:
    checkpoint(path)
    for version in range(4):
        (path / LOG / f"{version:020}.json").unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table = tmp_path / "table"
    add_rows(table)
    checkpoint(table)
    add_rows(table)
    add_rows(table)
    return table


@pytest.mark.parametrize("change", [add_rows, checkpoint, clean_up])
def test_a_change_in_the_middle_is_no_fault(path: Path, change: Callable[[Path], None]) -> None:
    log = read_log(BusyStore(str(path), lambda: change(path)), has_marks=False)
    assert log.faults == {}
    assert log.state.files.keys() <= {*FileStore(str(path), (), None).paths()}


@pytest.mark.parametrize("times", [0, 1, 1000])
def test_a_torn_log_is_reported_although_it_keeps_changing(path: Path, times: int) -> None:
    (path / LOG / f"{2:020}.json").write_bytes(b"")
    numbers = iter(range(1000))
    store = BusyStore(
        str(path), lambda: (path / LOG / f"{next(numbers)}.tmp").write_text(""), times
    )
    log = read_log(store, has_marks=False)
    assert log.faults == {f"{LOG}{2:020}.json": "it ends in the middle"}
