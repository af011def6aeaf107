"""The report and its page: complete, self-contained, and safe against texts in messages."""

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from click.testing import CliRunner, Result

from sahool_dlq.analysis.report.advice import by_urgency
from sahool_dlq.analysis.report.page import as_html, figures
from sahool_dlq.analysis.report.section import Section, as_markdown, cell_text
from sahool_dlq.analysis.report.sections import printable_frames, sections
from sahool_dlq.analysis.report.unknowns import LOG_SQL
from sahool_dlq.cli import _command
from sahool_dlq.cli.output import console
from sahool_dlq.errors import ReportError
from sahool_dlq.jobs.report import Report, make_report
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from sahool_dlq.stores.postgres.verifications import last_verifications
from support.alert_rows import add_verification
from support.platform_log import execute

pytestmark = pytest.mark.xdist_group("simulated")  # one lake for all

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'"
    "{{7*7}}|`x`[a](javascript:b)\x1b[2J\u202e"
)
FROM_MESSAGES = {
    "error_class", "template", "frames", "services", "consumers", "service", "tenant_id",
    "event_type", "service_a", "service_b", "leader", "attribute", "other_value",
}  # fmt: skip


class Page(HTMLParser):
    """The page as a browser would parse it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report(simulated: Settings) -> Report:
    return make_report(simulated, datetime.now(UTC))


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return as_html(report.frames, report.sections, report.now)


def test_the_page_has_every_section_and_each_chart_for_desk_and_phone(
    report: Report, page: str
) -> None:
    read, drawn = Page(page), figures(report.frames, report.now)
    for section in report.sections[1:]:
        assert (f"<h2>{section.title}</h2>" in page) == bool(section.rows or section.title in drawn)
    # In so small a lake a habit shows at some hours and not at others: see test_simulation.py.
    assert {s.title for s in report.sections[1:] if not s.rows} <= {"Hours of the week"}
    assert sum(map(len, drawn.values())) == read.tags.count("figure") == 8
    for width in (600, 340):
        assert len(re.findall(rf'<svg[^>]* width="{width}"', page)) == 8
    for row in report.sections[1].rows:
        assert row[0] in read.text
        assert row[-1] in " ".join(read.text.split())


def test_the_page_needs_nothing_else(page: str) -> None:
    read = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    names = {name for name, _ in read.attributes}
    assert not names & {"src", "href", "xlink:href", "id"}  # ids of many charts would clash
    assert "default-src 'none'" in page
    assert set(re.findall(r"https?://[^\s\"'<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(page) < 1_000_000


def test_what_messages_say_stays_text(report: Report) -> None:
    frames = printable_frames(
        {
            name: frame.with_columns(
                (pl.col(column) + HOSTILE).alias(column)
                for column in FROM_MESSAGES & set(frame.columns)
            )
            for name, frame in report.frames.items()
        }
    )
    parts = sections(frames, report.now)
    read, text = Page(as_html(frames, parts, report.now)), as_markdown(parts, report.now)
    assert "script" not in read.tags
    assert "img" not in read.tags
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in read.text
    assert "{{7*7}}" in read.text
    for form in (read.text, text):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", form)
    assert "<script>" not in text.replace("\\<", "")
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    assert not re.search(r"(?<!\\)`", text)


def test_what_it_can_not_know_is_reported(report: Report) -> None:
    told = dict(report.sections[-1].rows)
    assert "notification" in told["successes"]
    assert set(told) <= {"what was not drained", "successes", "some redrives", "damage on disk"}
    assert "Postgres does not say" in told["damage on disk"]  # it is down


def test_what_verifications_found_is_shown(report: Report, settings: Settings) -> None:
    def shown() -> tuple[dict[str, Section], str | None]:
        with database(settings.postgres_dsn.get_secret_value()) as connection:
            kept = last_verifications(connection, 7)
        parts = sections({**report.frames, "verifications": kept}, datetime.now(UTC))
        return {part.title: part for part in parts}, dict(parts[-1].rows).get("damage on disk")

    parts, unknown = shown()
    assert "Verification" not in parts
    assert unknown == "Nobody has read the lake against its checksums yet: dlq verify does."
    add_verification(settings, [])
    parts, unknown = shown()
    assert (parts["Verification"].rows[0][1:], unknown) == ((12, "3.4 MB", "1.5 s", 0, 0), None)
    finding = {"kind": "k", "where": "w", "count": 1}
    add_verification(
        settings, [finding | {"what": f"{n}.", "is_repaired": n < 2} for n in range(4)]
    )
    parts, _ = shown()
    assert [row[-2:] for row in parts["Verification"].rows] == [(2, 2), (0, 0)]
    assert parts["Verification"].note == "2. 3. dlq verify --repair mends it."
    execute(settings, "UPDATE verifications SET started_at = started_at - interval '3 days'")
    assert "3.0 d ago" in (shown()[1] or "")


def test_the_report_asks_postgres_when_it_was_verified(
    simulated: Settings, settings: Settings
) -> None:
    add_verification(settings, [])
    both = settings.model_copy(update={"lake_uri": simulated.lake})
    made = make_report(both, datetime.now(UTC))
    assert "Verification" in [part.title for part in made.sections]
    assert "<h2>Verification</h2>" in as_html(made.frames, made.sections, made.now)


def test_gaps_in_the_log_are_counted_over_the_forks_of_a_stream() -> None:
    rows = [("S@1#0", 1), ("S@1#0", 2), ("S@1#0", 6), ("S@1#1", 4), ("S@1#1", 6), ("S@2#0", 9)]
    erased = [("S@1", 3), ("S@1", 6), ("S@1", 7), ("S@3", 1)]  # 6 also counts for another consumer
    with duckdb.connect() as lake:
        lake.execute("CREATE TABLE erased_messages (life VARCHAR, dlq_sequence BIGINT)")
        lake.executemany("INSERT INTO erased_messages VALUES (?, ?)", erased)
        for table, part in (("dead_letters", rows[::2]), ("case_events", rows[1::2])):
            lake.execute(
                f"CREATE TABLE {table} (epoch VARCHAR, dlq_sequence BIGINT,"
                " published_at TIMESTAMP, parse_error VARCHAR)"
            )
            lake.executemany(f"INSERT INTO {table} VALUES (?, ?, '2026-03-01', 'odd')", part)
        [log] = lake.sql(LOG_SQL).fetchall()
    assert log[:2] == (1, 6)  # of the first life 5


def test_an_empty_lake_has_a_report_too(tmp_path: Path) -> None:
    empty = make_report(Settings(lake_uri=str(tmp_path / "none")), datetime.now(UTC))
    assert "The lake is empty" in as_html(empty.frames, empty.sections, empty.now)
    assert "Nothing." in as_markdown(empty.sections, empty.now)


def run(simulated: Settings, *arguments: str) -> Result:
    """A verb on the lake alone: no server answers."""
    nowhere = ("--nats-url", "nats://127.0.0.1:1", "--postgres-dsn", "postgresql://127.0.0.1:1/x")
    return CliRunner(env={"DLQ_LAKE_URI": simulated.lake}).invoke(
        _command(), [*arguments, *nowhere]
    )


def test_dlq_report_writes_a_page_and_prints_json(simulated: Settings, tmp_path: Path) -> None:
    done = run(simulated, "report", "--html", str(tmp_path / "a.html"), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert len(told["failure_groups"][0]["failure_count_by_6h"]) == 28
    assert "<h1>Dead letters</h1>" in (tmp_path / "a.html").read_text()


def test_a_page_that_can_not_be_written_is_one_sentence(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match=r"a\.html was not written: .+\.$"):
        report.write_page(tmp_path / "file" / "a.html")


def test_groups_and_show_say_what_to_do_next_in_80_columns(
    simulated: Settings, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", 80)
    monkeypatch.setattr(console, "_force_terminal", True)
    printed = run(simulated, "groups")
    assert printed.exit_code == 0, printed.output
    first = report.sections[1].rows[0]
    assert first[0] in printed.stdout
    lines = re.sub(r"\x1b\[[\d;]*m", "", printed.stdout).splitlines()
    assert max(map(len, lines)) <= 80
    shown = run(simulated, "show", first[0])
    assert shown.exit_code == 0, shown.output
    for told in (
        "failures",
        "7 days",
        "a redrive works",
        "our frames",
        "Its latest failure",
        "Next",
    ):
        assert told in shown.stdout
    assert f"dlq redrive --group {first[0]} --dry-run" in shown.stdout


@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_gets_figures_and_open_groups_and_no_number_is_cut(
    width: int, simulated: Settings, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "width", width)
    monkeypatch.setattr(console, "_force_terminal", True)
    printed = run(simulated, "report")
    assert printed.exit_code == 0, printed.output
    text = re.sub(r"\x1b\[[\d;]*m", "", printed.stdout)
    assert max(map(len, text.splitlines())) <= width
    now, _, *rest = report.sections
    for what, value, note in now.rows[1:]:  # the first is of the last hour, which is not over
        assert f"{cell_text(value)} {what}" in text
        assert note in text
    groups = report.frames["failure_groups"]
    waiting = by_urgency(groups.filter(pl.col("open_count") > 0))["group_id"].to_list()
    title = f"Failure groups, {len(waiting)} of {groups.height} with open failures"
    assert title in text
    part = text.partition(title)[2].partition("All of them: dlq groups.")[0]
    assert re.findall(r"^  ([0-9a-f]{16})  ", part, re.MULTILINE) == waiting[:12]
    untold = text.partition("Nothing to tell of:")[2]
    assert [section.title in untold for section in rest] == [not s.rows for s in rest]


def test_show_tells_a_case_from_a_later_failure_of_its_chain(
    simulated: Settings, report: Report
) -> None:
    def failure(id_: str) -> dict[str, Any]:
        done = run(simulated, "show", id_, "--json")
        assert done.exit_code == 0, done.output
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    vain = report.frames["poison_messages"].filter(kind="redriven_in_vain")["failure_id"][0]
    case = failure(vain)
    assert (case["failure"]["status"], case["failure"]["redrive_count"]) == ("parked", 3)
    assert [kind for _, kind, _, _ in case["history"]].count("redrive.failed_again") == 3
    letters = pl.read_delta(f"{simulated.lake}/dead_letters")
    later = letters.filter(root_failure_id=vain)["failure_id"][0]
    assert failure(later)["failure"]["status"] == "superseded"


def test_a_report_of_the_past_counts_ages_from_its_own_time(report: Report) -> None:
    of_its_time = report.frames["log"]["last_at"][0] + timedelta(hours=5)
    later = sections(report.frames, of_its_time)
    assert "5.0 h old" in dict(later[-1].rows)["what was not drained"]


def test_as_of_names_a_time_or_that_of_the_newest_message(
    simulated: Settings, report: Report
) -> None:
    newest = report.frames["log"]["last_at"][0]
    done = run(simulated, "report", "--json", "--as-of", "newest")
    assert done.exit_code == 0, done.output
    assert datetime.fromisoformat(json.loads(done.stdout)["as_of"]) == newest
    states = {}
    for when in ("newest", "2100-01-01T00:00"):
        shown = run(simulated, "groups", "--json", "--as-of", when)
        states[when] = {group["state"] for group in json.loads(shown.stdout)["groups"]}
    assert states["newest"] & {"new", "escalating"}
    assert not states["2100-01-01T00:00"] & {"new", "escalating"}
    wrong = run(simulated, "report", "--as-of", "yesterday")
    assert (wrong.exit_code, "is no time: write" in wrong.output) == (2, True)
