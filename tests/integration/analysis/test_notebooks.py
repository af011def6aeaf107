"""The notebooks run, on a lake that has something of everything, and hold no outputs."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from sahool_dlq.errors import LakeError
from sahool_dlq.jobs.notebook import open_lake
from sahool_dlq.settings import Settings
from support import ROOT

pytestmark = pytest.mark.xdist_group("simulated")  # one lake for all

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHARTS = {
    "explore_the_lake": 1,
    "failure_patterns": 5,
    "redrive_outcomes": 1,
    "resolution_times": 4,
    "service_health": 2,
}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_outputs_are_stripped(file: Path) -> None:
    cells = json.loads(file.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_every_notebook_runs_and_draws_its_charts(
    simulated: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one kernel, since each takes seconds to start; its names are cleared in between."""
    monkeypatch.setenv("DLQ_LAKE_URI", simulated.lake)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    books = {file.stem: nbformat.read(file, as_version=4) for file in NOTEBOOKS}
    whole = nbformat.v4.new_notebook()
    for book in books.values():
        whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *book.cells]
    NotebookClient(whole, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert {name: charts(book) for name, book in books.items()} == CHARTS


def charts(book: Any) -> int:
    """How many charts the cells of a notebook drew."""
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    return sum("image/svg+xml" in out.get("data", {}) for out in outputs)


def test_without_a_lake_a_notebook_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DLQ_LAKE_URI", raising=False)
    with pytest.raises(LakeError, match="run `make demo`"):
        open_lake()
    (tmp_path / ".dlq/demo/lake/dead_letters").mkdir(parents=True)
    assert open_lake().lake == str(tmp_path / ".dlq/demo/lake")
