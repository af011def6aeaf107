"""The server's reports of sampled acknowledgements, and which consumers are sampled.

An acknowledgement is reported if the consumer has `sample_freq` and acknowledges explicitly, and
only the first one of an event that still waits for it: not for a `+TERM`, not after the event was
given up, and not if the event had left the stream before. Seen on nats-server 2.10 to 2.15.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo

from sahool_dlq.jetstream.api import check_domain
from sahool_dlq.jetstream.streams import ACK_METRICS, find_streams

ALL = "100%"
"""The `sample_freq` that reports every acknowledgement."""


class AckMetric(msgspec.Struct, frozen=True):
    """The server's report of one event's acknowledgement."""

    type: Literal["io.nats.jetstream.metric.v1.consumer_ack"]
    stream: Annotated[str, msgspec.Meta(min_length=1)]
    consumer: Annotated[str, msgspec.Meta(min_length=1)]
    stream_seq: Annotated[int, msgspec.Meta(gt=0)]
    deliveries: Annotated[int, msgspec.Meta(gt=0)]
    ack_time: int  # nanoseconds since the last delivery
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    domain: str = ""  # where the stream is; empty: the server has none


def read_ack(data: bytes, domain: str = "") -> AckMetric:
    """The acknowledgement in a message.

    Raises ValueError if it is not one, or about another JetStream domain.
    """
    try:
        metric = msgspec.json.decode(data, type=AckMetric)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from error
    check_domain(metric.domain, domain)
    return metric


def ack_subject(stream: str, consumer: str) -> str:
    """The subject on which the server reports a consumer's acknowledgements."""
    return ACK_METRICS.replace(">", f"{stream}.{consumer}")


async def ack_stream(js: JetStreamContext, name: str) -> str | None:
    """The stream that stores these reports: the one called `name`, else another one that does."""
    found = await find_streams(js, ACK_METRICS)
    return name if name in found else next(iter(found), None)


async def told_percent(js: JetStreamContext, kept_in: str, info: ConsumerInfo) -> int:
    """The percentage of a consumer's acknowledgements that are stored in the stream `kept_in`."""
    told = sampled_percent(info.config)
    subject = ack_subject(info.stream_name, info.name)
    return told if told and kept_in in await find_streams(js, subject) else 0


def sampled_percent(config: ConsumerConfig) -> int:
    """The percentage of its acknowledgements that the server reports, 0 to 100."""
    if config.ack_policy != AckPolicy.EXPLICIT:
        return 0  # of the others the server tells nothing, whatever is set
    return percent(config.sample_freq)


def percent(sample_freq: str | None) -> int:
    """A `sample_freq` as the server reads it, 0 to 100."""
    try:
        return min(max(int((sample_freq or "0").removesuffix("%")), 0), 100)
    except ValueError:
        return 0
