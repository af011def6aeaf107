"""Decides when a service that fails nearly all events must stop."""

from collections import deque

from sahool_dlq.errors import DeadLetterLimitError
from sahool_dlq.events.config import NATSConsumerConfig

__all__ = ["DeadLetterLimit"]


class DeadLetterLimit:
    """Counts how many of a consumer's latest events were dead-lettered."""

    def __init__(self, durable: str, config: NATSConsumerConfig) -> None:
        self._durable = durable
        self._most = config.dead_letter_limit_events
        self._share = config.dead_letter_limit_share
        self._latest: deque[bool] = deque(maxlen=self._most)

    def exceeded_by(self, *, is_dead: bool) -> DeadLetterLimitError | None:
        """The error to stop with after this event, if any."""
        latest, most = self._latest, self._most
        latest.append(is_dead)
        if not is_dead or not most or len(latest) < most:
            return None
        dead = sum(latest)
        if dead < most * self._share:
            return None
        return DeadLetterLimitError(
            f"{self._durable} stopped: {dead} of its latest {most} events were dead-lettered, so"
            " the service itself fails. Fix it and start it again; the remaining events are still"
            " in the stream."
        )
