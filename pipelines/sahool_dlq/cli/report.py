"""`dlq report`."""

from collections.abc import Sequence
from pathlib import Path

import click

from sahool_dlq.analysis.report.section import Section, as_markdown
from sahool_dlq.cli.as_of import AS_OF, moment
from sahool_dlq.cli.output import console, print_table, safe
from sahool_dlq.cli.verb import Answer, known_lake, verb
from sahool_dlq.jobs.report import Report, make_report
from sahool_dlq.settings import Settings

DROP = (
    "next", "7 days", "tenants", "versions", "score", "watched for", "mean of the first 24 h",
    "services", "a redrive works", "tenant", "impossible", "unknown", "of all", "elsewhere",
    "share before", "took", "read", "error type", "succeeded", "failures",
)  # fmt: skip
"""Columns that a narrow terminal does without, the first one first."""


@verb
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write one HTML page with charts that needs no network",
)
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
    return Answer(report, _print_markdown if is_markdown or not console.is_terminal else _print)


def _print_markdown(report: Report) -> None:
    click.echo(as_markdown(report.sections, report.now, report.headline))


def _print(report: Report) -> None:
    console.print(f"[bold]{safe(report.headline)}[/bold]\n")
    for section in report.sections:
        print_section(section)


def print_section(section: Section, drop: Sequence[str] = DROP) -> None:
    """A section as a table; one without rows in a line."""
    if not section.rows:
        console.print(f"[bold]{safe(section.title)}[/bold]: nothing.\n")
        return
    print_table(section.title, section.columns, section.rows, section.note, drop=drop)
