"""The position of a durable consumer in its stream: creates it, and notices when it goes back."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from sahool_dlq.jetstream.consumers import ensure_consumer
from sahool_dlq.jetstream.pull import Delivery, PullTerms

__all__ = ["Place", "pulled"]


def pulled(
    name: str, ack_wait_seconds: float, *, is_durable: bool = True, **more: Any
) -> ConsumerConfig:
    """The configuration of all our consumers: each message is acknowledged, and never given up."""
    given = {"deliver_policy": DeliverPolicy.ALL} | more
    return ConsumerConfig(
        durable_name=name if is_durable else None,
        name=name,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait_seconds,
        max_deliver=-1,  # the library counts; an exhausted message would be unreachable
        **given,
    )


class Place:
    """The consumer that `wanted` describes on `stream`; `tell` is called when it goes back."""

    def __init__(
        self,
        stream: str,
        wanted: ConsumerConfig,
        tell: Callable[[str], object],
        *,
        priority_group: str | None,
        must_start_there: bool,  # refuse an existing consumer that began elsewhere
    ) -> None:
        self.terms = PullTerms()
        self._stream = stream
        self._wanted = wanted
        self._tell = tell
        self._priority_group = priority_group
        self._must_start_there = must_start_there
        self._latest = (0, 0)  # Delivery.event of the latest first delivery

    async def prepare(self, connection: Client) -> None:
        """Create or update the consumer on the server; a new creation is reported."""
        known, wanted = self.terms.created, self._wanted
        if known and wanted.deliver_policy is DeliverPolicy.NEW:
            # If created again, it must not skip events published since its first creation.
            at = datetime.fromisoformat(known)
            wanted = wanted.evolve(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=at)
        self.terms = await ensure_consumer(
            connection.jetstream(),
            self._stream,
            wanted,
            self._priority_group,
            must_start_there=self._must_start_there and not known,
        )
        if known and known != self.terms.created:
            self._latest = (0, 0)
            self._tell(
                f"{self._wanted.name} on {self._stream} was deleted and created again. It starts"
                " where a new consumer does, so handled events are delivered again."
            )

    def follow(self, delivery: Delivery) -> None:
        """Notice a first delivery of an event that was delivered before: first deliveries come in
        order.
        """
        if delivery.delivery_count > 1:
            return
        sequence, stored_at = self._latest
        self._latest = delivery.event
        # A recreated stream also begins at 1, but with later events.
        if delivery.sequence <= sequence and delivery.timestamp_ns <= stored_at:
            self._tell(
                f"{self._wanted.name} on {self._stream} went back from sequence {sequence} to"
                f" {delivery.sequence}: it was reset, or the server lost its position, so handled"
                " events are delivered again."
            )
