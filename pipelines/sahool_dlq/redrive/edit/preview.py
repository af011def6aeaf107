"""What an edit changes in all events of a plan, counted by change and redacted (pure)."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.sanitize import dump_json, parse_json
from sahool_dlq.redrive.origin import Event

__all__ = ["Change", "ChangeCount", "EditPreview", "changes", "counted"]

_MOST_VALUES = 3  # of one place, which are shown one by one


class Change(NamedTuple):
    """One value that an edit changes, redacted; None is a missing value."""

    path: str  # keys and indexes joined by dots; `headers.` and the name for a header
    before: str | None
    after: str | None


class ChangeCount(NamedTuple):
    """A change, and in how many events it is made."""

    path: str
    before: str | None
    after: str | None
    events: int


@dataclass(frozen=True, slots=True)
class EditPreview:
    """What an edit does in the events of a plan."""

    events: int  # that were read
    unchanged: int  # of these, already as the edit wants them
    changes: list[ChangeCount]  # the most frequent first
    refused: Mapping[str, str] = field(default_factory=dict)  # why it cannot be applied, by failure
    unread: int = 0  # events that cannot be published in any case


def counted(
    found: Iterable[list[Change]], refused: Mapping[str, str], unread: int = 0
) -> EditPreview:
    """The preview, from the changes in each event to which the edit applies."""
    per_event = list(found)
    alike = Counter(change for each in per_event for change in each)
    by_path: dict[str, list[tuple[Change, int]]] = {}
    for change, count in alike.most_common():
        by_path.setdefault(change.path, []).append((change, count))
    told: list[ChangeCount] = []
    for path, its in by_path.items():
        if len(its) <= _MOST_VALUES:
            told += [ChangeCount(*change, count) for change, count in its]
            continue
        before = _summed({change.before for change, _ in its})
        after = _summed({change.after for change, _ in its})
        told.append(ChangeCount(path, before, after, sum(count for _, count in its)))
    told.sort(key=lambda change: -change.events)
    unchanged = sum(not each for each in per_event)
    return EditPreview(len(per_event) + len(refused), unchanged, told, dict(refused), unread)


def _summed(values: set[str | None]) -> str | None:
    return values.pop() if len(values) == 1 else f"({len(values):,} values)"


def changes(before: Event, after: Event, redactor: Redactor) -> list[Change]:
    """The differences between two events, for display: secrets are masked."""
    found: list[Change] = []
    pairs = [("headers", dict(before.headers), dict(after.headers))]
    if before.body != after.body:
        pairs.insert(0, ("", parse_json(before.body), parse_json(after.body)))
    for path, old, new in pairs:
        shown = [json.loads(redactor.redact_json(dump_json(value))) for value in (old, new)]
        _compare(old, new, shown[0], shown[1], path, found)
    return found


_ABSENT = object()


def _compare(
    before: Any, after: Any, shown_before: Any, shown_after: Any, path: str, found: list[Change]
) -> None:
    if before == after and type(before) is type(after):
        return
    parts: Iterable[Any] = ()
    if isinstance(before, dict) and isinstance(after, dict):
        parts = dict.fromkeys([*before, *after])
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        parts = range(len(before))
    else:
        old = None if before is _ABSENT else _spelt(shown_before)
        new = None if after is _ABSENT else _spelt(shown_after)
        found.append(Change(path, old, new))
    for key in parts:
        _compare(
            _part(before, key),
            _part(after, key),
            _part(shown_before, key),
            _part(shown_after, key),
            f"{path}.{key}" if path else str(key),
            found,
        )


def _part(value: Any, key: Any) -> Any:
    """The value of a key or index; if the whole was masked, the mask."""
    if isinstance(value, dict):
        return value.get(key, _ABSENT)
    return value[key] if isinstance(value, list) else value


def _spelt(value: Any) -> str:
    return "" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
