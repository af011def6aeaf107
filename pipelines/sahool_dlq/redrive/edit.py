"""Changes an event's body with a JSON merge patch (RFC 7396), and shows the changes.

Parts that the patch does not name keep their spelling, byte by byte, including numbers.
"""

import json
from typing import Any, NamedTuple

from sahool_dlq.deadletter.body import text_of
from sahool_dlq.deadletter.redaction.json_text import Member, members
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.sanitize import dump_json, parse_json
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.origin import RefusedError

__all__ = ["Change", "changes", "patched", "read_patch"]

_MOST_BYTES = 100_000


class Change(NamedTuple):
    """One value that a patch changes, redacted; None is a missing value."""

    path: str
    before: str | None
    after: str | None


def read_patch(text: str) -> dict[str, Any]:
    """A user's merge patch; raises RedriveError if it is not valid or cannot be stored."""
    mended: set[str] = set()
    try:
        value = json.loads(text)
        parse_json(text.encode(), mended)
    except (ValueError, RecursionError) as error:
        raise RedriveError(f"The edit is not JSON: {error}.") from error
    if not isinstance(value, dict) or not value:
        raise RedriveError(
            'The edit must be a JSON object that names what to change: {"unit": "ha"}; null'
            " removes a key."
        )
    if len(text.encode()) > _MOST_BYTES:
        raise RedriveError(f"The edit has more than {_MOST_BYTES:,} bytes.")
    if unstorable := sorted(mended - {"an integer beyond 64 bits"}):  # which bodies may hold
        raise RedriveError(
            f"The edit contains {unstorable[0]}, which PostgreSQL cannot store: leave it out."
        )
    return value


def patched(body: bytes, patch: dict[str, Any]) -> bytes:
    """The body with the patch applied, in its original form: encoding, byte order mark, gzip.

    Raises RefusedError for a body that is not a JSON object.
    """
    try:
        is_object = isinstance(parse_json(body), dict)
    except ValueError:
        is_object = False
    if not is_object:
        raise RefusedError("it cannot be edited, because it is not a JSON object")
    text, form = text_of(body)
    return form.bytes_of(_merged(text, patch))


def _merged(target: str, patch: Any) -> str:
    if not isinstance(patch, dict):
        return dump_json(patch)
    value = (
        members(target) if target.lstrip().startswith("{") else {}
    )  # a value that is not an object becomes one
    for key, change in patch.items():
        if change is None:
            value.pop(key, None)
        else:
            old = value.get(key) or Member(dump_json(key), "")
            value[key] = Member(old.key, _merged(old.value, change))
    return "{" + ",".join(f"{key}:{text}" for key, text in value.values()) + "}"


def changes(before: bytes, after: bytes, redactor: Redactor) -> list[Change]:
    """The differences between two JSON bodies, for display: secrets are masked."""
    old, new = parse_json(before), parse_json(after)
    shown = [json.loads(redactor.redact_json(dump_json(value))) for value in (old, new)]
    found: list[Change] = []
    _compare(old, new, shown[0], shown[1], "", found)
    return found


_ABSENT = object()


def _compare(
    before: Any, after: Any, shown_before: Any, shown_after: Any, path: str, found: list[Change]
) -> None:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            _compare(
                before.get(key, _ABSENT),
                after.get(key, _ABSENT),
                _at(shown_before, key),
                _at(shown_after, key),
                f"{path}.{key}" if path else key,
                found,
            )
        return
    old = None if before is _ABSENT else _spelt(shown_before)
    new = None if after is _ABSENT else _spelt(shown_after)
    found.append(Change(path, old, new))


def _at(shown: Any, key: str) -> Any:
    """The value of a key; if the whole was masked, the mask."""
    return shown.get(key, _ABSENT) if isinstance(shown, dict) else shown


def _spelt(value: Any) -> str:
    return "" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
