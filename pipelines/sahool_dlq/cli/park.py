"""`dlq park`."""

from sahool_dlq.cli.decide import deciding

command = deciding(
    "parked",
    """Exclude failures from automatic redrives until somebody unparks them.

    Takes pending failures, and retried ones, whose outcome still counts.
    """,
)
