"""The names of the streams."""

from dataclasses import dataclass, field

from sahool_dlq.deadletter.subjects import Subjects


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The names of the streams, and their subjects."""

    events: str = "SAHOOL_EVENTS"
    dead_letters: str = "SAHOOL_DLQ"
    totals: str = "SAHOOL_TOTALS"
    subjects: Subjects = field(default_factory=Subjects)
    advisories: str = "SAHOOL_ADVISORIES"
    attempts: str = "SAHOOL_ATTEMPTS"
    acks: str = "SAHOOL_ACKS"

    @property
    def own(self) -> frozenset[str]:
        """The streams that the platform itself reads."""
        return frozenset(
            (self.dead_letters, self.totals, self.attempts, self.advisories, self.acks)
        )
