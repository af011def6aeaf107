"""The report's page in a browser, from a phone to a wide screen: nothing is cut or overlaps."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sahool_dlq.analysis.report.page import as_html, as_page
from sahool_dlq.analysis.report.section import Section
from sahool_dlq.jobs.report import make_report
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario
from support.chromium import CHROMIUM, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.xdist_group("simulated"),  # one lake for all
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium, which .ci/run installs"),
]

WIDTHS = (360, 660, 720, 820, 1024, 1180, 1280, 1440, 1920)
PHONE = 360
A4_WIDTH = 718  # pixels between its margins
MOST_ON_A_PHONE = 8_900  # pixels

# Cells whose content, or whose own box, is not wholly within the screen.
CUT = """() => [...document.querySelectorAll("td, th, dd, dt, figcaption, svg, h2, p")]
  .filter(e => e.offsetParent !== null || e.tagName === "svg")
  .filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5
      || (e.scrollWidth > e.clientWidth + 1 && e.clientWidth && e.tagName !== "svg"));
  })
  .map(e => e.tagName + " " + (e.dataset.name || "") + ": " + e.textContent.slice(0, 60))"""

# Texts of one drawing that lie over each other, or beyond its edge.
OVERLAPS = """() => [...document.querySelectorAll("figure svg")]
  .filter(svg => svg.getBoundingClientRect().width)
  .flatMap(svg => {
    const edge = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].filter(t => t.textContent.trim()
      && getComputedStyle(t).opacity !== "0" && t.getBoundingClientRect().width);
    const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
    const beyond = boxes.filter(([, b]) => b.right > edge.right + 1 || b.left < edge.left - 1)
      .map(([text]) => "beyond the edge: " + text);
    const over = boxes.flatMap(([text, a], i) => boxes.slice(i + 1)
      .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1
        && a.top < b.bottom - 2 && b.top < a.bottom - 2)
      .map(([other]) => text + " over " + other));
    return beyond.concat(over);
  })"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Page]":
    with chromium() as browser:
        yield browser.new_page()


@pytest.fixture(scope="module")
def report_page(simulated: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("page") / "report.html"
    make_report(simulated, datetime.now(UTC)).write_page(page)
    return page


@pytest.fixture(scope="module")
def young_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a log as young as the demo's."""
    folder = tmp_path_factory.mktemp("young")
    settings = Settings(home=folder, lake_uri=str(folder / "lake"))
    now = datetime.now(UTC)
    into_lake(settings, Scenario(now, days=0.02, hourly=900, seed=1))
    page = folder / "report.html"
    make_report(settings, now).write_page(page)
    return page


def at_width(tab: "Page", page: Path, width: int) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(page.as_uri())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", ["report_page", "young_page"])
def test_nothing_is_cut_and_the_page_does_not_scroll_sideways(
    tab: "Page", page: str, width: int, request: pytest.FixtureRequest
) -> None:
    at_width(tab, request.getfixturevalue(page), width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(CUT) == []


@pytest.mark.parametrize("width", [PHONE, 820, 1440])
@pytest.mark.parametrize("page", ["report_page", "young_page"])
def test_no_label_of_a_chart_lies_over_another(
    tab: "Page", page: str, width: int, request: pytest.FixtureRequest
) -> None:
    at_width(tab, request.getfixturevalue(page), width)
    assert tab.evaluate(OVERLAPS) == []


def test_a_phone_shows_the_first_rows_and_the_others_when_asked(
    tab: "Page", report_page: Path
) -> None:
    at_width(tab, report_page, PHONE)
    height = "document.documentElement.scrollHeight"
    assert tab.evaluate(height) < MOST_ON_A_PHONE
    groups = tab.locator("section").first.locator("tbody tr")
    assert [row.is_visible() for row in groups.all()[:4]] == [True, True, True, False]
    tab.locator("section").first.get_by_text(f"all {groups.count()} rows").click()
    assert all(row.is_visible() for row in groups.all())


def test_a_desk_shows_every_row_and_the_columns_by_their_names(
    tab: "Page", report_page: Path
) -> None:
    at_width(tab, report_page, 1440)
    groups = tab.locator("section").first
    assert all(row.is_visible() for row in groups.locator("tbody tr").all())
    assert groups.get_by_role("columnheader", name="next").is_visible()
    assert not groups.get_by_text("rows", exact=False).last.is_visible()


def test_every_section_is_shown_or_named_among_what_was_not_found(
    simulated: Settings, tab: "Page", tmp_path: Path
) -> None:
    report = make_report(simulated, datetime.now(UTC))
    empty = [Section(s.title, s.columns, (), s.note) for s in report.sections[3:]]
    parts = [*report.sections[:3], *empty]
    page = tmp_path / "page.html"
    page.write_text(as_html(report.frames, parts, report.now))
    at_width(tab, page, 1440)
    assert {s.title for s in parts[1:]} <= set(tab.locator("h2, dt").all_text_contents())


def test_dark_and_print_have_colours_of_their_own(tab: "Page", report_page: Path) -> None:
    def paper(**media: Any) -> str:
        tab.emulate_media(**media)
        return str(tab.evaluate("getComputedStyle(document.body).backgroundColor"))

    at_width(tab, report_page, 1440)
    shown = [
        paper(color_scheme="light"),
        paper(color_scheme="dark"),
        paper(color_scheme="dark", media="print"),
    ]
    assert shown == ["rgb(255, 255, 255)", "rgb(20, 24, 31)", "rgb(255, 255, 255)"]
    tab.emulate_media(color_scheme="light", media="screen")


def test_a_printed_page_has_charts_as_wide_as_the_paper(tab: "Page", report_page: Path) -> None:
    at_width(tab, report_page, A4_WIDTH)
    tab.emulate_media(media="print")
    widths = tab.evaluate("[...document.querySelectorAll('figure')].map(f => f.offsetWidth)")
    assert len(widths) == 9
    assert min(widths) > 0.9 * A4_WIDTH
    assert tab.evaluate("document.documentElement.scrollWidth") <= A4_WIDTH
    assert tab.evaluate(CUT) == []
    tab.emulate_media(media="screen")


@pytest.mark.parametrize("width", WIDTHS)
def test_names_of_any_length_fit(tab: "Page", tmp_path: Path, width: int) -> None:
    """A consumer, an error type and a message may have long names."""
    long, words = "x" * 255, "word " * 50
    rows = (
        (long, "new", 1, words, long, "dlq show 3581933e2b4a4aa6"),
        ("billing", "ongoing", 123_456, long, words, ""),
    )
    columns = ("group", "state", "failures", "what", "services", "next")
    parts = [Section("Now", ("what", "value", "of which"), ()), Section("Long", columns, rows)]
    page = tmp_path / "page.html"
    page.write_text(as_page("Long names", parts, datetime.now(UTC) - timedelta(days=1)))
    at_width(tab, page, width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(CUT) == []
