"""Acknowledgements of consumers without our library, received on their way to the server.

An acknowledgement is a message like any other. If the server reports none, it is the only sign of
success: counters also pass events that were replaced, deleted, skipped by a reset, or were there
before the consumer was created again.
"""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.acks import ack_subjects, fields_of, is_ack
from sahool_dlq.jetstream.consumers import parts_of
from sahool_dlq.jetstream.permissions import check_heard
from sahool_dlq.redrive.publish.heard import Heard, Place

__all__ = ["SentAcks", "listening"]

logger = logging.getLogger(__name__)


class SentAcks(Heard):
    """Receives the acknowledgements of some consumers."""

    async def hear(self, msg: Msg) -> None:
        """Record one acknowledgement."""
        if not is_ack(msg.data):
            return
        stream, consumer, _, sequence, _, stored_ns, _ = fields_of(msg.subject)
        if sequence.isdecimal() and stored_ns.isdecimal():
            self._hear(Place(stream, int(sequence), consumer), time_of_ns(int(stored_ns)))


@asynccontextmanager
async def listening(client: Client, addresses: Iterable[str]) -> AsyncIterator[SentAcks]:
    """Listens to the consumers `<stream>/<durable>`; without the right it receives nothing, which
    is logged.
    """
    sent = SentAcks(client)
    subscriptions: list[Subscription] = []
    for address in addresses:
        if parts := parts_of(address):
            subscriptions += [
                await client.subscribe(subject, cb=sent.hear)
                for subject in ack_subjects(*parts, "*")
            ]
    try:
        if subscriptions:
            await check_heard(client, *(each.subject for each in subscriptions))
    except NotPermittedError as error:
        logger.warning(
            "Acknowledgements cannot be received, so success cannot be inferred: %s", error
        )
    try:
        yield sent
    finally:
        if not client.is_closed:
            for each in subscriptions:
                await each.unsubscribe()
