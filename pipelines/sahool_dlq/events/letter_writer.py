"""A consumer's dead letters, each published until the server has it."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client

from sahool_dlq.events.closing import Closing
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.counters import Counters
from sahool_dlq.events.outbox import (
    PUBLISH_ERRORS,
    OwnIds,
    publish_dead_letter,
    publish_until_acknowledged,
)
from sahool_dlq.events.service_log import log_dead_letter
from sahool_dlq.tracing import span, traced, traceparent

__all__ = ["DeadLetterWriter", "Tell"]

logger = logging.getLogger(__name__)

Tell = Callable[[str, str], object]
"""Gets a kind of trouble and a sentence: `dlq_unwritable`, `dlq_writable` (it is over),
`ack_pending` (the server soon delivers no more events), `dead_letter_limit` (the consumer stopped),
`consumer_rewound` (it was recreated or reset: handled events are delivered again),
`dead_letter_id_taken` (another message already had a dead letter's id: both are kept).
"""


def _dead_lettering(*_: Any, **__: Any) -> Any:
    return span("dead letter", "producer")


class DeadLetterWriter:
    """Writes the dead letters of one consumer; `is_writable` is not set while writing fails."""

    def __init__(
        self,
        durable: str,
        counters: Counters,
        closing: Closing,
        is_writable: asyncio.Event,
        tell: Tell,
    ) -> None:
        self._durable = durable
        self._counters = counters
        self._closing = closing
        self._is_writable = is_writable
        self._tell = tell
        self._own_ids = OwnIds()

    @traced(_dead_lettering)
    async def write(
        self,
        connection: Callable[[], Client],
        fields: dict[str, Any],
        body: bytes,
        *,
        is_json: bool,
        config: NATSConsumerConfig,
    ) -> bool:
        """Publish a dead letter until the server has it; False if the service ends before.

        `connection` is asked at each try, because a finally closed connection is replaced.
        """
        fields["traceparent"] = traceparent(otherwise=fields["traceparent"])
        if not config.dlq_enabled:
            logger.error(
                "Event %s is given up (%s): %s",
                fields["event_id"],
                fields["dlq_reason"],
                fields["error_message"],
            )
            return True
        what = f"The dead letter of event {fields['event_id']}"
        own_id = self._own_ids.of(fields)
        suffix = own_id.suffix
        service = config.name if config.dlq_subject_per_service else None
        subject = config.subjects.dead_letter(fields["event_type"], service)

        async def publish() -> None:
            try:
                await publish_dead_letter(connection(), subject, fields, body, is_json, own_id)
            except PUBLISH_ERRORS as error:
                self._note_unwritable(f"{what} cannot be written ({_detail(error)})")
                raise

        try:
            is_published = await publish_until_acknowledged(
                publish, what=what, give_up=self._closing
            )
        except asyncio.CancelledError:
            self._is_writable.set()  # the next dead letter will find out
            raise
        if not self._is_writable.is_set():
            self._is_writable.set()
            if is_published:
                self._tell("dlq_writable", f"{self._durable}: dead letters can be written again.")
        if is_published:
            self._counters.dead_lettered += 1
            log_dead_letter(fields)
        if is_published and own_id.suffix != suffix:
            self._counters.ids_taken += 1
            self._tell(
                "dead_letter_id_taken",
                f"{self._durable}: failure {fields['failure_id']} already had a dead"
                " letter: another process of this service wrote it and died, or it is forged. Both"
                " are kept.",
            )
        return is_published

    def _note_unwritable(self, why: str) -> None:
        if self._is_writable.is_set():
            self._is_writable.clear()
            self._tell(
                "dlq_unwritable",
                f"{self._durable}: {why}: no more events are fetched until that works.",
            )


def _detail(error: BaseException) -> str:
    return str(error) or type(error).__name__
