"""The content of an alert: redacted, grouped as by the drain, with the next command."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import polars as pl

from sahool_dlq.alerts.text import plain
from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint, fingerprint
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.sanitize import dump_json
from sahool_dlq.events.monitor.dlq_event import DLQEvent

_SAMPLE_LIMIT, _NAME_LIMIT = 300, 100  # characters


def prints_of(event: DLQEvent, redactor: Redactor, grouping: GroupingRules) -> tuple[str, str]:
    """The group and the cause that the drain will compute for a dead letter, from its redacted
    texts by the rules.
    """
    error_type = redactor.redact_label(event.error_type)
    text = redactor.redact_text(event.error_message)
    trace = redactor.redact_text(event.stack_trace) if event.stack_trace else None
    if grouping == GroupingRules():  # a hundred times faster than by column
        found = fingerprint(error_type, text, trace)
        return found.group_id, found.cause_id
    row = {"error_type": error_type, "error_message": text, "stack_trace": trace}
    frame = pl.DataFrame([row], schema=dict.fromkeys(row, pl.String))
    return add_fingerprint(frame, grouping).select("group_id", "cause_id").row(0)


@dataclass(frozen=True, slots=True)
class Incident:
    """A message for incident services: news about one alert, under a constant key."""

    key: str  # the same from the first message to the last
    action: Literal["trigger", "acknowledge", "resolve"]
    rule: str
    scope: str
    subject: str  # what it is about; empty: everything
    severity: str  # warning | critical
    since: datetime
    until: datetime | None = None  # last evaluation at which it held; None: it still does
    message_id: str = field(default_factory=lambda: uuid.uuid4().hex)  # the same for each try


@dataclass(frozen=True, slots=True)
class Message:
    """A message to people, or to incident services."""

    title: str
    body: str
    command: str = ""  # the next one; it is in the body too
    is_good: bool = False  # whether it reports an end
    incident: Incident | None = None  # its alert, for incident services


def message_of(
    event: DLQEvent,
    cause_id: str,
    redactor: Redactor,
    *,
    groups: Sequence[str],
    services: Sequence[str],
    count: int,
    new_count: int,
    since: datetime,
) -> Message:
    """The message about failures of one cause: what, since when, how many, a sample, what to do.

    `count` dead letters since `since`, of which `new_count` have not been reported before, in these
    groups and services, which are in the order in which they failed.
    """
    error_type = _name(redactor, event.error_type)
    first, more = _name(redactor, services[0]), len(services) - 1
    where = f"{first} and {more:,} more service{'s' if more > 1 else ''}" if more else first
    how_many = f"{count:,}" if count == new_count else f"{count:,}, {new_count:,} of them new"
    how_many += f", in {len(groups):,} groups" if len(groups) > 1 else ""
    command = f"dlq show {event.failure_id}"
    lines = (  # most important first: a channel may cut the rest
        f"What: {error_type}: {plain(redactor.redact_text(event.error_message))}",
        f"Where: {where}, on {_name(redactor, event.original_subject)}",
        f"Since: {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        f"How many: {how_many}",
        f"Next: {command}",
        f"The group: dlq show {groups[0]}" if len(groups) == 1 else "The groups: dlq groups",
        f"Sample: {plain(_body(event, redactor), _SAMPLE_LIMIT)}",
    )
    noun = "dead letter" if count == 1 else "dead letters"
    incident = Incident(
        key=f"dlq-cause-{cause_id}",
        action="trigger",
        rule="dead_letters",
        scope="cause",
        subject=first,
        severity="critical",
        since=since,
    )
    title = f"{error_type} in {where}: {count:,} {noun}"
    return Message(title, "\n".join(lines), command, incident=incident)


def ended(message: Message, since: datetime, last_at: datetime, silent_seconds: float) -> Message:
    """The message that closes the entry that `message` is in, after some time without failures."""
    assert message.incident is not None
    first, last = (f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for at in (since, last_at))
    return Message(
        f"RESOLVED: {message.title}",
        f"From: {first} to {last} UTC\nNo dead letter of it for {silent_seconds / 60:,.0f} min.",
        is_good=True,
        incident=replace(
            message.incident, action="resolve", until=last_at, message_id=uuid.uuid4().hex
        ),
    )


def _body(event: DLQEvent, redactor: Redactor) -> str:
    text = dump_json(event.original_data)
    is_opaque = event.payload_encoding == "base64"
    return redactor.redact_base64(text) if is_opaque else redactor.redact_json(text)


def _name(redactor: Redactor, text: str) -> str:
    return plain(redactor.redact_label(text), _NAME_LIMIT)
