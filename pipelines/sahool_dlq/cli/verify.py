"""`dlq verify`."""

import asyncio

import click

from sahool_dlq.cli.output import console, print_table, safe, spinner
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.upkeep.verify import VerifyReport


@verb
@click.option("--repair", "is_repair", is_flag=True, help="repair what can be repaired")
@click.option(
    "--megabytes-per-second",
    type=click.FloatRange(0, min_open=True),
    help="maximum read speed of the lake [unlimited]",
)
def command(
    settings: Settings, is_repair: bool, megabytes_per_second: float | None
) -> Answer[VerifyReport]:
    """Compare stream, lake and Postgres message by message, and read every page of the lake.

    Exits with 1 if something is wrong and was not repaired. The result is stored for the report and
    the alert `damage`.

    --repair rebuilds a torn log of the lake, and damaged and missing files from other files of
    their folder, the stream or Postgres. It fills missing rows of Postgres from the lake. Then a
    drain brings both sinks up to date.
    """
    with spinner("Verifying"):
        rate = megabytes_per_second and megabytes_per_second * 1e6
        report = asyncio.run(verify_stores(settings, is_repair=is_repair, bytes_per_second=rate))
    return Answer(report, _show, status=0 if report.is_well else 1)


def _show(report: VerifyReport) -> None:
    print_table(
        "",
        ["epoch", "from", "to", "stream", "dead letters", "case events", "postgres"],
        [list(epoch.values()) for epoch in report.epochs],
    )
    for finding in report.findings:
        style, word = ("green", "repaired") if finding.is_repaired else ("bold red", "wrong")
        console.print(f"[{style}]{word}[/{style}] {safe(finding.what)}")
    unchecked = f", {report.unchecked_files:,} without checksums" if report.unchecked_files else ""
    size = f"{report.read_bytes / 1e6:,.1f} MB"
    console.print(f"{report.files:,} files of the lake read, {size}{unchecked}.")
    if not report.findings:
        console.print("Stream, lake and Postgres are the same.")
