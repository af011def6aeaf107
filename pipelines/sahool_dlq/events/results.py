"""The result of a handler.

`ProcessingResult` is enough for most handlers. `Retry` and `DeadLetter` contain more: the reason,
the delay, and the exception, if the handler caught it.
"""

from dataclasses import dataclass
from enum import Enum


class ProcessingResult(Enum):
    """The result of a handler."""

    SUCCESS = "success"  # done: acknowledge it
    RETRY = "retry"  # try again later, with backoff, then dead-letter it
    DEAD_LETTER = "dead_letter"  # it cannot succeed: dead-letter it now


@dataclass(frozen=True, slots=True)
class Retry:
    """RETRY with its cause: try again later, and dead-letter it after the last retry."""

    reason: str | None = None  # why, for people; the dead letter's message where `error` is None
    error: BaseException | None = None  # what the handler caught
    delay_seconds: float | None = None  # instead of the backoff

    def __post_init__(self) -> None:
        """Fail in the handler, with its traceback, not later."""
        delay: object = self.delay_seconds
        if delay is not None and not (isinstance(delay, (int, float)) and delay < _LONGEST_DELAY):
            raise ValueError(f"delay_seconds is a number of seconds, not {delay!r}.")


_LONGEST_DELAY = 1e9  # seconds; longer than any stream keeps an event


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """DEAD_LETTER with its cause."""

    reason: str | None = None  # why, for people; the dead letter's message where `error` is None
    error: BaseException | None = None  # what the handler caught
    dlq_reason: str = "handler_dead_letter"  # a short code for statistics


HandlerResult = ProcessingResult | Retry | DeadLetter
