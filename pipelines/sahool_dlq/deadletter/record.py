"""The columns of a dead letter, once, for the lake and for Postgres.

A decoded message is a `DeadLetter`; a batch of them is a Polars frame with one column per field,
in this order, plus what the batch steps add (`FINGERPRINT_COLUMNS`).
"""

from datetime import datetime
from typing import Literal

import msgspec

TEXT_LIMITS = {
    "event_id": 255,
    "event_type": 100,
    "original_subject": 255,
    "source_service": 100,
    "tenant_id": 255,
    "field_id": 255,
    "farmer_id": 255,
    "error_type": 100,
    "dlq_reason": 100,
    "consumer_service": 100,
    "consumer_name": 255,
    "consumer_version": 100,
    "handler": 255,
    "original_stream": 255,
}
"""Longest text, in characters, that a column of `failed_events` takes."""

LONG_TEXT_LIMIT = 1_000_000
"""Longest message, trace or JSON text, in characters, that either sink takes."""


class DeadLetter(msgspec.Struct, kw_only=True, gc=False):
    """One message of `sahool.dlq.>`: where it stands in the log, and what it says.

    Times are aware UTC datetimes. JSON columns hold JSON text. Texts are free of NUL and lone
    surrogates, and may be longer than `TEXT_LIMITS` allow in `failed_events`, which cuts them.
    """

    # Where it stands in the log
    epoch: str  # stream, its creation time and fork: sequences are unique within it
    dlq_sequence: int  # sequence in the dead-letter stream
    published_at: datetime  # the server's time of the dead letter
    subject: str  # subject of the dead letter
    size_bytes: int  # size of its body

    # Who it is
    failure_id: str  # uuid; the same failure published twice has it twice
    root_failure_id: str | None = None  # first failure of the chain, when a redrive failed again
    redrive_id: str | None = None  # the redrive that failed again
    redrive_attempt: int | None = None  # 1 for the first redrive

    # What failed
    event_id: str = "unknown"
    event_type: str = "unknown"
    original_subject: str = "unknown"
    original_stream: str | None = None
    original_sequence: int | None = None
    original_published_at: datetime | None = None
    source_service: str = "unknown"  # the service that published the event
    consumer_service: str | None = None  # the service that failed on it
    service: str = "unknown"  # consumer_service, else source_service
    consumer_name: str | None = None  # durable name
    consumer_version: str | None = None
    handler: str | None = None
    tenant_id: str | None = None
    field_id: str | None = None
    farmer_id: str | None = None

    # Why
    error_type: str = "unknown"
    error_message: str = ""
    stack_trace: str | None = None
    retry_count: int = 0
    max_retries: int = 3
    first_attempt_at: datetime
    last_attempt_at: datetime
    dlq_timestamp: datetime
    dlq_reason: str = "unknown"
    attempts: str | None = None  # JSON array of {at, error_type, error_message}

    # The event itself
    original_data: str  # JSON
    original_headers: str = "{}"  # JSON object of strings, and arrays of them
    payload_encoding: str = "json"  # json | base64 | object | text

    # How it was read
    envelope: str  # canonical | metadata | other
    parse_error: str | None = None  # why it could not be read, or kept, as it was sent
    clamped: str | None = None  # comma-separated names of the columns that do not say what was sent
    traceparent: str | None = None


ErrorKey = Literal["error_type", "error_message", "stack_trace", "service"]
"""What a consumer without our code may say of an error, to the bridge."""

BRIDGED_REASONS = ("max_deliveries", "terminated")
"""`dlq_reason` of failures that the server told of, and the consumer has no code of ours."""

JSON_COLUMNS = ("original_data", "original_headers", "attempts")
"""Columns that hold JSON text: redacted by key and by pattern."""

FREE_TEXT_COLUMNS = ("error_message", "stack_trace", "parse_error")
"""Columns that hold free text: redacted by pattern."""

FINGERPRINT_COLUMNS = {
    "group_id": "16 hexadecimal digits; failures alike in type, frames and message",
    "parent_id": "16 hexadecimal digits; groups alike in type and frames",
    "fingerprint_version": "integer; the version of the recipe",
    "fingerprint_rules": "8 hexadecimal digits; the user's grouping rules, null where none",
    "error_class": "last dotted segment of error_type",
    "template": "the message with its variables replaced",
    "frames": "in-app frames nearest the raise, `module:function`, joined by ' < '",
}
"""What `fingerprint` adds to a batch, computed on redacted text."""
