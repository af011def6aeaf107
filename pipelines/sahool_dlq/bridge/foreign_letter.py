"""The dead letter of our log for a dead letter that other software wrote."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, cast

from nats.aio.client import Client

from sahool_dlq.bridge.advisory import IMPORTED, nanoseconds, service_of
from sahool_dlq.bridge.event import event_of
from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.imports.profile import Profile
from sahool_dlq.deadletter.imports.reading import ForeignLetter, ForeignMessage, read_letter
from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.deadletter.subjects import event_type_of
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.events.failure import event_fields, parse_body
from sahool_dlq.jetstream.consumers import is_name
from sahool_dlq.jetstream.pull import Delivery

__all__ = ["ImportedLetter", "imported_letter"]

_UNKNOWN = "unknown"


class ImportedLetter(NamedTuple):
    """Fields, body and whether it is JSON, for `publish_dead_letter`."""

    fields: dict[str, Any]
    body: bytes
    is_json: bool

    @property
    def event_type(self) -> str:
        return str(self.fields["event_type"])

    @property
    def problem(self) -> str | None:
        """What of the message could not be read."""
        return cast("str | None", self.fields.get("import_error"))


class _Origin(NamedTuple):
    """The event, as far as the dead letter and its stream say it."""

    stream: str | None = None
    sequence: int | None = None
    timestamp_ns: int | None = None
    consumer: str | None = None
    subject: str | None = None


async def imported_letter(
    client: Client, profile: Profile, message: ForeignMessage, services: Mapping[str, str]
) -> ImportedLetter:
    """The dead letter for a message of another dead-letter stream.

    Its failure has the id that an advisory about the event has, if stream, sequence, time and
    consumer of the event are known; else an id from the message's own place. Raises APIError and
    nats.errors.Error if the stream of the event cannot be asked.
    """
    letter = read_letter(profile, message)
    problems = [letter.problem] if letter.problem else []
    origin = await _origin(client, letter, time_of_ns(message.timestamp_ns), problems)
    is_json, body = parse_body(letter.body)
    texts = letter.texts
    service = texts.get("service") or (
        service_of(origin.stream or "", origin.consumer, services)
        if origin.consumer
        else message.stream
    )
    subject = origin.subject or _UNKNOWN
    delivery = Delivery(
        origin.stream or "",
        origin.consumer or "",
        letter.deliveries or 1,
        origin.sequence or 0,
        origin.timestamp_ns or 0,
        0,
    )
    known = (origin.stream, origin.sequence, origin.timestamp_ns, origin.consumer)
    retries = max((letter.deliveries or 1) - 1, 0)
    fields = {
        **event_fields(subject=subject, headers=letter.headers, body=body, delivery=delivery),
        "event_type": texts.get("event_type") or event_type_of(subject),
        "original_stream": origin.stream,
        "original_sequence": origin.sequence,
        "original_timestamp_ns": origin.timestamp_ns,
        "consumer_name": origin.consumer,
        "error_type": texts.get("error_type", _UNKNOWN),
        "error_message": texts.get("error_message", f"{message.stream} has it without a reason."),
        "stack_trace": texts.get("stack_trace"),
        "retry_count": retries,
        "max_retries": retries,
        "first_attempt_at": letter.first_failed_at.isoformat(),
        "last_attempt_at": letter.failed_at.isoformat(),
        "dlq_timestamp": letter.failed_at.isoformat(),
        "dlq_reason": IMPORTED,
        "consumer_service": service,
        "handler": texts.get("handler"),
        "imported_from": message.place,
        "import_error": "; ".join(problems) or None,
    }
    if None in known:  # else it is that of `event_fields`
        fields["failure_id"] = ids.imported_id(message.place)
    fields |= {key: texts[key] for key in ("event_id", "source_service") if key in texts}
    said = {key: value for key, value in fields.items() if value is not None}
    return ImportedLetter(said, letter.body, is_json)


async def _origin(
    client: Client, letter: ForeignLetter, told_at: datetime, problems: list[str]
) -> _Origin:
    texts = letter.texts
    names = {key: texts.get(key) for key in ("original_stream", "consumer")}
    for key, name in names.items():
        if name is not None and not is_name(name):
            problems.append(f"its {key} is not a valid name: {name[:40]}")
            names[key] = None
    stream, consumer = names["original_stream"], names["consumer"]
    sequence, subject = letter.sequence or None, texts.get("original_subject")
    origin = _Origin(stream, sequence, None, consumer, subject)
    if stream is None or sequence is None:
        return origin
    try:
        event, created = await event_of(client, stream, sequence, told_at)
    except NotPermittedError as error:
        problems.append(f"its event is not known exactly: {error}".rstrip("."))
        return origin
    if event is None:  # all messages about it get this time, so that they are one failure
        return origin._replace(timestamp_ns=nanoseconds(created) if created else None)
    if subject not in (None, event.subject):
        problems.append(
            f"message {sequence} of {stream} is not its event: it is on {event.subject}"
        )
        return origin._replace(sequence=None)
    return origin._replace(timestamp_ns=event.timestamp_ns, subject=event.subject)
