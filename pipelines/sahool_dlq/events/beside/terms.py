"""The conditions under which the failures of a consumer that other code pulls can be recorded."""

import logging
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerInfo
from nats.js.errors import NotFoundError

from sahool_dlq.errors import NotPermittedError, StreamError
from sahool_dlq.jetstream.acks import ACKS
from sahool_dlq.jetstream.api import api_subject
from sahool_dlq.jetstream.permissions import check_permitted
from sahool_dlq.jetstream.pull import Delivery

__all__ = ["Terms", "check_delivered", "terms_of"]

logger = logging.getLogger(__name__)


class Terms(NamedTuple):
    """The settings of delivery of a durable consumer."""

    ack_wait_seconds: float  # silence after which the server delivers again
    max_deliver: int | None = None  # the delivery after which the server delivers no more
    is_known: bool = True  # False where the consumer cannot be asked for

    def is_last(self, delivery: Delivery) -> bool:
        """Whether the server would not deliver the event again."""
        return self.max_deliver is not None and delivery.delivery_count >= self.max_deliver

    def may_be_last(self, delivery: Delivery) -> bool:
        """Whether the server might not deliver the event again."""
        return self.is_last(delivery) or (self.max_deliver is None and not self.is_known)


def check_delivered(msg: Msg) -> None:
    """Raise StreamError for a message without a JetStream consumer."""
    if not (msg.reply or "").startswith(ACKS):
        raise StreamError(
            f"The message on {msg.subject} was not delivered by a JetStream consumer, so it can "
            "neither be acknowledged nor delivered again: subscribe with nc.jetstream(), to a "
            "stream."
        )


async def terms_of(client: Client, delivery: Delivery, ack_wait_seconds: float) -> Terms:
    """How the consumer of a delivery delivers; `ack_wait_seconds` if that cannot be looked up.

    Raises StreamError for one without acknowledgement of single events, or without bodies; also the
    errors of a request in an outage.
    """
    address = f"{delivery.consumer} on {delivery.stream}"
    try:
        info = await _info(client, delivery)
    except (NotFoundError, NotPermittedError) as error:  # of another account or domain
        logger.warning("Consumer %s could not be looked at: %s", address, error)
        return Terms(ack_wait_seconds, is_known=False)
    if problem := _problem(info):
        raise StreamError(f"Consumer {address} {problem}.")
    config = info.config
    most = config.max_deliver if (config.max_deliver or 0) > 0 else None
    if most is not None:
        logger.warning(
            "Consumer %s delivers an event at most %d times: after that it becomes a dead "
            "letter even if retries are left, and if its process dies then, it is lost: set "
            "max_deliver to -1.",
            *(address, most),
        )
    if config.backoff:
        logger.warning(
            "Consumer %s has a backoff, which overrides the delay of retries: remove it.",
            address,
        )
    return Terms(config.ack_wait or ack_wait_seconds, most)


async def _info(client: Client, delivery: Delivery) -> ConsumerInfo:
    try:
        info: ConsumerInfo = await client.jetstream().consumer_info(
            delivery.stream, delivery.consumer
        )
    except TimeoutError:  # other clients do not report rights
        asked = f"CONSUMER.INFO.{delivery.stream}.{delivery.consumer}"
        check_permitted(client, api_subject(client, asked))
        raise
    return info


def _problem(info: ConsumerInfo) -> str | None:
    config = info.config
    if config.ack_policy == AckPolicy.NONE:
        return (
            "is ordered, or is not acknowledged, so no event is delivered again: use a durable that"
            " is acknowledged explicitly (ack_policy explicit)"
        )
    if config.ack_policy != AckPolicy.EXPLICIT:
        return (
            "acknowledges all earlier events with each one: use one that acknowledges single events"
            " (ack_policy explicit)"
        )
    if config.headers_only:
        return "delivers headers only, so the event is missing: remove headers_only"
    return None
