"""`dlq contract`."""

import asyncio

import click

from sahool_dlq.cli.output import console, errors, print_table, safe, spinner, warn_undrained
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jobs.contract import MOST_READ, Breach, ContractReport, contract_of
from sahool_dlq.settings import Settings


@verb
@click.argument("subject")
@click.option(
    "--consumer",
    metavar="[STREAM/]CONSUMER",
    help="who handled the events [default: the one with most failures of the subject]",
)
@click.option(
    "--limit", type=click.IntRange(1), default=500, show_default=True, help="failures to check"
)
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    help="events that succeeded, to learn from",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="another one reads other events"
)
@click.option(
    "--read",
    "most_read",
    type=click.IntRange(1),
    default=MOST_READ,
    show_default=True,
    help="sequences of the stream that are searched for the first event that left it",
)
def command(
    settings: Settings,
    subject: str,
    consumer: str | None,
    limit: int,
    sample: int,
    seed: int,
    most_read: int,
) -> Answer[ContractReport]:
    """Show what the events of a subject have in common, and the failures that left this contract.

    The contract is learned from events that a consumer handled: keys, types, values, ranges and
    lengths, after redaction. With --json it is a JSON Schema. For each rule that failing events
    break, the first event that broke it is searched in the stream: when, and who published it.
    Changes nothing. The exit status is 1 if a failure left the contract.
    """
    with spinner("Reading"):
        report = asyncio.run(
            contract_of(
                settings,
                subject,
                consumer=consumer,
                limit=limit,
                sample=sample,
                seed=seed,
                most_read=most_read,
            )
        )
    return Answer(report, _show, status=1 if report.breaches else 0)


def _show(report: ContractReport) -> None:
    print_table(
        f"{report.subject}, as {report.consumer} handled it ({report.contract.bodies:,} events)",
        ["key", "contract"],
        list(report.contract.lines()),
    )
    left = report.failures - report.fitting
    console.print(
        f"[bold]{left:,} of {report.failures:,} failing events left the contract[/bold]",
        soft_wrap=True,
    )
    for breach in report.breaches:
        console.print(f"  {safe(breach.rule)}: {breach.failures:,} do not", soft_wrap=True)
        console.print(f"    [dim]{safe(_first(breach))}[/dim]", soft_wrap=True)
    if report.searched_from is not None and report.searched_from > report.begins_at:
        errors.print(
            f"[yellow]Nothing before sequence {report.searched_from:,} was searched: --read has the"
            " limit.[/yellow]",
            soft_wrap=True,
        )
    if report.lost:
        errors.print(
            f"[yellow]{report.lost:,} failures were not checked: the stream no longer has their"
            " events.[/yellow]",
            soft_wrap=True,
        )
    warn_undrained(report.undrained)


def _first(breach: Breach) -> str:
    """When, and by whom."""
    first = breach.first
    if first is None:
        return "The first event that did not has left the stream."
    by = first.publisher or "an unknown service"
    origin = "".join(f", {path} {value}" for path, value in first.origin.items())
    return (
        f"first at {first.at:%Y-%m-%d %H:%M:%S} UTC, sequence {first.sequence:,}, by {by}{origin}"
    )
