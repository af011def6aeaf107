"""Reads any bytes on a dead-letter subject as far as possible, in plain Python.

The library for services reads dead letters with this; the drain does so if its typed decoder
refuses (`decode`). So both see the same fields and the same identity in a message, unless it
contains bytes that are not text: only the typed decoder reads beyond these.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.body import InflateError
from sahool_dlq.deadletter.decoding.opened import BodyError, Opened
from sahool_dlq.deadletter.envelope.encode import base64_body
from sahool_dlq.deadletter.event import event_ids
from sahool_dlq.deadletter.headers import (
    MutableHeaders,
    Redrive,
    headers_of_json,
    proven_redrive,
    redrive_marks,
    told_redrive_id,
)
from sahool_dlq.deadletter.message import MOST_AHEAD, LogMessage
from sahool_dlq.deadletter.record import (
    CANONICAL_KEYS,
    INT32_MAX,
    INT64_MAX,
    REQUIRED_KEYS,
)
from sahool_dlq.deadletter.sanitize import (
    clean_text,
    dump_json,
    kind_of,
    parse_json,
    parse_time,
    raw_data,
)
from sahool_dlq.deadletter.subjects import event_type_of, is_import, subject_token, writer_of

RAW_LIMIT = 100_000
"""Maximum characters that are stored of bytes that are not JSON."""

_MOST_TIMES, _MOST_SMALL = 20, 10_000
"""Limits for storing the JSON of a compressed body: times the length of its dead letter, and
characters. A batch is limited by its size in the stream.
"""

TIMES = ("first_attempt_at", "last_attempt_at", "dlq_timestamp")
ORIGIN = ("original_stream", "original_sequence", "original_timestamp_ns", "consumer_name")
ENCODINGS = {"json", "base64", "object", "text"}


class Reading:
    """One message being read, with its problems and changed values."""

    def __init__(self, message: LogMessage) -> None:
        self.message = message
        self.problems: list[str] = []
        self.clamped: list[str] = []
        self.envelope = "canonical"

    @property
    def parse_error(self) -> str | None:
        """Why the message could not be read, or stored unchanged; at most 1,000 characters."""
        return clean_text("; ".join(self.problems))[:1000] or None

    def note(self, what: str, mended: set[str]) -> None:
        """Record what had to be changed, if anything."""
        if mended:
            self.problems.append(f"{what} {', '.join(sorted(mended))}")

    def anything(self) -> dict[str, Any]:
        """The fields of any message, with its problems recorded; JSON values as JSON text."""
        mended: set[str] = set()
        try:
            value = parse_json(self.message.data, mended)
        except ValueError as error:
            self.problems.append(f"not JSON: {error}")
            self.envelope = "other"
            fields = {"original_data": raw_data(self.message.data, RAW_LIMIT)}
            return {**fields, "payload_encoding": "text"}
        self.note("it holds", mended)
        if isinstance(value, dict):
            if isinstance(value.get("metadata"), dict) and "original_message" in value:
                return self._metadata(value["metadata"], value["original_message"])
            if any(name in value for name in REQUIRED_KEYS):
                return self._loose_canonical(value)
            self.problems.append("not a dead letter: a JSON object with none of its keys")
        else:
            kind = {list: "an array", str: "a string", type(None): "null"}.get(type(value))
            self.problems.append(f"not a dead letter: {kind or 'a bare value'}, not a JSON object")
        self.envelope = "other"
        return event_ids(value, {}) | {"original_data": dump_json(value)}

    def _loose_canonical(self, value: dict[str, Any]) -> dict[str, Any]:
        """A canonical envelope with missing keys or wrong types: usable values are used."""
        missing = [name for name in REQUIRED_KEYS if name not in value]
        if missing:
            self.problems.append(f"missing {', '.join(missing)}")
        fields: dict[str, Any] = {}
        for name, field in CANONICAL_KEYS.items():
            found = value.get(name)
            if name in ("original_data", "attempts"):
                if name in value and not (name == "attempts" and found is None):
                    fields[name] = dump_json(found)
            elif name == "original_headers":
                fields[name] = self.headers(found if name in value else {})
            elif found is not None:
                self._take(fields, name, found, field.kind)
            elif name in value and name in REQUIRED_KEYS:
                self.problems.append(f"{name} is null")
        return fields

    def _take(self, fields: dict[str, Any], name: str, found: Any, kind: type) -> None:
        if kind is int:
            if isinstance(found, int) and not isinstance(found, bool):
                fields[name] = found
                return
            digits = found if isinstance(found, str) and len(found) < 20 else ""
            if digits.isascii() and digits.isdigit():
                fields[name] = int(digits)
        else:
            fields[name] = found if isinstance(found, str) else dump_json(found)
            if isinstance(found, str):
                return
        self.problems.append(f"{name} is {kind_of(found)}")

    def headers(self, found: Any) -> MutableHeaders:
        """The event's headers, from any value that was sent for them."""
        if not isinstance(found, dict):
            self.problems.append(f"original_headers is {kind_of(found)}")
            return {}
        return headers_of_json(found, self.problems)

    def _metadata(self, metadata: dict[str, Any], original: Any) -> dict[str, Any]:
        """The second envelope: `metadata`, and the original body as a string."""
        self.envelope = "metadata"
        fields: dict[str, Any] = {}
        for name, key in _METADATA_KEYS.items():
            if metadata.get(key) is not None:
                self._take(fields, name, metadata[key], CANONICAL_KEYS[name].kind)
        if "failure_reason" not in metadata:
            self.problems.append("missing failure_reason")
        if not isinstance(original, str):
            self.problems.append(f"original_message is {kind_of(original)}")
        body = original if isinstance(original, str) else dump_json(original)
        try:
            mended: set[str] = set()
            parsed = parse_json(body.encode(), mended)
            fields["original_data"] = dump_json(parsed)
            self.note("original_message holds", mended)
        except ValueError as error:
            parsed = None
            self.problems.append(f"original_message is not JSON: {error}")
            fields["original_data"] = raw_data(body.encode(), RAW_LIMIT)
            fields["payload_encoding"] = "text"
        fields = event_ids(parsed, {}) | fields
        times, errors = metadata.get("retry_timestamps"), metadata.get("retry_errors")
        if isinstance(times, list) and isinstance(errors, list):
            pairs = zip(times, errors, strict=False)
            fields["attempts"] = dump_json([{"at": at, "error_message": e} for at, e in pairs])
            if times and isinstance(times[0], str):
                fields["first_attempt_at"] = times[0]
        remainder = self.message.subject.split(".dlq.", 1)[-1]
        return {"dlq_reason": "max_retries_exceeded", **fields, "event_type": remainder}

    def completed(self, fields: dict[str, Any], dlq_stream: str) -> dict[str, Any]:
        """The fields with parsed times, numbers in range and a checked identity.

        Missing values are absent, except those that every row must have.
        """
        message, published_at = self.message, self.message.published_at
        headers = fields.setdefault("original_headers", {})
        if (body := self.body_to_open(fields)) is not None:
            self._read_body(fields, body)
        redrive = self._redrive(fields, headers) if self._is_of_its_writer(fields) else None
        self._integers(fields)
        self._times(fields, published_at)
        origin = [fields.get(name) for name in ORIGIN]
        failure = identity(message, dlq_stream, fields.get("failure_id"), origin)
        failure = self._imported(fields, failure, origin)
        fields["failure_id"] = failure
        if redrive and redrive.root != failure:
            fields["root_failure_id"], fields["redrive_id"], fields["redrive_attempt"] = redrive
        if fields.get("payload_encoding", "json") not in ENCODINGS:
            self.problems.append("payload_encoding is unknown")
            fields["payload_encoding"] = "json"
        fields.setdefault("event_type", event_type_of(message.subject))
        fields.setdefault("original_data", "null")
        return {name: value for name, value in fields.items() if value is not None}

    def _imported(self, fields: dict[str, Any], failure: str, origin: Sequence[Any]) -> str:
        """The id of a dead letter that only the importer may have written, by its subject.

        Elsewhere the keys of an import say nothing.
        """
        problem, place = fields.pop("import_error", None), fields.pop("imported_from", None)
        if not (place and is_import(self.message.subject)):
            return failure
        fields["imported_from"] = place
        if problem:
            self.problems.append(problem)
        is_proven = None not in origin and failure == ids.failure_id(*origin)
        return failure if is_proven else ids.imported_id(place)

    def body_to_open(self, fields: dict[str, Any]) -> bytes | None:
        """The event's body if it may have another format than JSON; else None."""
        if fields.get("payload_encoding") != "base64":
            return None
        try:
            return base64_body(fields.get("original_data", "null"))
        except ValueError:
            return None

    def opened(self, body: bytes, fields: dict[str, Any]) -> Opened:  # noqa: ARG002  (of the drain)
        """The body as JSON, as far as services can read it; raises BodyError."""
        return Opened(body)

    def _read_body(self, fields: dict[str, Any], body: bytes) -> None:
        """Replace an encoded body with its JSON, if it contains any, and add the values in it."""
        mended: set[str] = set()
        try:
            opened = self.opened(body, fields)
            fields["body_error"] = opened.problem
            if opened.format is None and fields.get("payload_encoding", "json") == "json":
                return  # JSON that stays as it was sent
            value = parse_json(opened.json, mended)
        except (BodyError, InflateError) as error:
            fields["body_error"] = clean_text(str(error))
            return
        except ValueError:
            return  # it is not JSON, which is allowed
        text, size = dump_json(value), len(self.message.data)
        if len(text) > max(_MOST_SMALL, _MOST_TIMES * size):
            text = dump_json({"cut": f"{len(text)} characters"})
            mended.add("more than is kept")
        if mended:
            self.clamped.append("original_data")
        fields["original_data"], fields["payload_encoding"] = text, "json"
        fields["body_format"] = opened.format
        for name, said in event_ids(value, fields["original_headers"]).items():
            if fields.get(name) in (None, "unknown"):
                fields[name] = said

    def _is_of_its_writer(self, fields: dict[str, Any]) -> bool:
        """Whether the failing service is the owner of the message's subject, if the subject has
        one.

        The subject wins: a service that may not write there cannot have sent it.
        """
        writer, said = writer_of(self.message.subject), fields.get("consumer_service")
        if self.envelope != "canonical" or writer is None or subject_token(said or "") == writer:
            return True
        self.problems.append(f"it came on the subject of {writer}, and says it is of {said}")
        fields["consumer_service"] = writer
        for name in ("redrive_of", "redrive_id", "redrive_attempt"):
            fields.pop(name, None)
        return False

    def _redrive(self, fields: dict[str, Any], headers: MutableHeaders) -> Redrive | None:
        """The redrive, if the failed message was one."""
        marks = redrive_marks(headers)  # older services send nothing more
        names = zip(("redrive_of", "redrive_id", "redrive_attempt"), marks, strict=True)
        keys = [fields.pop(name, None) or mark for name, mark in names]
        if keys[0] is None:
            return None
        redrive = proven_redrive(*keys)
        if redrive is None:
            self.problems.append("its redrive keys contradict each other")
            return None
        return redrive._replace(id=told_redrive_id(headers) or redrive.id)

    def _integers(self, fields: dict[str, Any]) -> None:
        for name in ("retry_count", "max_retries"):
            value = fields.get(name)
            if value is not None and not 0 <= value <= INT32_MAX:
                fields[name] = min(max(value, 0), INT32_MAX)
                self.clamped.append(name)
                self.problems.append(f"{name} is out of range")
        for name in ("original_sequence", "original_timestamp_ns"):
            value = fields.get(name)
            if value is not None and not 0 <= value <= INT64_MAX:
                fields[name] = None
                self.problems.append(f"{name} is out of range")

    def _times(self, fields: dict[str, Any], published_at: datetime) -> None:
        for name in TIMES:
            text = fields.get(name)
            fields[name] = published_at
            if text is None:
                continue
            try:
                time = parse_time(text)
            except ValueError:
                self.problems.append(f"{name} is not a time between 1970 and 2200: {text[:40]}")
                self.clamped.append(name)
                continue
            if time > published_at + MOST_AHEAD:  # else queries by time would not find it
                self.problems.append(f"{name} is ahead of the server's time: {text[:40]}")
                self.clamped.append(name)
            else:
                fields[name] = time


_METADATA_KEYS = {
    "original_subject": "original_subject",
    "event_id": "original_event_id",
    "retry_count": "retry_count",
    "error_message": "failure_reason",
    "last_attempt_at": "failure_timestamp",
    "first_attempt_at": "failure_timestamp",
    "dlq_timestamp": "failure_timestamp",
    "error_type": "error_type",
    "stack_trace": "error_traceback",
    "consumer_service": "consumer_service",
    "consumer_version": "consumer_version",
    "handler": "handler_function",
}


def identity(
    message: LogMessage, dlq_stream: str, claimed: str | None, origin: Sequence[Any]
) -> str:
    """The failure id, trusted only if it can be recomputed from `origin`.

    So no producer can hide another's failure as a repeat. `origin` is stream, sequence, nanoseconds
    and consumer, as far as known.
    """
    if claimed and None not in origin and claimed == ids.failure_id(*origin):
        return claimed
    return ids.dead_letter_id(dlq_stream, message.sequence, message.timestamp_ns)
