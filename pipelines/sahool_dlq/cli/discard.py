"""`dlq discard`."""

from sahool_dlq.cli.decide import deciding

command = deciding(
    "discarded",
    """Close failures that need no action: they are never redriven again.

    Takes pending, retried and parked failures. The event and its dead letter stay in the stream
    and in the lake.
    """,
)
