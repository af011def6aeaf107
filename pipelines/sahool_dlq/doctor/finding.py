"""One finding of the doctor."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from sahool_dlq.analysis.report.section import seconds_as_text


class Severity(StrEnum):
    """How bad it is, the worst first."""

    # the next poison message is lost or delivered for ever, or some were lost already
    LOSES = "loses data"
    MAY_LOSE = "may lose"  # only if something else happens: a restart, a slow consumer, bad timing
    ADVICE = "advice"  # nothing is lost


class Said(NamedTuple):
    """What a rule found."""

    severity: Severity
    sentence: str
    command: str  # command that repairs it, or what to do in a service
    evidence: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a rule, with its subject."""

    rule: str
    severity: Severity
    subject: str  # <stream>, <stream>/<consumer>, or `account`
    sentence: str
    command: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


def span(seconds: float) -> str:
    """A duration for people."""
    return seconds_as_text(seconds).replace(".0 ", " ")


def nats(*words: str) -> str:
    """A call of the `nats` command, for a shell."""
    return shlex.join(("nats", *words))


def dlq(*words: str) -> str:
    """One of our commands; `…` is for the user to fill in."""
    return " ".join(("dlq", *(each if each == "…" else shlex.quote(each) for each in words)))


def count(number: int, what: str) -> str:
    """`1 event`, `1,000 events`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def waiting(number: int) -> str:
    """`1 event waits`, `1,000 events wait`."""
    return f"{count(number, 'event')} wait{'s' if number == 1 else ''}"
