"""A consumer's own counters, published as the denominator of failure rates."""

import asyncio
import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.outbox import PUBLISH_ERRORS
from sahool_dlq.events.subscription import Subscription

logger = logging.getLogger(__name__)


async def publish_totals(config: NATSConsumerConfig, subscriptions: Iterable[Subscription]) -> None:
    """Publish each subscription's counters every `totals_interval_seconds`, for ever."""
    while True:
        await asyncio.sleep(config.totals_interval_seconds)
        for subscription in subscriptions:
            await publish_total(config, subscription)


async def publish_total(config: NATSConsumerConfig, subscription: Subscription) -> None:
    """Publish one subscription's counters since its start; an error is only logged."""
    body = {
        "service": config.name,
        "stream": subscription.stream,
        "consumer": subscription.durable,
        **({"consumer_version": config.version} if config.version else {}),
        "started_at": subscription.started_at.isoformat(),
        "at": datetime.now(UTC).isoformat(),
        **subscription.counters.sums(),
        "is_dlq_writable": subscription.is_log_writable,
    }
    subject = config.subjects.total(config.name, subscription.durable)
    try:
        js = subscription.connection.jetstream()
        await js.publish(subject, json.dumps(body).encode(), timeout=5)
    except PUBLISH_ERRORS as error:
        level = logging.WARNING if isinstance(error, NotPermittedError) else logging.INFO
        logger.log(
            level, "The totals of %s could not be published: %s", subscription.durable, error
        )
