"""The results of calling a handler with the events of failures: pure.

An event passes if the handler returns SUCCESS. Other results and exceptions are fingerprinted as by
a drain, to see whether the event failed as before or differently.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.fingerprint.stack_trace import FrameRules, marked
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.reproduce.worker import Called

__all__ = ["GroupTrial", "Kind", "Successes", "TrialReport", "Tried", "fail_alike", "frame_of"]

_FRAME = re.compile(r'^[ |]*File "([^"\n]*)", line (\d+), in ')


class Tried(NamedTuple):
    """One event and the handler's result."""

    failure_id: str  # of a success: its place in the stream
    called: Called


@dataclass(frozen=True, slots=True)
class Kind:
    """Failed calls of the same kind."""

    count: int
    result: str  # raised | retry | dead_letter | died
    error_type: str
    error_message: str  # of one of them, masked
    file: str | None  # our frame nearest the raise, below the folder of the code
    line: int | None
    group_id: str  # where such failures belong
    stack_trace: str | None  # of one of them, masked
    failure_ids: tuple[str, ...]

    @property
    def at(self) -> str | None:
        """`price.py:41`."""
        return f"{self.file}:{self.line}" if self.file else None


@dataclass(frozen=True, slots=True)
class GroupTrial:
    """One group of open failures, and the results of their events."""

    group_id: str
    error_type: str
    service: str
    open_count: int  # failures
    tried: int
    passed: int
    kinds: tuple[Kind, ...] = ()
    missing: Mapping[str, int] = field(default_factory=dict)  # events that are gone, by reason

    @property
    def is_cured(self) -> bool:
        """Whether all that was tried passes."""
        return 0 < self.tried == self.passed


@dataclass(frozen=True, slots=True)
class Successes:
    """Events that the consumers have handled, called again."""

    tried: int
    passed: int
    kinds: tuple[Kind, ...] = ()
    why_none: str | None = None  # why there are none to try


@dataclass(frozen=True, slots=True)
class TrialReport:
    """The complete report."""

    handler: str
    groups: tuple[GroupTrial, ...]
    successes: Successes | None = None
    known: Mapping[str, int] = field(default_factory=dict)  # open failures of other groups, by id
    undrained: int = 0  # messages of the log that no drain has seen
    tests: tuple[str, ...] = ()  # files that were written
    untested: Mapping[str, str] = field(default_factory=dict)  # groups without a test, and why

    @property
    def tried(self) -> int:
        """Events of failures that were tried."""
        return sum(group.tried for group in self.groups)

    @property
    def passed(self) -> int:
        """Events of failures that pass."""
        return sum(group.passed for group in self.groups)

    @property
    def broken(self) -> int:
        """Successes that fail now."""
        return self.successes.tried - self.successes.passed if self.successes else 0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            **asdict(self),
            "groups": [{**asdict(each), "is_cured": each.is_cured} for each in self.groups],
            "tried": self.tried,
            "passed": self.passed,
            "broken": self.broken,
        }


def fail_alike(
    tried: Iterable[Tried], redactor: Redactor, rules: GroupingRules, folder: Path
) -> tuple[Kind, ...]:
    """The failed calls by the group that their failures would have; the largest first."""
    failed = [each for each in tried if each.called.result != "success"]
    if not failed:
        return ()
    frame = pl.DataFrame(
        {
            "error_type": [each.called.error_type for each in failed],
            "error_message": [each.called.error_message for each in failed],
            "stack_trace": [each.called.stack_trace for each in failed],
        },
        schema=dict.fromkeys(("error_type", "error_message", "stack_trace"), pl.String),
    )
    shown = add_fingerprint(redactor.redact_frame(frame), rules)
    found: dict[tuple[str, str], list[int]] = {}
    for number, group in enumerate(shown["group_id"]):
        found.setdefault((group, failed[number].called.result), []).append(number)
    kinds = [
        _kind(shown.row(numbers[0], named=True), [failed[n] for n in numbers], rules, folder)
        for numbers in found.values()
    ]
    return tuple(sorted(kinds, key=lambda kind: -kind.count))


def _kind(
    shown: Mapping[str, Any], alike: Sequence[Tried], rules: GroupingRules, folder: Path
) -> Kind:
    called = alike[0].called
    file, line = frame_of(_without_message(called), rules.frames, folder) or (None, None)
    return Kind(
        len(alike),
        called.result,
        shown["error_type"],
        shown["error_message"],
        file,
        line,
        shown["group_id"],
        shown["stack_trace"],
        tuple(each.failure_id for each in alike),
    )


def _without_message(called: Called) -> str:
    """The trace without the error's message, whose lines may look like frames."""
    trace, message = called.stack_trace or "", called.error_message
    return trace.rpartition(message)[0] if "\n" in message and message in trace else trace


def frame_of(trace: str, rules: FrameRules, folder: Path) -> tuple[str, int] | None:
    """The frame of our code nearest to the exception, as a path relative to `folder` if inside, and
    its line.
    """
    frames = [
        (found, is_ours) for line, is_ours in marked(trace, rules) if (found := _FRAME.match(line))
    ]
    ours = [found for found, is_ours in frames if is_ours]
    if not (nearest := (ours or [found for found, _ in frames])[-1:]):
        return None
    file = Path(nearest[0][1])
    if file.is_relative_to(folder):
        file = file.relative_to(folder)
    return str(file), int(nearest[0][2])
