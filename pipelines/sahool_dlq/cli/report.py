"""`dlq report`."""

from pathlib import Path

import click
import polars as pl
from rich.rule import Rule
from rich.table import Table

from sahool_dlq.analysis.report.advice import by_urgency
from sahool_dlq.analysis.report.section import Section, as_markdown
from sahool_dlq.analysis.report.trends import group_trends
from sahool_dlq.cli.as_of import AS_OF, moment
from sahool_dlq.cli.groups import BARS, print_groups
from sahool_dlq.cli.layout import GAP
from sahool_dlq.cli.output import cell, console, print_table, safe
from sahool_dlq.cli.verb import HTML, Answer, known_lake, verb
from sahool_dlq.jobs.report import Report, make_report
from sahool_dlq.settings import Settings

DROP = (
    "tenants", "versions", "score", "watched for", "mean of the first 24 h",
    "services", "tenant", "impossible", "unknown", "of all", "elsewhere",
    "share before", "took", "read", "error type", "succeeded", "failures",
)  # fmt: skip
"""Columns that a narrow terminal does without, the first one first."""
_FIGURE_WIDTH = 28
_MOST_GROUPS = 12


@verb
@HTML
@click.option("--markdown", "is_markdown", is_flag=True, help="print Markdown, also on a terminal")
@AS_OF
def command(
    settings: Settings, html: Path | None, is_markdown: bool, as_of: str | None
) -> Answer[Report]:
    """Report the current state: worst problem, changes, groups, health, times, unknowns.

    Needs only the lake. Prints tables on a terminal and Markdown in a pipe. The keys of --json end
    with their unit. --html writes a page with charts.
    """
    known_lake(settings)
    report = make_report(settings, moment(settings, as_of))
    if html:
        report.write_page(html)
        return Answer(report, lambda _: console.print(f"Wrote {html}", soft_wrap=True))
    is_markdown = is_markdown or not console.is_terminal
    return Answer(report, _print_markdown if is_markdown else print_report)


def _print_markdown(report: Report) -> None:
    click.echo(as_markdown(report.sections, report.now, report.headline))


def print_report(report: Report) -> None:
    """On a terminal: the sentence, the figures side by side, the open groups, then tables."""
    now, _, *rest = report.sections
    console.print(f"[bold]{safe(report.headline)}[/bold]\n")
    _print_figures(now)
    _print_groups(report)
    for section in rest:
        if section.rows:
            _print_title(section.title)
            print_table("", section.columns, section.rows, section.note, drop=DROP)
    if unfound := [section.title for section in rest if not section.rows]:
        console.print(f"[dim]Nothing to tell of: {safe(', '.join(unfound))}.[/dim]\n")


def _print_title(title: str) -> None:
    console.print(Rule(f"[bold]{safe(title)}[/bold]", align="left", style="dim"))


def _print_figures(section: Section) -> None:
    """Each figure, and of which it is; in rows of as many as there is room for."""
    in_row = next(n for n in (6, 3, 2, 1) if n * _FIGURE_WIDTH <= console.width or n == 1)
    for first in range(0, len(section.rows), in_row):
        shown = section.rows[first : first + in_row]
        grid = Table.grid(padding=(0, GAP, 0, 0))
        for _ in shown:
            grid.add_column(width=console.width // in_row - GAP)
        grid.add_row(*(f"[bold]{cell(value)}[/bold] {cell(what)}" for what, value, _ in shown))
        grid.add_row(*(cell(note) for *_, note in shown), style="dim")
        console.print(grid)
        console.print()


def _print_groups(report: Report) -> None:
    """The groups with open failures, the most urgent first; how many there are besides."""
    groups = report.frames["failure_groups"]
    waiting = by_urgency(groups.filter(pl.col("open_count") > 0))
    _print_title(f"Failure groups, {waiting.height:,} of {groups.height:,} with open failures")
    if waiting.is_empty():
        console.print()
        return
    trends = group_trends(report.frames["failures_minutely"], report.now)
    print_groups(waiting.head(_MOST_GROUPS).to_dicts(), trends, report.now)
    console.print(f"[dim]All of them: dlq groups. {BARS}[/dim]\n")
