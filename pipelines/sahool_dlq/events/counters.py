"""The counters of a subscription."""

from bisect import bisect_left
from dataclasses import dataclass, field, fields
from typing import Any

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""Bounds of the histogram of handler calls, in seconds."""


@dataclass(slots=True)
class Counters:
    """The counters of a subscription since its start."""

    handled: int = 0  # handler calls that ended
    succeeded: int = 0
    retried: int = 0
    dead_lettered: int = 0
    skipped: int = 0  # redrives addressed to another consumer
    ids_taken: int = 0  # dead letters whose id was in the log before, not by this process
    handler_seconds: float = 0  # in all calls together
    # calls by the first of DURATIONS that they were no longer than; the last were longer
    by_duration: list[int] = field(default_factory=lambda: [0] * (len(DURATIONS) + 1))

    def count_call(self, seconds: float) -> None:
        """Count the end of a handler's call."""
        self.handled += 1
        self.handler_seconds += seconds
        self.by_duration[bisect_left(DURATIONS, seconds)] += 1

    def add(self, other: "Counters") -> None:
        """Add the counts of another."""
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        pairs = zip(self.by_duration, other.by_duration, strict=True)
        self.by_duration = [mine + theirs for mine, theirs in pairs]

    def sums(self) -> dict[str, Any]:
        """The plain figures by name, as published."""
        return {name: getattr(self, name) for name in _SUMS}


_SUMS = [each.name for each in fields(Counters) if each.name != "by_duration"]
