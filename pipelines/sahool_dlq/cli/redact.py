"""`dlq redact`."""

import asyncio
from typing import BinaryIO

import click

from sahool_dlq.cli.output import console, print_table
from sahool_dlq.cli.verb import Answer, limited, verb
from sahool_dlq.drain.redaction_preview import Masking, masking_in_lines
from sahool_dlq.jobs.drain import masking_in_log
from sahool_dlq.settings import Settings


@verb
@click.argument("file", type=click.File("rb"), required=False)
@click.option(
    "--dry-run", is_flag=True, required=True, expose_value=False, help="show what would be masked"
)
@limited(1_000, "number of messages, the latest first")
def command(settings: Settings, file: BinaryIO | None, limit: int) -> Answer[Masking]:
    """Show what a drain would mask, by rule, with samples in which secrets are partly hidden.

    Reads FILE (`-`: standard input) with one dead letter per line, else the dead-letter stream.
    Changes nothing: drains do the masking.
    """
    masking = (
        masking_in_lines(file, settings) if file else asyncio.run(masking_in_log(settings, limit))
    )
    return Answer(masking, _show)


def _show(masking: Masking) -> None:
    console.print(
        f"{masking.messages_masked:,} of {masking.messages:,} messages hold something to mask."
    )
    if masking.rules:
        print_table(
            "Masks by rule", ["rule", "masks"], [(rule.rule, rule.masks) for rule in masking.rules]
        )
        print_table(
            "Samples",
            ["rule", "message", "column", "before", "after"],
            [
                (rule.rule, sample.sequence, sample.column, sample.before, sample.after)
                for rule in masking.rules
                for sample in rule.samples
            ],
        )
