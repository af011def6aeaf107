"""The content of an alert: redacted, grouped as by the drain, with the next command."""

import uuid
from dataclasses import dataclass, field
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


def group_of(event: DLQEvent, redactor: Redactor, grouping: GroupingRules) -> str:
    """The group that the drain will compute for a dead letter, from its redacted texts by the
    rules.
    """
    error_type = redactor.redact_label(event.error_type)
    text = redactor.redact_text(event.error_message)
    trace = redactor.redact_text(event.stack_trace) if event.stack_trace else None
    if grouping == GroupingRules():  # a hundred times faster than by column
        return fingerprint(error_type, text, trace).group_id
    row = {"error_type": error_type, "error_message": text, "stack_trace": trace}
    frame = pl.DataFrame([row], schema=dict.fromkeys(row, pl.String))
    return str(add_fingerprint(frame, grouping)["group_id"][0])


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
    group_id: str,
    redactor: Redactor,
    *,
    count: int,
    new_count: int,
    since: datetime,
) -> Message:
    """The message about a group: what, since when, how many, a sample, the next command.

    `count` dead letters since `since`, of which `new_count` have not been reported before.
    """
    error_type = _name(redactor, event.error_type)
    service = _name(redactor, event.service)
    how_many = f"{count:,}" if count == new_count else f"{count:,}, {new_count:,} of them new"
    command = f"dlq show {event.failure_id}"
    lines = (  # most important first: a channel may cut the rest
        f"What: {error_type}: {plain(redactor.redact_text(event.error_message))}",
        f"Where: {service}, on {_name(redactor, event.original_subject)}",
        f"Since: {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        f"How many: {how_many}",
        f"Next: {command}",
        f"The group: dlq show {group_id}",
        f"Sample: {plain(_body(event, redactor), _SAMPLE_LIMIT)}",
    )
    noun = "dead letter" if count == 1 else "dead letters"
    incident = Incident(
        key=f"dlq-group-{group_id}",
        action="trigger",
        rule="dead_letters",
        scope="group",
        subject=service,
        severity="critical",
        since=since,
    )
    title = f"{error_type} in {service}: {count:,} {noun}"
    return Message(title, "\n".join(lines), command, incident=incident)


def _body(event: DLQEvent, redactor: Redactor) -> str:
    text = dump_json(event.original_data)
    is_opaque = event.payload_encoding == "base64"
    return redactor.redact_base64(text) if is_opaque else redactor.redact_json(text)


def _name(redactor: Redactor, text: str) -> str:
    return plain(redactor.redact_label(text), _NAME_LIMIT)
