"""A dead letter as the monitor's handler gets it, for any bytes."""

import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sahool_dlq.deadletter.envelope.tolerant import Reading
from sahool_dlq.deadletter.headers import ADDRESSEE, INSTEAD_OF, MutableHeaders, value_of
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.sanitize import clean_text


class DLQEvent(BaseModel):
    """One dead letter: the keys of docs/wire-format.md, its position in the log, its identity.

    Times are aware UTC. Missing values have a default, and `parse_error` says what could not be
    read.
    """

    model_config = ConfigDict(frozen=True)

    # What failed
    event_id: str = "unknown"
    original_subject: str = "unknown"
    event_type: str = "unknown"
    source_service: str = "unknown"  # the service that published the event
    tenant_id: str | None = None
    field_id: str | None = None
    farmer_id: str | None = None
    original_stream: str | None = None
    original_sequence: int | None = None
    original_timestamp_ns: int | None = None  # nanoseconds since 1970
    consumer_name: str | None = None  # the durable consumer that failed on it
    consumer_service: str | None = None  # the service that failed on it
    consumer_version: str | None = None
    handler: str | None = None

    # Why
    error_message: str = ""
    error_type: str = "unknown"
    stack_trace: str | None = None
    retry_count: int = 0
    max_retries: int = 3
    first_attempt_at: datetime
    last_attempt_at: datetime
    dlq_timestamp: datetime
    dlq_reason: str = "unknown"
    attempts: list[Any] = Field(default_factory=list)  # {at, error_type, error_message} of each

    # The event itself
    original_data: Any = None  # the body if it is JSON; else see payload_encoding
    original_headers: MutableHeaders = Field(default_factory=dict)
    payload_encoding: str = "json"  # json | base64 | object | text
    body_error: str | None = None  # why the body could not be read
    traceparent: str | None = None
    # message of another dead-letter stream that it was imported from: stream/sequence/nanoseconds
    imported_from: str | None = None

    # Its identity, and its position in the log
    failure_id: str  # uuid, the same that the drain finds
    root_failure_id: str | None = None  # first failure of the chain, when a redrive failed again
    redrive_id: str | None = None
    redrive_attempt: int | None = None  # 1 for the first redrive
    subject: str  # of the dead letter
    stream: str
    sequence: int
    published_at: datetime  # the server's time
    envelope: str = "canonical"  # canonical | metadata | other
    parse_error: str | None = None  # why it could not be read as it was sent

    @classmethod
    def read(cls, message: LogMessage, stream: str) -> "DLQEvent":
        """The dead letter in a message of `stream`; never raises."""
        reading = Reading(message)
        fields = reading.completed(reading.anything(), stream)
        attempts = json.loads(fields.pop("attempts", "[]"))
        return cls(
            **fields
            | {
                "original_data": json.loads(fields["original_data"]),
                "attempts": attempts if isinstance(attempts, list) else [],
                "subject": clean_text(message.subject),
                "stream": stream,
                "sequence": message.sequence,
                "published_at": message.published_at,
                "envelope": reading.envelope,
                "parse_error": reading.parse_error,
            }
        )

    @property
    def service(self) -> str:
        """The service that failed, if known; else the one that published the event."""
        return self.consumer_service or self.source_service

    @property
    def cases(self) -> dict[str, int]:
        """The failures that a decision about this dead letter concerns, with their next redrive.

        The dead letter itself; and if a redrive failed again in the addressed consumer, also the
        root of its chain, which stays the only live row. Only the drain knows which of them is a
        case; a decision about the other has no effect.
        """
        cases = {self.failure_id: 1}
        headers = self.original_headers
        addressee = value_of(headers, ADDRESSEE) or value_of(headers, INSTEAD_OF)
        address = consumer_address(self.original_stream, self.consumer_name)
        if self.root_failure_id and addressee in (None, address):
            cases[self.root_failure_id] = (self.redrive_attempt or 0) + 1
        return cases
