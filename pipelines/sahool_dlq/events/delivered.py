"""What a handler, and a trace, are told of one delivery."""

from typing import Any

from nats.aio.msg import Msg

from sahool_dlq.deadletter.headers import Headers, redrive_of, value_of
from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.events.config import ConsumerContext
from sahool_dlq.jetstream.headers import every_header
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.tracing import span


def context_of(
    msg: Msg, delivery: Delivery, headers: Headers, attempt: int, max_retries: int
) -> ConsumerContext:
    """What the handler gets; `attempt` are the calls before that failed."""
    return ConsumerContext(
        subject=msg.subject,
        data=msg.data,
        headers=msg.headers or {},
        repeated_headers={k: v for k, v in headers.items() if isinstance(v, list)},
        attempt=attempt,
        max_retries=max_retries,
        stream=delivery.stream,
        sequence=delivery.sequence,
        published_at=time_of_ns(delivery.timestamp_ns),
        redrive_of=redrive.root if (redrive := redrive_of(headers)) else None,
    )


def span_of(_: object, msg: Msg, delivery: Delivery) -> Any:
    """The span of the delivery, below the one that its event carries; for `traced`."""
    headers = every_header(msg.headers)
    return span(
        f"process {msg.subject}",
        "consumer",
        headers,
        messaging__system="nats",
        messaging__destination__name=msg.subject,
        messaging__consumer__group__name=delivery.consumer,
        messaging__message__id=value_of(headers, "Nats-Msg-Id"),
        dlq__delivery_count=delivery.delivery_count,
    )
