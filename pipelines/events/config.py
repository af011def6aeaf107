"""Settings of a consumer, with the names and defaults that services already use."""

from datetime import datetime
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

from pipelines.deadletter.subjects import Subjects


class ProcessingResult(Enum):
    """What a handler says of an event."""

    SUCCESS = "success"  # done: acknowledge it
    RETRY = "retry"  # try again later, with backoff, then dead-letter it
    DEAD_LETTER = "dead_letter"  # hopeless: dead-letter it now


class NATSConsumerConfig(BaseModel):
    """How a `NATSConsumer` connects, retries and dead-letters. Durations are in seconds."""

    model_config = ConfigDict(frozen=True)

    servers: list[str] = Field(default_factory=lambda: ["nats://localhost:4222"])
    name: str = "sahool-consumer"  # the service; a dead letter's consumer_service
    version: str | None = None  # the service's version; a dead letter's consumer_version
    user_credentials: str | None = None  # path of a NATS credentials file

    stream_name: str = "SAHOOL_EVENTS"
    consumer_name: str | None = None  # durable name; default from name and subject
    subject_filter: str = "sahool.analysis.*"
    durable: bool = True

    max_retries: int = Field(3, ge=0)  # retries after the first call
    retry_delay_seconds: float = Field(5, ge=0)
    exponential_backoff: bool = True
    max_retry_delay_seconds: float = Field(300, ge=0)

    ack_wait_seconds: float = Field(30, gt=0)  # silence after which the server redelivers
    handler_timeout_seconds: float | None = Field(None, gt=0)  # None: a handler may take for ever
    max_concurrency: int = Field(1, ge=1)  # handlers at work at once
    max_ack_pending: int = Field(10_000, ge=1)  # delayed retries count against it
    shutdown_seconds: float = Field(20, ge=0)  # how long close() waits for running handlers

    dlq_enabled: bool = True
    dlq_stream_name: str = "SAHOOL_DLQ"
    dlq_subject_prefix: str = "sahool.dlq"
    totals_stream_name: str = "SAHOOL_TOTALS"
    totals_interval_seconds: float = Field(30, gt=0)

    connect_timeout_seconds: float = Field(10, gt=0)  # for `connect` as a whole
    reconnect_time_wait: float = Field(2, ge=0)
    max_reconnect_attempts: int = -1  # for ever

    @property
    def subjects(self) -> Subjects:
        """The log's subjects below the same prefix as the dead letters."""
        return Subjects(self.dlq_subject_prefix.rsplit(".", 1)[0])


class ConsumerContext(BaseModel):
    """One event, as a handler gets it."""

    model_config = ConfigDict(frozen=True)

    subject: str
    data: bytes
    headers: dict[str, str] = Field(default_factory=dict)
    attempt: int = 0  # 0 for the first call
    max_retries: int = 3
    stream: str = ""
    sequence: int = 0
    published_at: datetime | None = None  # the server's time, UTC
    redrive_of: str | None = None  # the failure that this redrive is about
