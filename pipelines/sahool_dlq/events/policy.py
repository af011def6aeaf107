"""What to do with an event after its handler ran: pure decisions, no I/O.

`decide` turns a handler's result into an action: None (acknowledge), a `Retry` with its delay,
or a `DeadLetter` with its reason.
"""

import random
import re

from sahool_dlq.events.config import NATSConsumerConfig, class_names
from sahool_dlq.events.results import DeadLetter, HandlerResult, ProcessingResult, Retry

CRASH_SLACK = 5
"""Calls beyond max_retries + 1 before an event counts as one that kills its process.

A process may also be killed for another reason during a call.
"""

SUSPECT = 2
"""Calls that never ended: the event may kill its process, so only one such event runs at a time."""


def decide(
    result: HandlerResult, attempt: int, config: NATSConsumerConfig, rng: random.Random
) -> Retry | DeadLetter | None:
    """The action for an event after attempt number `attempt` (0 for the first call).

    `config` is the effective one for this event and error (see `NATSConsumerConfig.in_force`).
    """
    match result:
        case ProcessingResult.SUCCESS:
            return None
        case ProcessingResult.DEAD_LETTER:
            return DeadLetter()
        case DeadLetter():
            return result
        case ProcessingResult.RETRY:
            asked = Retry()
        case Retry():
            asked = result
    names = class_names(asked.error)
    if fatal := next((name for name in config.fatal_error_types if name in names), None):
        return DeadLetter(asked.reason, asked.error, dlq_reason=_snake_case(fatal))
    if attempt >= config.max_retries:
        return DeadLetter(asked.reason, asked.error, dlq_reason="max_retries_exceeded")
    delay = asked.delay_seconds
    if delay is None:
        delay = next_delay(attempt, config, rng)
    return Retry(asked.reason, asked.error, max(delay, 0))


def is_crash_loop(begun_count: int, max_retries: int) -> bool:
    """Whether so many calls for an event began that it probably kills the process."""
    return begun_count > max_retries + CRASH_SLACK


def next_delay(attempt: int, config: NATSConsumerConfig, rng: random.Random) -> float:
    """Seconds before the retry that follows attempt `attempt`: doubling, capped, ± 20 % jitter."""
    delay = config.retry_delay_seconds
    if config.exponential_backoff:
        delay *= 2.0 ** min(attempt, 32)
    return min(delay * rng.uniform(0.8, 1.2), config.max_retry_delay_seconds)


def _snake_case(class_name: str) -> str:
    """`ValidationError` as `validation_error`, `JSONDecodeError` as `json_decode_error`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", class_name)
    return words.lower()
