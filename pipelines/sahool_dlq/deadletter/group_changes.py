"""What people say about a failure group: owner, note, ticket, labels, mute; messages of the log.

A message `triage.group` has the keys that it changes, and leaves the others. A message
`triage.unmuted` ends the mute that began at `muted_at`, and no later one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.sanitize import clean_text, parse_time

__all__ = [
    "ESCALATING",
    "LABEL_LIMIT",
    "MOST_LABELS",
    "MOST_MORE",
    "TEXT_LIMITS",
    "GroupChange",
    "Mute",
    "change_in_words",
    "change_of",
    "group_change",
    "until_in_words",
]

ESCALATING = "escalating"
"""The end of a mute in a message, besides a time and a number of failures."""
TEXT_LIMITS = {"owner": 100, "note": 1_000, "ticket": 500}
"""Texts by key of the message, with the most characters of each."""
LABEL_LIMIT = 50  # characters
MOST_LABELS = 10
MOST_MORE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Mute:
    """When the mute of a group ends: at a time, after `more` failures, else when it escalates."""

    until: datetime | None = None
    more: int | None = None

    def as_json(self) -> str | int:
        """The value of `mute` in a message."""
        if self.until is not None:
            return self.until.isoformat()
        return self.more if self.more is not None else ESCALATING


@dataclass(frozen=True, slots=True)
class GroupChange:
    """One change of a group, as a message says it."""

    group_id: str
    texts: Mapping[str, str | None]  # the changed ones of `TEXT_LIMITS`; None: removed
    labels: tuple[str, ...] | None = None  # all of them; None: unchanged
    mute: Mute | None = None
    is_unmuted: bool = False
    ended_mute_at: datetime | None = None  # of triage.unmuted: which mute ended


def group_change(event: CaseEvent) -> GroupChange | None:
    """The change in a message of the log, from its redacted body; None if it has none.

    Values that cannot be used are left out.
    """
    if event.parse_error or event.group_id is None:
        return None
    return change_of(event.kind, event.group_id, event.body)


def change_of(kind: str, group_id: str, body: str) -> GroupChange | None:
    """The change in the body of a readable message of this kind."""
    said = json.loads(body)
    if kind == "triage.unmuted":
        at = _time(said.get("muted_at"))
        return GroupChange(group_id, {}, ended_mute_at=at) if at else None
    if kind != "triage.group":
        return None
    texts = {
        name: clean_text(said[name])[:limit] or None
        for name, limit in TEXT_LIMITS.items()
        if isinstance(said.get(name), str)
    }
    return GroupChange(
        group_id,
        texts,
        _labels(said.get("labels")),
        _mute(said.get("mute")),
        is_unmuted="mute" in said and said["mute"] is None,
    )


def change_in_words(change: GroupChange) -> str:
    """`owner team-a; labels disk, known; muted until 100 more failures`, for people."""
    told = [f"{name} {text}" if text else f"no {name}" for name, text in change.texts.items()]
    if change.labels is not None:
        told.append(f"labels {', '.join(change.labels)}" if change.labels else "no labels")
    if change.mute is not None:
        told.append(f"muted {until_in_words(change.mute)}")
    if change.is_unmuted:
        told.append("unmuted")
    if change.ended_mute_at is not None:
        told.append("the mute ended")
    return "; ".join(told)


def until_in_words(mute: Mute) -> str:
    """`until 100 more failures`: when a mute ends."""
    if mute.until is not None:
        return f"until {mute.until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if mute.more is not None:
        return f"until {mute.more:,} more {'failure' if mute.more == 1 else 'failures'}"
    return "until it escalates"


def _labels(said: Any) -> tuple[str, ...] | None:
    if not isinstance(said, list):
        return None
    texts = (clean_text(text)[:LABEL_LIMIT] for text in said if isinstance(text, str))
    return tuple(dict.fromkeys(filter(None, texts)))[:MOST_LABELS]


def _mute(said: Any) -> Mute | None:
    if type(said) is int and 0 < said <= MOST_MORE:
        return Mute(more=said)
    if said == ESCALATING:
        return Mute()
    until = _time(said)
    return Mute(until) if until else None


def _time(said: Any) -> datetime | None:
    try:
        return parse_time(said) if isinstance(said, str) else None
    except ValueError:
        return None
