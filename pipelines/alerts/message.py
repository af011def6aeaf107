"""What an alert says: redacted, grouped as the drain groups, with the next command."""

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from pipelines.deadletter.fingerprint import add_fingerprint, fingerprint
from pipelines.deadletter.grouping import GroupingRules
from pipelines.deadletter.redaction import Redactor
from pipelines.deadletter.sanitize import dump_json
from pipelines.events.dlq_event import DLQEvent

_MESSAGE_LIMIT, _SAMPLE_LIMIT, _NAME_LIMIT = 500, 300, 100  # characters


def group_of(event: DLQEvent, redactor: Redactor, grouping: GroupingRules) -> str:
    """The group that the drain will find for a dead letter: of its redacted texts, by the rules."""
    error_type = redactor.redact_label(event.error_type)
    text = redactor.redact_text(event.error_message)
    trace = redactor.redact_text(event.stack_trace) if event.stack_trace else None
    if grouping == GroupingRules():  # a hundred times quicker than by column
        return fingerprint(error_type, text, trace).group_id
    row = {"error_type": error_type, "error_message": text, "stack_trace": trace}
    frame = pl.DataFrame([row], schema=dict.fromkeys(row, pl.String))
    return str(add_fingerprint(frame, grouping)["group_id"][0])


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent to people."""

    title: str
    body: str
    command: str = ""  # the next one; it is in the body too
    is_good: bool = False  # that something is over


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

    `count` dead letters since `since`, of which `new_count` have not been told of before.
    """
    error_type = _cut(redactor.redact_label(event.error_type), _NAME_LIMIT)
    service = _cut(redactor.redact_label(event.service), _NAME_LIMIT)
    how_many = f"{count:,}" if count == new_count else f"{count:,}, {new_count:,} of them new"
    command = f"dlq show {event.failure_id}"
    lines = (
        f"What: {error_type}: {_cut(redactor.redact_text(event.error_message), _MESSAGE_LIMIT)}",
        f"Where: {service}, on {_cut(redactor.redact_label(event.original_subject), _NAME_LIMIT)}",
        f"Since: {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        f"How many: {how_many}",
        f"Sample: {_cut(_body(event, redactor), _SAMPLE_LIMIT)}",
        f"Next: {command}",
        f"The group: dlq show {group_id}",
    )
    noun = "dead letter" if count == 1 else "dead letters"
    return Message(f"{error_type} in {service}: {count:,} {noun}", "\n".join(lines), command)


def _body(event: DLQEvent, redactor: Redactor) -> str:
    text = dump_json(event.original_data)
    is_opaque = event.payload_encoding == "base64"
    return redactor.redact_base64(text) if is_opaque else redactor.redact_json(text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
