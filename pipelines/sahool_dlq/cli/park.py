"""`dlq park`."""

from sahool_dlq.cli.decide import deciding

command = deciding(
    "parked",
    """Keep failures from every automatic redrive, until somebody unparks them.

    Takes pending failures, and retried ones, whose outcome still counts.
    """,
)
