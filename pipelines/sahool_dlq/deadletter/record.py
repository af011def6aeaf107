"""The fields of a dead letter, defined once: how each is sent, stored and masked.

`DeadLetter` is the table. These are derived from it: the keys that are read in a message, typed and
tolerant (`envelope/`), the columns of the lake (`rows.py`) and of `failed_events`
(`stores/postgres/`), the length limits, and the masking. A batch of dead letters is a Polars frame
with one column per field, in this order, plus `FINGERPRINT_COLUMNS`. Standard library only, because
services also read dead letters.
"""

import types
import typing
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

LONG_TEXT_LIMIT = 1_000_000
"""Longest message, trace or JSON text, in characters, that a sink accepts."""
INT16_MAX = 2**15 - 1
INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Column:
    """The properties of a field besides its name, type and default."""

    sent: Literal["always", "maybe", "never"] = "never"
    """Whether it is a key of the canonical dead letter, and each must have it."""
    limit: int | None = None
    """Longest text, in characters, or largest number in `failed_events`."""
    masked: Literal["json", "text", "label"] | None = None
    """How it is redacted: JSON by key and pattern; free text by pattern; a short text from
    producers by every pattern except cards and phones, because ids look like these. Other fields
    contain no secrets, or analyses need them.
    """
    is_uuid: bool = False
    in_postgres: bool = True
    """Whether `failed_events` has it; the lake has every column."""


@dataclass(kw_only=True, slots=True)
class DeadLetter:
    """One message of `sahool.dlq.>`: its position in the log, and its content.

    Times are aware UTC datetimes. JSON columns contain JSON text. Texts are free of NUL and lone
    surrogates, and may be longer than `TEXT_LIMITS` allows in `failed_events`, which cuts them.
    """

    # Where it stands in the log
    epoch: str  # stream, its creation time and fork: sequences are unique within it
    dlq_sequence: int  # sequence in the dead-letter stream
    published_at: datetime  # the server's time of the dead letter
    subject: Annotated[str, Column(masked="label", in_postgres=False)]  # of the dead letter
    size_bytes: Annotated[int, Column(in_postgres=False)]  # size of its body

    # Who it is: the same failure published twice has it twice
    failure_id: Annotated[str, Column("maybe", is_uuid=True)]
    # first failure of the chain, when a redrive failed again; sent as redrive_of
    root_failure_id: Annotated[str | None, Column(is_uuid=True)] = None
    # the redrive that failed again
    redrive_id: Annotated[str | None, Column("maybe", in_postgres=False)] = None
    # 1 for the first redrive
    redrive_attempt: Annotated[int | None, Column("maybe", in_postgres=False)] = None

    # What failed
    event_id: Annotated[str, Column("always", 255, "label")] = "unknown"
    event_type: Annotated[str, Column("always", 100, "label")] = "unknown"
    original_subject: Annotated[str, Column("always", 255, "label")] = "unknown"
    original_stream: Annotated[str | None, Column("maybe", 255, "label")] = None
    original_sequence: Annotated[int | None, Column("maybe", INT64_MAX)] = None
    # sent as original_timestamp_ns
    original_published_at: Annotated[datetime | None, Column(in_postgres=False)] = None
    # the service that published the event
    source_service: Annotated[str, Column("always", 100, "label")] = "unknown"
    # the service that failed on it
    consumer_service: Annotated[str | None, Column("maybe", 100, "label")] = None
    # consumer_service, else source_service
    service: Annotated[str, Column(masked="label", in_postgres=False)] = "unknown"
    # durable name
    consumer_name: Annotated[str | None, Column("maybe", 255, "label")] = None
    # its release, from the consumer
    consumer_version: Annotated[str | None, Column("maybe", 100, "label")] = None
    handler: Annotated[str | None, Column("maybe", 255, "label")] = None
    tenant_id: Annotated[str | None, Column("maybe", 255)] = None
    field_id: Annotated[str | None, Column("maybe", 255)] = None
    farmer_id: Annotated[str | None, Column("maybe", 255)] = None

    # Why
    error_type: Annotated[str, Column("always", 100, "label")] = "unknown"
    error_message: Annotated[str, Column("always", LONG_TEXT_LIMIT, "text")] = ""
    stack_trace: Annotated[str | None, Column("maybe", LONG_TEXT_LIMIT, "text")] = None
    retry_count: Annotated[int, Column("always", INT32_MAX)] = 0
    max_retries: Annotated[int, Column("always", INT32_MAX)] = 3
    first_attempt_at: Annotated[datetime, Column("always")]
    last_attempt_at: Annotated[datetime, Column("always")]
    dlq_timestamp: Annotated[datetime, Column("always")]
    dlq_reason: Annotated[str, Column("always", 100, "label")] = "unknown"
    # array of {at, error_type, error_message}
    attempts: Annotated[str | None, Column("maybe", masked="json")] = None

    # The event itself
    original_data: Annotated[str, Column("always", masked="json")]
    # object of strings, and arrays of them
    original_headers: Annotated[str, Column("always", masked="json")] = "{}"
    # json | base64 | object | text
    payload_encoding: Annotated[str, Column("maybe")] = "json"

    # the formats that the body was decoded from: msgpack, zstd+avro, …; null: it is JSON or opaque
    body_format: str | None = None
    # why the body, or a part of it, is still encoded; null: it is decoded, or not of a known format
    body_error: Annotated[str | None, Column(masked="text")] = None

    # message of another dead-letter stream that it was imported from: stream/sequence/nanoseconds
    imported_from: Annotated[str | None, Column("maybe", 320, "label")] = None

    # How it was read
    envelope: Annotated[str, Column(in_postgres=False)]  # canonical | metadata | other
    # why it could not be read, or kept, as it was sent
    parse_error: Annotated[str | None, Column(masked="text")] = None
    clamped: str | None = None  # comma-separated names of the columns that do not say what was sent
    traceparent: Annotated[
        str | None, Column("maybe", LONG_TEXT_LIMIT, "label", in_postgres=False)
    ] = None


