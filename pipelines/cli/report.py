"""`dlq report`."""

from datetime import UTC, datetime
from pathlib import Path

import click

from pipelines.analysis.report import as_json, as_markdown
from pipelines.cli.output import console, print_json
from pipelines.cli.verb import verb
from pipelines.reporting import make_report
from pipelines.settings import Settings


@verb
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write one page with charts, which needs no network",
)
def command(settings: Settings, is_json: bool, html: Path | None) -> None:
    """Say how things stand: groups, health, times to resolution, what stands out, what is unknown.

    Needs the lake only. Prints Markdown; with --html it writes a page with charts instead.
    """
    report = make_report(settings, datetime.now(UTC))
    if html:
        report.write_page(html)
    if is_json:
        print_json(as_json(report.sections))
    elif html:
        console.print(f"Wrote {html}", soft_wrap=True)
    else:
        click.echo(as_markdown(report.sections, report.now))
