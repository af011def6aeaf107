"""The durable consumers of incoming messages, each known from its first message."""

import asyncio
import contextlib
import logging

from nats.aio.msg import Msg

from sahool_dlq.events.attempts import AttemptLog
from sahool_dlq.events.beside.exhausted import Exhausted
from sahool_dlq.events.beside.in_hand import Call, client_of
from sahool_dlq.events.beside.settler import PAUSE_SECONDS, Settler
from sahool_dlq.events.beside.terms import check_delivered, terms_of
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.outbox import PUBLISH_ERRORS
from sahool_dlq.jetstream.pull import delivery_of

__all__ = ["Settlers"]

logger = logging.getLogger(__name__)


class Settlers:
    """The durable consumers whose messages go to one handler or application."""

    def __init__(self, config: NATSConsumerConfig) -> None:
        self.config = config
        self._settlers: dict[tuple[str, str], Settler] = {}
        self._exhausted: dict[Settler, Exhausted] = {}  # where the terms cannot be asked for

    async def begin(self, msg: Msg, handler: str) -> Call | None:
        """Take an event in hand; see `Settler.begin`. Raises StreamError as `of` does."""
        client = client_of(msg)
        while True:
            try:
                settler = await self.of(msg)
                if (exhausted := self._exhausted.get(settler)) is not None:
                    await exhausted.listen(client)
                break
            except PUBLISH_ERRORS as error:
                if client.is_closed:
                    raise
                logger.warning("The consumer of %s cannot be asked for: %s", msg.subject, error)
                # It is kept in hand: nobody knows whether the server would deliver it again.
                with contextlib.suppress(*PUBLISH_ERRORS):
                    await msg.in_progress()
                await asyncio.sleep(min(PAUSE_SECONDS, self.config.ack_wait_seconds / 3))
        return await settler.begin(msg, handler)

    async def of(self, msg: Msg) -> Settler:
        """The settler of the consumer that delivered a message.

        Raises StreamError for a message without a JetStream consumer, and for a consumer that does
        not acknowledge single events; also the errors of a request in an outage.
        """
        check_delivered(msg)
        delivery = delivery_of(msg)
        key = delivery.stream, delivery.consumer
        if (known := self._settlers.get(key)) is not None:
            return known
        client, config = client_of(msg), self.config
        terms = await terms_of(client, delivery, config.ack_wait_seconds)
        log = AttemptLog(config.subjects, *key)
        await log.open(client)
        settler = self._settlers.setdefault(key, Settler(config, terms, log))
        if not terms.is_known:
            self._exhausted.setdefault(settler, Exhausted(*key, settler.exhausted))
        return settler