class Field(NamedTuple):
    """A field of the table."""

    kind: type  # str, int or datetime
    column: Column


def _field(hint: object) -> Field:
    column = Column()
    if typing.get_origin(hint) is Annotated:
        hint, column = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        hint = typing.get_args(hint)[0]
    return Field(typing.cast("type", hint), column)


FIELDS: dict[str, Field] = {
    name: _field(hint)
    for name, hint in typing.get_type_hints(DeadLetter, include_extras=True).items()
}
FINGERPRINT_COLUMNS: dict[str, Field] = {
    "group_id": Field(str, Column()),  # 16 hexadecimal digits; alike in type, frames and message
    "parent_id": Field(str, Column()),  # 16 hexadecimal digits; groups alike in type and frames
    "cause_id": Field(str, Column()),  # 16 hexadecimal digits; what a library raised, for anyone
    "fingerprint_version": Field(int, Column(limit=INT16_MAX)),  # of the recipe
    "fingerprint_rules": Field(str, Column()),  # 8 hexadecimal digits; null: no rules of a user's
    "error_class": Field(str, Column(in_postgres=False)),  # last dotted segment of error_type
    "template": Field(str, Column(in_postgres=False)),  # the message, its variables replaced
    "frames": Field(str, Column(in_postgres=False)),  # nearest the raise, joined by ' < '
}
"""The columns that `fingerprint` adds to a batch, computed from redacted text."""

_OTHER_KEYS = {  # each is kept as another column
    "original_timestamp_ns": Field(int, Column("maybe", INT64_MAX)),
    "redrive_of": Field(str, Column("maybe")),
    "import_error": Field(str, Column("maybe")),
}
CANONICAL_KEYS = {n: f for n, f in FIELDS.items() if f.column.sent != "never"} | _OTHER_KEYS
"""Every key of a dead letter that is read."""
REQUIRED_KEYS = tuple(n for n, field in FIELDS.items() if field.column.sent == "always")
"""The keys of every canonical dead letter."""
LIMITS = {n: f.column.limit for n, f in FIELDS.items() if f.kind is str and f.column.limit}
TEXT_LIMITS = {name: limit for name, limit in LIMITS.items() if limit < LONG_TEXT_LIMIT}
"""Longest text, in characters, of a column of `failed_events`."""


def _masked_as(kind: str) -> tuple[str, ...]:
    return tuple(name for name, field in FIELDS.items() if field.column.masked == kind)


JSON_COLUMNS = _masked_as("json")
FREE_TEXT_COLUMNS = _masked_as("text")
LABEL_COLUMNS = _masked_as("label")

ErrorKey = Literal["error_type", "error_message", "stack_trace", "service"]
"""The error keys that a consumer without our library may give to the bridge."""

BRIDGED_REASONS = ("max_deliveries", "terminated", "imported")
"""`dlq_reason` of failures of consumers without our library: the first two are reported by the
server, the last one by a dead letter that such a consumer wrote.
"""
