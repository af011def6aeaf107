"""`dlq resolve`."""

from sahool_dlq.cli.decide import deciding

command = deciding(
    "resolved",
    """Close failures whose damage was repaired by hand.

    Takes pending, retried and parked failures; they count as resolved by a person.
    """,
)
