"""Durable pull consumers on the server, and how an existing one is adopted."""

import re
from dataclasses import replace

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo
from nats.js.errors import APIError, NotFoundError

from pipelines.deadletter.subjects import matches
from pipelines.errors import StreamError
from pipelines.jetstream.streams import find_stream

_LONGEST_NAME = 200  # characters; the server takes 255


def durable_name(text: str) -> str:
    """`text` as the name of a durable consumer: what the server takes in one stays as it is."""
    text = text.replace(">", "all").replace("*", "any")
    return re.sub(r"[^!-~]|[./\\]", "_", text)[:_LONGEST_NAME]


async def ensure_consumer(
    js: JetStreamContext, stream: str, wanted: ConsumerConfig
) -> ConsumerInfo:
    """Make the consumer `wanted.name`, or update the one of that name; returns how it is then.

    What the server lets nobody change (where it started to deliver) stays as it is. A limit of
    deliveries does not: a message that reached it would be lost to the consumer.

    Raises StreamError for an existing consumer that can not be pulled from and acknowledged one by
    one, and the server's error where it refuses the consumer.
    """
    try:
        return await js.add_consumer(stream, wanted)
    except APIError as refused:  # a 500 of the server's, where a setting can not be changed
        try:
            existing = (await js.consumer_info(stream, str(wanted.name))).config
        except NotFoundError:
            raise refused from None
        if existing.deliver_subject or existing.ack_policy != AckPolicy.EXPLICIT:
            kind = "a push consumer" if existing.deliver_subject else "not acknowledged explicitly"
            raise StreamError(
                f"Consumer {wanted.name} on {stream} exists and is {kind}: choose another"
                " consumer_name, or delete it (`nats consumer rm`)."
            ) from refused
        adopted = replace(
            wanted,
            deliver_policy=existing.deliver_policy,
            opt_start_seq=existing.opt_start_seq,
            opt_start_time=existing.opt_start_time,
            replay_policy=existing.replay_policy,
            max_waiting=existing.max_waiting,
        )
        return await js.add_consumer(stream, adopted)


async def consumers_of(js: JetStreamContext, subject: str) -> list[str]:
    """`<stream>/<durable>` of every durable consumer that gets what is published on `subject`."""
    stream = await find_stream(js, subject)
    if stream is None:
        return []
    found: list[str] = []
    offset = 0
    while page := await js.consumers_info(stream, offset):
        offset += len(page)
        for info in page:
            config = info.config
            filters = config.filter_subjects or [config.filter_subject or ">"]
            if config.durable_name and any(matches(each, subject) for each in filters):
                found.append(f"{stream}/{config.durable_name}")
    return sorted(found)
