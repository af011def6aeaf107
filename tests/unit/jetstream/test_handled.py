"""Which stored events were for a consumer, by where it began."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.js.api import ConsumerConfig, ConsumerInfo, DeliverPolicy, SequenceInfo

from sahool_dlq.deadletter.headers import ADDRESSEE, MARKS
from sahool_dlq.deadletter.ids import failure_id, redrive_id
from sahool_dlq.jetstream.handled import filters_of, floor_of, start_of, was_for
from sahool_dlq.jetstream.stored import StoredMessage

CREATED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def consumer(**config: Any) -> ConsumerInfo:
    return ConsumerInfo(
        name="c", stream_name="S", config=ConsumerConfig(**config), created=CREATED
    )  # fmt: skip


def event(sequence: int, headers: dict[str, str] | None = None) -> StoredMessage:
    """Event number 10 was stored when the consumer was created, the others a minute apart."""
    at = CREATED + timedelta(minutes=sequence - 10)
    return StoredMessage("a.b", sequence, int(at.timestamp()) * 10**9, headers or {}, b"")


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({}, 1),
        ({"deliver_policy": DeliverPolicy.ALL}, 1),
        ({"deliver_policy": DeliverPolicy.NEW}, 10),
        ({"deliver_policy": DeliverPolicy.LAST}, 10),
        ({"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": 4}, 4),
        (
            {
                "deliver_policy": DeliverPolicy.BY_START_TIME,
                "opt_start_time": CREATED - timedelta(minutes=3),
            },
            7,
        ),
    ],
)
def test_a_consumer_had_the_events_since_its_start(config: dict[str, Any], first: int) -> None:
    info = consumer(**config)
    assert [n for n in range(1, 15) if was_for(info, event(n))] == list(range(first, 15))


@pytest.mark.parametrize(("addressee", "expected"), [("S/c", True), ("S/d", False)])
def test_a_redrive_is_for_its_addressee(addressee: str, expected: bool) -> None:
    root = failure_id("S", 1, 1, "c")
    marks = dict(zip(MARKS, (root, redrive_id(root, 1), "1"), strict=True))
    headers = marks | {ADDRESSEE: addressee, "Nats-Msg-Id": redrive_id(root, 1)}
    assert was_for(consumer(), event(3, headers)) is expected


def test_what_a_consumer_says_of_itself() -> None:
    assert filters_of(consumer()) == [">"]
    assert filters_of(consumer(filter_subject="a.*")) == ["a.*"]
    assert filters_of(consumer(filter_subjects=["a", "b"])) == ["a", "b"]
    assert start_of(consumer(opt_start_seq=7)) == 7
    assert floor_of(consumer()) == 0
    info = consumer()
    info.ack_floor = SequenceInfo(consumer_seq=3, stream_seq=9)
    assert floor_of(info) == 9
