"""Processes the messages in the stream of advisories."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.bridge.advisory import (
    MAX_DELIVERIES,
    TERMINATED,
    Advisory,
    dead_letter_of,
    read_advisory,
    service_of,
)
from sahool_dlq.bridge.event import GivenUp, event_of
from sahool_dlq.bridge.find_unadvised import Untold, sample
from sahool_dlq.bridge.late import LateAcks
from sahool_dlq.deadletter.imports.profile import Profile
from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.events.closing import Closing
from sahool_dlq.events.intake import WRITE_SECONDS, Intake
from sahool_dlq.events.outbox import (
    PUBLISH_ERRORS,
    OwnIds,
    publish_dead_letter,
    publish_until_acknowledged,
)
from sahool_dlq.events.place import pulled
from sahool_dlq.events.same import SameLetters
from sahool_dlq.jetstream.api import domain_of
from sahool_dlq.jetstream.bounded import within
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.jetstream.stored import StoredMessage
from sahool_dlq.settings import Settings

logger = logging.getLogger(__name__)

OnLetter = Callable[[Advisory, dict[str, Any]], object]
"""Called with each advisory that became a dead letter, and the dead letter's fields."""


class Advisories(Intake):
    """The advisories, each settled by its dead letter."""

    def __init__(
        self,
        connection: Client,
        stream: str,
        settings: Settings,
        on_letter: OnLetter | None,
        ack_wait_seconds: float,
        closing: Closing,
        profiles: Sequence[Profile],
    ) -> None:
        super().__init__(
            connection,
            stream=stream,
            wanted=pulled(settings.bridge_durable, ack_wait_seconds),
            ack_wait_seconds=ack_wait_seconds,
            max_concurrency=32,
            closing=closing,
        )
        self.counts: Counter[str] = Counter()
        self._removed_from: set[str] = set()
        self._given_up = GivenUp(stream)
        self.late_acks = LateAcks(settings.subjects, closing)
        self._settings = settings
        self._on_letter = on_letter
        self._own_ids = OwnIds(SameLetters(connection).is_ours)
        self._own_streams = settings.stream_names.own
        self._profiles = profiles

    async def run(self) -> None:
        """As the base class; then received late acknowledgements are reported too."""
        await super().run()
        await within(self._closing.last_seconds(WRITE_SECONDS), self.late_acks.close())

    async def backlog(self) -> int:
        """Advisories that are not yet processed or acknowledged."""
        try:
            info = await self.connection.jetstream().consumer_info(self._stream, self.durable)
        except PUBLISH_ERRORS:
            return 1  # unknown: check again
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def _settle(self, msg: Msg, delivery: Delivery) -> None:
        try:
            advisory = read_advisory(msg.data, domain_of(self.connection))
        except ValueError as error:
            logger.warning("Advisory %d is ignored: %s", delivery.sequence, error)
            self.counts["skipped"] += 1
            self._acknowledge(msg)
            return
        if any(each.has_moved(advisory.stream, advisory.reason) for each in self._profiles):
            self.counts["moved"] += 1
            self._acknowledge(msg)
            return
        event, created = await event_of(
            self.connection, advisory.stream, advisory.stream_seq, advisory.timestamp
        )
        if self._is_own(advisory, event):
            self.counts["skipped"] += 1
        elif advisory.is_removal(event):
            self._tell_removed(advisory)
        elif (
            event is None
            and advisory.kind == TERMINATED
            and await self._given_up.has(self.connection, advisory, created)
        ):
            # It is the same failure, but its id can no longer be computed: the event's time is
            # lost.
            logger.info(
                "%s terminated an event that it had given up: %s", advisory.consumer, advisory
            )
            self.counts["repeated"] += 1
        elif not await self._publish(advisory, event, "bridged" if event else "gone", created):
            await self._give_back(msg)
            return
        self._acknowledge(msg)

    def _tell_removed(self, advisory: Advisory) -> None:
        self.counts["removed"] += 1
        consumer = f"{advisory.consumer} on {advisory.stream}"
        if consumer not in self._removed_from:
            self._removed_from.add(consumer)
            logger.warning(
                "%s was handling event %d when the stream removed it: a newer value, its age,"
                " another limit or a deletion. Nobody can know whether it was handled, so it does"
                " not count as a failure. Further ones are only counted.",
                consumer,
                advisory.stream_seq,
            )

    def _is_own(self, advisory: Advisory, event: StoredMessage | None) -> bool:
        """Whether a reader of the log itself gave up: it would get its own dead letter."""
        subjects = self._settings.subjects
        return advisory.stream in self._own_streams or (
            event is not None and any(matches(own, event.subject) for own in subjects.own)
        )

    async def sample(self, client: Client) -> list[Untold]:
        """See `Bridge.sample`."""
        publish = partial(self._publish, counted_as="found")
        return await sample(client, self._settings, self._stream, self._own_streams, publish)

    async def _publish(
        self,
        advisory: Advisory,
        event: StoredMessage | None,
        counted_as: str,
        stream_created: datetime | None = None,
    ) -> bool:
        """Publish until the server has the dead letter; False if the bridge closes before."""
        services = self._settings.bridge_services
        service = service_of(advisory.stream, advisory.consumer, services)
        headers = self._settings.bridge_headers
        fields, body, is_json = dead_letter_of(advisory, event, service, headers, stream_created)
        is_given_up = advisory.kind == MAX_DELIVERIES
        acked = is_given_up and await self.late_acks.listen(self.connection, advisory)
        own_id = self._own_ids.of(fields)
        suffix = own_id.suffix
        is_out = await publish_until_acknowledged(
            partial(
                publish_dead_letter,
                self.connection,
                self._settings.subjects.dead_letter(fields["event_type"]),
                fields,
                body,
                is_json,
                own_id,
            ),
            what=f"The dead letter of {advisory.consumer} about {advisory.stream}"
            f" {advisory.stream_seq}",
            give_up=self._closing,
        )
        if is_out:
            if acked:
                self.late_acks.tell_of(acked, self.connection, advisory, fields)
            self.counts[counted_as] += 1
            if own_id.suffix != suffix:
                self.counts["ids_taken"] += 1
                logger.warning(
                    "Failure %s (%s) already had another dead letter, forged or of another"
                    " version: both are kept.",
                    fields["failure_id"],
                    advisory.consumer,
                )
            if self._on_letter is not None:
                self._on_letter(advisory, fields)
        return is_out
