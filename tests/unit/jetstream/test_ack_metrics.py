"""Which acknowledgements the server reports, and what a report contains."""

import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from sahool_dlq.jetstream.ack_metrics import ack_subject, read_ack, sampled_percent

SAID = (
    b'{"type":"io.nats.jetstream.metric.v1.consumer_ack","id":"eClVh9","domain":"hub",'
    b'"timestamp":"2026-11-29T18:41:05.482423515Z","stream":"E","consumer":"c","consumer_seq":4,'
    b'"stream_seq":3,"ack_time":447146,"deliveries":2}'
)


@pytest.mark.parametrize(
    ("freq", "percent"),
    [("100%", 100), ("100", 100), ("150%", 100), ("99%", 99), ("0%", 0), ("-1", 0), (None, 0)],
)
def test_a_part_of_the_acknowledgements_is_reported(freq: str | None, percent: int) -> None:
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, sample_freq=freq)
    assert sampled_percent(config) == percent


@pytest.mark.parametrize("policy", [AckPolicy.ALL, AckPolicy.NONE])
def test_of_consumers_that_do_not_acknowledge_one_by_one_nothing_is_reported(
    policy: AckPolicy,
) -> None:
    assert sampled_percent(ConsumerConfig(ack_policy=policy, sample_freq="100%")) == 0


def test_what_the_server_says_is_read() -> None:
    metric = read_ack(SAID)
    assert ack_subject(metric.stream, metric.consumer) == "$JS.EVENT.METRIC.CONSUMER.ACK.E.c"
    assert (metric.stream_seq, metric.deliveries, metric.ack_time) == (3, 2, 447146)
    assert metric.timestamp.isoformat() == "2026-11-29T18:41:05.482424+00:00"


@pytest.mark.parametrize(
    ("said", "other"),
    [
        (b"consumer_ack", b"max_deliver"),
        (b'"stream_seq":3', b'"stream_seq":0'),
        (b"{", b"[" * 100_000),
        (b"Z", b""),  # a time that may be anywhere
        (b"E", b"\xff"),
    ],
)
def test_what_is_no_acknowledgement_is_none(said: bytes, other: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_ack(SAID.replace(said, other))
