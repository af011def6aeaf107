"""Settings of a consumer, with the names and defaults that services already use."""

import tomllib
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from sahool_dlq.deadletter.headers import values_of
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import SettingsError
from sahool_dlq.jetstream.access import Access


class RetryPolicy(BaseModel):
    """A different retry policy for some failures; fields that are None do not change anything.

    It applies if all three conditions hold. `service` and `event_type` may contain wildcards (`*`,
    `?`); `error_type` is the name of the exception's class or of a base class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    service: str = "*"
    event_type: str = "*"
    error_type: str | None = None  # None: for every error

    max_retries: int | None = Field(default=None, ge=0)
    retry_delay_seconds: float | None = Field(default=None, ge=0)
    exponential_backoff: bool | None = None
    max_retry_delay_seconds: float | None = Field(default=None, ge=0)
    fatal_error_types: tuple[str, ...] | None = None

    def applies(self, service: str, event_type: str, error: BaseException | None) -> bool:
        """Whether it applies to this failure; without an error: to every error."""
        return (
            (self.error_type is None or self.error_type in class_names(error))
            and fnmatchcase(service, self.service)
            and fnmatchcase(event_type, self.event_type)
        )


class NATSConsumerConfig(Access):
    """How a `NATSConsumer` connects, retries and dead-letters. Durations are in seconds.

    The connection settings are those of `Access`.
    """

    name: str = "sahool-consumer"  # the service; a dead letter's consumer_service
    version: str | None = None  # the service's version; a dead letter's consumer_version

    # If given, it decides; else the stream that captures the subject is used, or a stream with the
    # default name is created.
    stream_name: str = "SAHOOL_EVENTS"
    consumer_name: str | None = None  # durable name; default from name and subject
    subject_filter: str = "sahool.analysis.*"
    durable: bool = True
    # Where a new durable begins. NATS cannot change this: an existing one with another start is
    # refused. None: at the beginning; an existing one continues at its position.
    deliver_policy: Literal["all", "new", "by_start_sequence", "by_start_time"] | None = None
    opt_start_seq: int | None = Field(default=None, ge=1)  # with by_start_sequence
    opt_start_time: AwareDatetime | None = None  # with by_start_time
    priority_group: str | None = None  # of an existing durable; needed where it has several

    max_retries: int = Field(default=3, ge=0)  # retries after the first call
    retry_delay_seconds: float = Field(default=5, ge=0)
    exponential_backoff: bool = True
    max_retry_delay_seconds: float = Field(default=300, ge=0)
    # class names, of base classes too: dead-lettered at once, whatever retries are left
    fatal_error_types: tuple[str, ...] = ("ValidationError", "JSONDecodeError", "UnicodeError")
    policies: tuple[RetryPolicy, ...] = ()  # later ones win

    ack_wait_seconds: float = Field(default=30, gt=0)  # silence after which the server redelivers
    handler_timeout_seconds: float | None = Field(default=None, gt=0)  # None: for ever
    max_concurrency: int = Field(default=1, ge=1)  # handlers at work at once
    max_ack_pending: int = Field(default=10_000, ge=1)  # delayed retries count against it
    shutdown_seconds: float = Field(default=20, ge=0)  # how long close() waits for running handlers

    # If this share of this many latest events was dead-lettered, the consumer stops, so that a
    # broken deployment does not move the stream into the DLQ. 0 events: off.
    dead_letter_limit_share: float = Field(default=0.95, gt=0, le=1)
    dead_letter_limit_events: int = Field(default=1_000, ge=0)

    dlq_enabled: bool = True
    dlq_stream_name: str = "SAHOOL_DLQ"
    # the part before `.dlq` is the prefix of all subjects of the log
    dlq_subject_prefix: str = Field(default="sahool.dlq", pattern=r"^[A-Za-z0-9_-]{1,64}\.dlq$")
    # dead letters go to `….dlq.<name>.<event type>`, which only the service's own user may write
    dlq_subject_per_service: bool = False
    totals_stream_name: str = "SAHOOL_TOTALS"
    attempts_stream_name: str = "SAHOOL_ATTEMPTS"
    totals_interval_seconds: float = Field(default=30, gt=0)

    connect_timeout_seconds: float = Field(default=10, gt=0)  # for `connect` as a whole
    reconnect_time_wait: float = Field(default=2, ge=0)
    max_reconnect_attempts: int = -1  # for ever

    @model_validator(mode="after")
    def _has_one_start(self) -> Self:
        needed = {"opt_start_seq": "by_start_sequence", "opt_start_time": "by_start_time"}
        for name, policy in needed.items():
            if (getattr(self, name) is not None) != (self.deliver_policy == policy):
                raise ValueError(f'give {name} with deliver_policy="{policy}", and only then')
        return self

    @property
    def subjects(self) -> Subjects:
        """The subjects of the log, with the prefix of the dead letters."""
        return Subjects(self.dlq_subject_prefix.rsplit(".", 1)[0])

    @classmethod
    def from_file(cls, path: str | Path, **changes: Any) -> Self:
        """The settings in a TOML file: these fields, and a table `[[policies]]` for each policy.

        `changes` override the file. Raises SettingsError if the file cannot be read or a value is
        not valid.
        """
        try:
            values = tomllib.loads(Path(path).read_text())
            if unknown := sorted(values.keys() - cls.model_fields.keys()):
                raise SettingsError(f"{path}: {unknown[0]} is not a known setting of a consumer.")
            return cls(**{**values, **changes})
        except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path} cannot be read: {error}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "it"
            reason = first["msg"].removeprefix("Value error, ")
            raise SettingsError(f"{path}: {name} is not valid: {reason}.") from error

    def in_force(self, event_type: str, error: BaseException | None = None) -> Self:
        """These settings with the policies for an event type and an error applied."""
        changes: dict[str, Any] = {}
        for policy in self.policies:
            if policy.applies(self.name, event_type, error):
                changes |= policy.model_dump(exclude=_CONDITIONS, exclude_none=True)
        return self.model_copy(update=changes) if changes else self

    def most_retries(self, event_type: str) -> int:
        """The most retries that an event of this type may get, whatever its errors."""
        possible = [
            policy.max_retries
            for policy in self.policies
            if policy.max_retries is not None
            and fnmatchcase(self.name, policy.service)
            and fnmatchcase(event_type, policy.event_type)
        ]
        return max([self.max_retries, *possible])


def class_names(error: BaseException | None) -> set[str]:
    """The names of an exception's class and of those that it is derived from."""
    return {each.__name__ for each in type(error).__mro__} if error is not None else set()


_CONDITIONS = {"service", "event_type", "error_type"}


class ConsumerContext(BaseModel):
    """One event, as a handler gets it."""

    model_config = ConfigDict(frozen=True)

    subject: str
    data: bytes
    headers: dict[str, str] = Field(default_factory=dict)  # of a repeated one the last value
    repeated_headers: dict[str, list[str]] = Field(default_factory=dict)  # all values, in order
    attempt: int = 0  # calls that failed before; 0 for the first
    max_retries: int = 3
    stream: str = ""
    sequence: int = 0
    published_at: datetime | None = None  # the server's time, UTC
    redrive_of: str | None = None  # of a redrive: its failure; of a replay: the id of that

    def header_values(self, name: str) -> list[str]:
        """All values of a header in order, whatever the case of its name; empty without one."""
        return values_of({**self.headers, **self.repeated_headers}, name)
