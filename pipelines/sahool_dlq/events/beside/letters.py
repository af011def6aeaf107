"""Finished dead letters, held until the server has them and their events are acknowledged."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from nats.aio.client import Client

from sahool_dlq.deadletter.subjects import event_type_of
from sahool_dlq.events.attempts import AttemptLog, Attempts
from sahool_dlq.events.beside.in_hand import Call
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.counters import Counters
from sahool_dlq.events.failure import dead_letter_fields, parse_body
from sahool_dlq.events.outbox import PUBLISH_ERRORS, OwnIds, publish_dead_letter
from sahool_dlq.events.results import DeadLetter
from sahool_dlq.events.same import SameLetters
from sahool_dlq.events.service_log import log_dead_letter
from sahool_dlq.jetstream.permissions import check_permitted
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.tracing import traceparent

__all__ = ["Letter", "Letters", "detail", "finished"]

logger = logging.getLogger(__name__)

_MOST_HELD = 256
_MOST_HELD_BYTES = 64 << 20  # of their bodies


@dataclass(slots=True)
class Letter:
    """A finished dead letter."""

    subject: str
    fields: dict[str, Any]
    data: bytes  # the event's body
    is_json: bool
    attempts: Attempts
    delivery: Delivery
    is_written: bool = False


def finished(
    call: Call, verdict: DeadLetter, config: NATSConsumerConfig, attempts: Attempts
) -> Letter:
    """The dead letter of an event that is given up."""
    msg = call.msg
    is_json, body = parse_body(msg.data)
    fields = dead_letter_fields(
        subject=msg.subject,
        headers=call.headers,
        body=body,
        delivery=call.delivery,
        config=config,
        handler=call.handler,
        attempts=attempts,
        verdict=verdict,
        now=datetime.now(UTC),
    )
    fields["traceparent"] = traceparent(otherwise=fields["traceparent"])
    service = config.name if config.dlq_subject_per_service else None
    subject = config.subjects.dead_letter(event_type_of(msg.subject), service)
    return Letter(subject, fields, msg.data, is_json, attempts, call.delivery)


class Letters:
    """The dead letters of one durable consumer that this process holds."""

    def __init__(self, log: AttemptLog, counters: Counters) -> None:
        self._log = log
        self._counters = counters
        self._own_ids = OwnIds()
        self._held: dict[tuple[int, int], Letter] = {}
        self._held_bytes = 0  # of their bodies

    def hold(self, letter: Letter) -> Letter:
        """Hold one until its event is acknowledged; if there are too many, drop the oldest."""
        self.forget(letter)
        self._held[letter.delivery.event] = letter
        self._held_bytes += len(letter.data)
        while len(self._held) > 1 and self._is_full():  # its handler is called once more
            self.forget(next(iter(self._held.values())))
        return letter

    def _is_full(self) -> bool:
        return len(self._held) > _MOST_HELD or self._held_bytes > _MOST_HELD_BYTES

    def of(self, delivery: Delivery) -> Letter | None:
        """The dead letter of an event that was delivered again."""
        held = self._held.get(delivery.event)
        if held is not None and delivery.delivery_count <= held.delivery.delivery_count:
            self.forget(held)  # of an earlier life of the consumer
            return None
        return held

    def forget(self, letter: Letter) -> None:
        """Drop it: its event is acknowledged."""
        if held := self._held.pop(letter.delivery.event, None):
            self._held_bytes -= len(held.data)

    async def write(self, client: Client, letter: Letter) -> None:
        """Publish a dead letter; raises one of PUBLISH_ERRORS.

        It first records that the event failed so often: any process that gets the event again then
        writes the same dead letter, which the server recognises by its id.
        """
        if letter.is_written:
            return
        fields = letter.fields
        await self._log.write(client, letter.delivery, letter.attempts, is_sure=True)
        own_id = self._own_ids.of(fields)
        own_id.is_ours = partial(_is_ours, client)
        suffix = own_id.suffix
        try:
            await publish_dead_letter(
                client, letter.subject, fields, letter.data, letter.is_json, own_id
            )
        except TimeoutError:
            check_permitted(client, letter.subject)
            raise
        letter.is_written = True
        self._counters.dead_lettered += 1
        log_dead_letter(fields)
        if own_id.suffix != suffix:
            self._counters.ids_taken += 1
            logger.warning(
                "Failure %s already had a dead letter with other content: both are kept.",
                fields["failure_id"],
            )


async def _is_ours(client: Client, *said: Any) -> bool:
    """Whether the log already has this dead letter; unknown without the right to read it."""
    try:
        return await SameLetters(client).is_ours(*said)
    except PUBLISH_ERRORS as error:
        logger.warning("An earlier dead letter is kept beside this one: %s", error)
        return False


def detail(error: BaseException) -> str:
    """The text of an error, or its type."""
    return str(error) or type(error).__name__
