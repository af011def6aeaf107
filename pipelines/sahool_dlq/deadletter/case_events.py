"""Messages about failures after they became dead letters: redrive outcomes and decisions.

Each is a small JSON message on `sahool.redrive.*` or `sahool.triage.*`. The drain applies them, in
log order, to the status in `failed_events` (see `cases`) and stores all of them in the lake. Those
of `GROUP_KINDS` are about a group of failures (see `group_changes`).
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.message import MOST_AHEAD, LogMessage
from sahool_dlq.deadletter.record import LONG_TEXT_LIMIT
from sahool_dlq.deadletter.sanitize import clean_text, dump_json, parse_json, parse_time, raw_data

REDRIVE_KINDS = (
    *("requested", "published"),
    *("succeeded", "unroutable", "refused", "expired", "too_late", "outcome_unknown"),
)
TRIAGE_KINDS = ("resolved", "discarded", "parked", "unparked", "alerted")
GROUP_KINDS = ("triage.group", "triage.unmuted")
KINDS = {
    *(f"redrive.{kind}" for kind in REDRIVE_KINDS),
    *(f"triage.{kind}" for kind in TRIAGE_KINDS),
    *GROUP_KINDS,
}

_TEXT_LIMIT = 1_000
_MOST = 2**31 - 1  # maximum attempt, so that the next one also fits the column
_NUMBERS = ("attempt", "redrive_cap")
_TEXTS = (
    *("failure_id", "redrive_id", "batch_id", "trigger", "consumer", "consumer_version", "actor"),
    *("reason", "resolved_in_version", "group_id"),
)
_GROUP_ID = re.compile("[0-9a-f]{16}")


@dataclass(kw_only=True, slots=True)
class CaseEvent:
    """One message of `sahool.redrive.>` or `sahool.triage.>`."""

    epoch: str
    dlq_sequence: int
    published_at: datetime
    subject: str
    kind: str  # redrive.published, …, triage.resolved, …; anything else has a parse_error
    failure_id: str | None = None  # the root failure
    group_id: str | None = None  # of `GROUP_KINDS`, which have no failure_id: what it is about
    redrive_id: str | None = None  # of a decision: about the failure of that redrive
    batch_id: str | None = None
    attempt: int | None = None  # 1 for the first redrive
    trigger: str | None = None  # automatic | manual | replay: failure_id is that of a replay
    consumer: str | None = None  # <stream>/<durable> that a redrive is addressed to, or answers
    consumer_version: str | None = None  # of an outcome: the release that reports it
    actor: str | None = None
    reason: str | None = None
    not_before: datetime | None = None  # of redrive.requested: when it is due; None is at once
    redrive_cap: int | None = None  # of redrive.published: see `cases`
    resolved_in_version: str | None = None  # of triage.resolved: failures of lower ones are known
    at: datetime
    body: str  # the whole JSON object
    parse_error: str | None = None


def decode_case_event(message: LogMessage, epoch: str) -> CaseEvent:
    """The case event in a message; never raises. An unusable one has a `parse_error`."""
    kind = message.subject.partition(".")[
        2
    ]  # the whole subject: a user who may report outcomes must not decide
    problems: list[str] = []
    try:
        value: Any = parse_json(message.data)
    except ValueError as error:
        value, body = None, raw_data(message.data, _TEXT_LIMIT)
        problems.append(f"not JSON: {error}")
    else:
        body = dump_json(value)
        if len(body) > LONG_TEXT_LIMIT:
            body = dump_json({"cut": f"{len(body)} characters"})
    given: dict[str, Any] = value if isinstance(value, dict) else {}
    fields = _texts_and_numbers(given) | _times(given, message.published_at, problems)
    if kind not in KINDS:
        problems.append(f"unknown subject {message.subject[:100]}")
    failure, group = fields.get("failure_id"), fields.pop("group_id", "")
    if kind in GROUP_KINDS:
        fields["failure_id"] = None
        if _GROUP_ID.fullmatch(group):
            fields["group_id"] = group
        else:
            problems.append("missing group_id")
    elif not failure or not ids.is_uuid(failure):
        problems.append("missing failure_id")
        fields["failure_id"] = None
    elif (kind.startswith("redrive.") or "redrive_id" in fields) and not (
        "attempt" in fields and ids.is_uuid(fields.get("redrive_id", ""))
    ):
        problems.append("redrive_id and attempt name no redrive")
    return CaseEvent(
        epoch=epoch,
        dlq_sequence=message.sequence,
        published_at=message.published_at,
        subject=clean_text(message.subject),
        kind=clean_text(kind)[:_TEXT_LIMIT],
        body=body,
        parse_error=clean_text("; ".join(problems)) or None,
        **fields,
    )


def _texts_and_numbers(value: dict[str, Any]) -> dict[str, Any]:
    """The usable values; values of another type are left out."""
    fields: dict[str, Any] = {}
    for name in _TEXTS:
        if isinstance(value.get(name), str):
            fields[name] = clean_text(value[name])[:_TEXT_LIMIT]
    for name in _NUMBERS:
        if type(value.get(name)) is int and 0 < value[name] < _MOST:
            fields[name] = value[name]
    return fields


def _times(value: dict[str, Any], published_at: datetime, problems: list[str]) -> dict[str, Any]:
    fields = {"at": published_at}
    for name in ("at", "not_before"):
        if name in value:
            try:
                fields[name] = parse_time(str(value[name]))
            except ValueError:
                problems.append(f"{name} is not a time between 1970 and 2200")
    if fields["at"] > published_at + MOST_AHEAD:
        fields["at"] = published_at  # a case that it closes would stay closed until then
    return fields
