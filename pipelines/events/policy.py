"""What to do with an event after its handler ran: pure decisions, no I/O.

`decide` turns what a handler said, or raised, into a `Disposition`; the consumer performs it.
"""

import random
from dataclasses import dataclass

from pipelines.events.config import NATSConsumerConfig, ProcessingResult

CRASH_SLACK = 5
"""Deliveries beyond max_retries + 1 before an event counts as one that kills its process.

Restarts and outages raise the server's delivery count too.
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a handler did with an event."""

    result: ProcessingResult
    error: BaseException | None = None  # what it raised


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """The event is done."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The server shall deliver the event again."""

    delay_seconds: float


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The event goes to the dead-letter stream."""

    reason: str  # its dlq_reason


Disposition = Acknowledge | Retry | DeadLetter


def decide(
    outcome: Outcome, attempt: int, config: NATSConsumerConfig, rng: random.Random
) -> Disposition:
    """The disposition of an event after attempt number `attempt` (0 for the first call)."""
    if outcome.result is ProcessingResult.SUCCESS:
        return Acknowledge()
    if outcome.result is ProcessingResult.DEAD_LETTER:
        return DeadLetter("handler_dead_letter")
    if attempt >= config.max_retries:
        return DeadLetter("max_retries_exceeded")
    return Retry(next_delay(attempt, config, rng))


def is_crash_loop(delivery_count: int, config: NATSConsumerConfig) -> bool:
    """Whether an event was delivered so often that its handler must be killing the process."""
    return delivery_count > config.max_retries + 1 + CRASH_SLACK


def next_delay(attempt: int, config: NATSConsumerConfig, rng: random.Random) -> float:
    """Seconds before the retry that follows attempt `attempt`: doubling, capped, ± 20 % jitter."""
    delay = config.retry_delay_seconds
    if config.exponential_backoff:
        delay *= 2.0 ** min(attempt, 32)
    return min(delay * rng.uniform(0.8, 1.2), config.max_retry_delay_seconds)
