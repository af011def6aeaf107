"""`dlq resolve`."""

import click

from sahool_dlq.cli.decide import deciding

command = deciding(
    "resolved",
    """Close failures whose damage was repaired by hand.

    Takes pending, retried and parked failures; they count as resolved by a person. With
    --in-version, later failures of older versions do not count as a regression of the group.
    """,
    click.option(
        "--in-version", help="with --group: the version of its service that repairs it, such as 2.4"
    ),
)
