"""The event of a replay in the log: in the `redrive.published` whose trigger is `replay`."""

import json
from typing import NamedTuple

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.ids import is_uuid
from sahool_dlq.deadletter.record import INT64_MAX

__all__ = ["REPLAY", "ReplayedEvent", "replayed_event"]

REPLAY = "replay"
"""The trigger of a replay's messages, and the kind of its batch."""


class ReplayedEvent(NamedTuple):
    """An event that is published again for one consumer, although it did not fail."""

    id: str  # of the replay; it stands for a root failure
    replay_of: str  # the failure id that the event would have; the same for all of its copies
    consumer: str  # <stream>/<durable> that it is addressed to
    stream: str
    sequence: int
    timestamp_ns: int | None  # the server's time of the event, since 1970; None: from the log

    def as_json(self) -> dict[str, str | int]:
        """The keys of a message about it, besides those of every redrive."""
        return {
            "replay_of": self.replay_of,
            "original_stream": self.stream,
            "original_sequence": self.sequence,
        }


def replayed_event(event: CaseEvent) -> ReplayedEvent | None:
    """The event that a message announces as a replay; None if it announces none."""
    if event.kind != "redrive.published" or event.trigger != REPLAY or event.parse_error:
        return None
    said = json.loads(event.body)
    key, stream = said.get("replay_of"), said.get("original_stream")
    sequence = said.get("original_sequence")
    is_place = isinstance(stream, str) and type(sequence) is int and 0 <= sequence <= INT64_MAX
    if not (event.failure_id and event.consumer and is_place):
        return None
    if not (isinstance(key, str) and is_uuid(key)):
        return None
    return ReplayedEvent(event.failure_id, key, event.consumer, stream, sequence, None)
