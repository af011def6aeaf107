"""`dlq verify`."""

import asyncio
import sys

import click

from pipelines.cli.output import console, print_json, print_table, safe, spinner
from pipelines.cli.verb import verb
from pipelines.jobs import verify_stores
from pipelines.settings import Settings


@verb
@click.option("--repair", "is_repair", is_flag=True, help="mend what can be mended")
def command(settings: Settings, is_json: bool, is_repair: bool) -> None:
    """Compare stream, lake and Postgres message by message, and read every page of the lake.

    Exits with 1 where something is wrong and not repaired. With --repair, damaged files of the
    lake are rebuilt from the stream, else from Postgres; missing rows of Postgres from the lake;
    then a drain brings every sink up to date.
    """
    with spinner("Verifying"):
        report = asyncio.run(verify_stores(settings, is_repair=is_repair))
    if is_json:
        print_json(report.as_dict())
    else:
        print_table(
            "",
            ["epoch", "from", "to", "stream", "dead letters", "case events", "postgres"],
            [list(epoch.values()) for epoch in report.epochs],
        )
        for finding in report.findings:
            style, word = ("green", "repaired") if finding.is_repaired else ("bold red", "wrong")
            console.print(f"[{style}]{word}[/{style}] {safe(finding.what)}")
        unchecked = (
            f", {report.unchecked_files:,} without checksums" if report.unchecked_files else ""
        )
        console.print(f"{report.files:,} files of the lake read{unchecked}.")
        if not report.findings:
            console.print("Stream, lake and Postgres are the same.")
    if not report.is_well:
        sys.exit(1)
