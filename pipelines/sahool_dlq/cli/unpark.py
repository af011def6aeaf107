"""`dlq unpark`."""

from sahool_dlq.cli.decide import deciding

command = deciding(
    "unparked",
    """Let parked failures be redriven again, also those that reached the cap.

    They are pending then, and one more redrive without success parks them again at the cap.
    """,
)
