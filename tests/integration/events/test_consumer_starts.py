"""Where a durable consumer begins, and conflicts with an existing one that began elsewhere."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from sahool_dlq.errors import StreamError
from sahool_dlq.events import NATSConsumer, NATSConsumerConfig
from support.consumer_log import SUCCESS, Calls, Log, running, seen, until


async def handled(log: Log, count: int, **changes: Any) -> list[int]:
    """The sequences that a new durable consumer receives: `count` of them, and no more."""
    calls = Calls(SUCCESS)
    async with running(log.config(**changes), calls):
        await seen(calls, count)
        await log.settled()
    return sorted(call.sequence for call in calls)


async def test_a_durable_begins_at_a_sequence_or_a_time(log: Log) -> None:
    first = await log.publish({})
    second = await log.publish({})
    stored = await log.js.get_msg(log.names.events, second)
    assert stored.time is not None
    third = await log.publish({})
    by_sequence = {"deliver_policy": "by_start_sequence", "opt_start_seq": second}
    assert await handled(log, 2, **by_sequence) == [second, third]
    await log.js.delete_consumer(log.names.events, "ndvi")
    by_time = {"deliver_policy": "by_start_time", "opt_start_time": stored.time}
    assert await handled(log, 2, **by_time) == [second, third]
    await log.js.delete_consumer(log.names.events, "ndvi")
    assert await handled(log, 3) == [first, second, third]


async def test_a_durable_that_begins_at_new_skips_nothing_once_it_was_made(log: Log) -> None:
    await log.publish({})
    calls = Calls(SUCCESS)
    config = log.config(deliver_policy="new")
    async with running(config, calls):
        second = await log.publish({})
        await seen(calls, 1)
    third = await log.publish({})
    async with running(config, calls):  # an existing one continues at its position
        await seen(calls, 2)
        await log.settled()
        await log.js.delete_consumer(log.names.events, "ndvi")
        fourth = await log.publish({})  # while it does not exist

        async def has_fourth() -> bool:
            return fourth in {call.sequence for call in calls}

        await until(has_fourth)
        await log.settled()
    assert {call.sequence for call in calls} == {second, third, fourth}
    async with running(config, calls):  # the one that was created again is as configured
        fifth = await log.publish({})
        await seen(calls, len(calls) + 1)
    assert calls[-1].sequence == fifth


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"deliver_policy": "new"}, "began at all, not at new"),
        (
            {"deliver_policy": "by_start_sequence", "opt_start_seq": 7},
            "began at all, not at by_start_sequence 7",
        ),
        (
            {
                "deliver_policy": "by_start_time",
                "opt_start_time": datetime.now(UTC) - timedelta(hours=1),
            },
            "began at all, not at by_start_time 20",
        ),
    ],
)
async def test_one_that_began_elsewhere_is_refused_in_a_sentence(
    log: Log, wanted: dict[str, Any], words: str
) -> None:
    async with running(log.config(), Calls(SUCCESS)):
        pass
    consumer = NATSConsumer(log.config(**wanted))
    assert await consumer.connect()
    with pytest.raises(
        StreamError, match=f"Consumer ndvi on {log.names.events} exists and {words}"
    ):
        await consumer.subscribe(Calls(SUCCESS))
    await consumer.close()


async def test_one_that_began_there_is_taken(log: Log) -> None:
    for wanted in (
        {"deliver_policy": "all"},
        {"deliver_policy": "by_start_sequence", "opt_start_seq": 1},
        {"deliver_policy": "by_start_time", "opt_start_time": datetime.now(UTC)},
        {"deliver_policy": "new"},
    ):
        for _ in range(2):
            async with running(log.config(**wanted), Calls(SUCCESS)):
                pass
        async with running(log.config(), Calls(SUCCESS)):  # nothing is wanted
            pass
        await log.js.delete_consumer(log.names.events, "ndvi")


@pytest.mark.parametrize(
    "wrong",
    [
        {"deliver_policy": "by_start_sequence"},
        {"deliver_policy": "by_start_time"},
        {"opt_start_seq": 5},
        {"deliver_policy": "new", "opt_start_seq": 5},
        {"deliver_policy": "by_start_sequence", "opt_start_seq": 0},
        {"deliver_policy": "by_start_time", "opt_start_time": datetime(2026, 1, 1)},  # noqa: DTZ001  (without a zone on purpose)
        {"deliver_policy": "last"},
    ],
)
def test_a_start_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        NATSConsumerConfig(**wrong)


def test_a_start_survives_a_file(tmp_path: Any) -> None:
    file = tmp_path / "service.toml"
    file.write_text('deliver_policy = "by_start_time"\nopt_start_time = 2026-03-01T12:00:00Z\n')
    config = NATSConsumerConfig.from_file(file)
    assert config.opt_start_time == datetime(2026, 3, 1, 12, tzinfo=UTC)
    again = NATSConsumerConfig(**json.loads(config.model_dump_json(exclude={"servers"})))
    assert again.opt_start_time == config.opt_start_time
