"""`dlq unpark`."""

from sahool_dlq.cli.decide import deciding

command = deciding(
    "unparked",
    """Allow redrives of parked failures again, also of those that reached the cap.

    They become pending. At the cap, one more redrive without success parks them again.
    """,
)
