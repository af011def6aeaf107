"""The notebooks run on a lake with all kinds of rows, and are stored without outputs."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import polars as pl
import pytest
from nbclient import NotebookClient

from sahool_dlq.analysis.report.readable import readable_section
from sahool_dlq.errors import LakeError
from sahool_dlq.jobs.lake_views import newest_at
from sahool_dlq.jobs.notebook import as_of, open_lake, table
from sahool_dlq.settings import Settings
from support import ROOT

pytestmark = pytest.mark.xdist_group("simulated")  # one lake for all

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHARTS = {
    "explore_the_lake": 1,
    "failure_patterns": 5,
    "incidents": 2,
    "one_group": 2,
    "redrive_outcomes": 1,
    "resolution_times": 4,
    "service_health": 2,
    "why_these": 2,
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
    """In one kernel, since each takes seconds to start; its names are deleted in between."""
    monkeypatch.setenv("DLQ_LAKE_URI", simulated.lake)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    books = {file.stem: nbformat.read(file, as_version=4) for file in NOTEBOOKS}
    whole = nbformat.v4.new_notebook()
    for book in books.values():
        whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *book.cells]
    NotebookClient(whole, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert {name: charts(book) for name, book in books.items()} == CHARTS
    for html in [html for book in books.values() for html in shown(book)]:
        assert not re.search(r"(src|href)=.?https?:|dataframe", html)  # no network, no bare frame
    said = "".join(out.get("text", "") for out in books["one_group"].cells[1]["outputs"])
    assert re.search(r"[\d,]+ failures in irrigation, 0 of them open", said)
    assert "It came with 2.7.0 of irrigation" in said
    why = "".join(out.get("text", "") for out in books["why_these"].cells[3]["outputs"])
    assert re.search(r"`data.unit` = acre in \d+ % of the failing, .* since 2026-03-04", why)
    assert "`data.items[].price` is missing in" in why
    told = "".join(
        out.get("text", "") for cell in books["incidents"].cells for out in cell.get("outputs", [])
    )
    assert re.search(r"[1-9]\d* incidents in 13 weeks", told)
    assert "# Post-mortem: " in told
    [versions] = [html for html in shown(books["one_group"]) if "of this group" in html]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in versions.split("<tr")]
    assert [(row[1], row[-1] != "0") for row in rows if row and row[1].startswith("2.7")] == [
        ("2.7.0", True),
        ("2.7.1", True),
        ("2.7.2", False),
    ]


def charts(book: Any) -> int:
    """The number of charts that the cells of a notebook drew."""
    return sum("window.vegaEmbed(" in html for html in shown(book))


def shown(book: Any) -> list[str]:
    """The HTML output of the cells of a notebook."""
    outputs = [out for cell in book.cells for out in cell.get("outputs", [])]
    return [out["data"]["text/html"] for out in outputs if "text/html" in out.get("data", {})]


def test_without_a_lake_a_notebook_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DLQ_LAKE_URI", raising=False)
    with pytest.raises(LakeError, match="run `make demo`"):
        open_lake()
    (tmp_path / ".dlq/demo/lake/dead_letters").mkdir(parents=True)
    assert open_lake().lake == str(tmp_path / ".dlq/demo/lake")


def test_a_lake_that_no_longer_grows_is_looked_at_as_it_was(simulated: Settings) -> None:
    newest = newest_at(simulated)
    assert newest is not None
    assert as_of(simulated) > newest  # it is of today
    old = simulated.model_copy(update={"lake_uri": f"{simulated.lake}-old"})
    rows = pl.read_delta(f"{simulated.lake}/dead_letters").with_columns(
        pl.col("published_at") - timedelta(days=3)
    )
    rows.write_delta(f"{old.lake}/dead_letters")
    told = newest_at(old)
    assert as_of(old) == told == rows["published_at"].max()


def test_a_frame_is_shown_with_units() -> None:
    frame = pl.DataFrame(
        {
            "group_id": ["3581933e2b4a4aa6"],
            "failure_count": [1234],
            "median_seconds": [90.0],
            "share_of_all": [0.25],
            "original_sequence": [1084],
            "first_seen_at": [datetime(2026, 3, 4, 15, 20, tzinfo=UTC)],
        }
    )
    part = readable_section(frame, "Groups")
    assert part.columns == (
        "group", "failures", "median", "share of all", "original sequence", "first seen",
    )  # fmt: skip
    html = table(frame).text
    for text in ("1,234", "1.5 min", "25.0%", ">1084<", "2026-03-04 15:20 UTC"):
        assert text in html
