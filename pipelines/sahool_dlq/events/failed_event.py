"""A failed event as a typed model: the dead letter of docs/wire-format.md for services that read or
write it.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from sahool_dlq.deadletter.headers import MutableHeaders, headers_of_json


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


Time = Annotated[datetime, AfterValidator(_in_utc)]
"""A time; one without an offset, as older services send it, is UTC."""

OriginalHeaders = Annotated[
    MutableHeaders,
    BeforeValidator(lambda value: headers_of_json(value) if isinstance(value, dict) else value),
]
"""The event's headers: a text, or a list of texts for a repeated one."""


class FailedEvent(BaseModel):
    """One dead letter on `sahool.dlq.{event_type}`.

    `FailedEvent.model_validate_json(body)` reads one, and raises ValueError if `body` lacks a key
    that every service sends. `DLQEvent` reads any message and knows its position in the log.
    """

    # What failed
    event_id: str
    original_subject: str
    event_type: str
    source_service: str  # the service that published the event
    tenant_id: str | None = None
    field_id: str | None = None
    farmer_id: str | None = None

    # Why
    error_message: str
    error_type: str
    stack_trace: str | None = None
    retry_count: int
    max_retries: int
    first_attempt_at: Time
    last_attempt_at: Time
    dlq_timestamp: Time = Field(default_factory=lambda: datetime.now(UTC))
    dlq_reason: str = "max_retries_exceeded"

    # The event itself
    original_data: Any  # its body, where payload_encoding is json
    original_headers: OriginalHeaders = Field(default_factory=dict)
    payload_encoding: str = "json"  # json | base64 | object

    # What `NATSConsumer` adds
    failure_id: str | None = None  # uuid5 of stream, sequence, time and consumer
    original_stream: str | None = None
    original_sequence: int | None = None
    original_timestamp_ns: int | None = None  # nanoseconds since 1970
    consumer_name: str | None = None  # the durable consumer that failed
    consumer_service: str | None = None  # the service that failed
    consumer_version: str | None = None
    handler: str | None = None
    attempts: list[dict[str, Any]] = Field(default_factory=list)  # at, error_type, error_message
    redrive_id: str | None = None  # the redrive that failed again
    redrive_of: str | None = None  # the root failure of that redrive
    redrive_attempt: int | None = None  # 1 for the first redrive
    traceparent: str | None = None  # W3C trace context

    # What the import of another dead-letter stream adds
    imported_from: str | None = None  # its message there: stream/sequence/nanoseconds
    import_error: str | None = None  # what of that message could not be read

    def to_json(self) -> str:
        """The dead letter as published."""
        return self.model_dump_json()
