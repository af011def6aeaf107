"""Existing durable consumers keep their settings, and are pulled from as these demand."""

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.errors import APIError

from sahool_dlq.errors import StreamError
from sahool_dlq.events import NATSConsumer
from sahool_dlq.jetstream import pull
from sahool_dlq.jetstream.api import ask
from support.consumer_log import SUCCESS, Calls, Log, running, seen, until

SECOND = 10**9
KEPT = {
    "description": "made by an operator",
    "metadata": {"team": "agronomy"},
    "deliver_policy": "by_start_sequence",
    "opt_start_seq": 2,
    "replay_policy": "instant",
    "sample_freq": "50%",
    "max_waiting": 7,
    "max_batch": 3,
    "max_expires": SECOND,
    "max_bytes": 100_000,
    "inactive_threshold": 3600 * SECOND,
    "num_replicas": 1,
    "mem_storage": True,
    "priority_groups": ["jobs"],
    "priority_policy": "overflow",
}


KEPT_SINCE_2_11 = {"priority_groups", "pause_until"}


async def make(log: Log, **config: Any) -> dict[str, Any]:
    """Create a durable consumer `ndvi` as somebody else would; its configuration on the server."""
    named = {"name": "ndvi", "durable_name": "ndvi", "ack_policy": "explicit", **config}
    stream = log.names.events
    version = log.client.connected_server_version
    if KEPT_SINCE_2_11 & config.keys() and (version.major, version.minor) < (2, 11):
        pytest.skip("this server knows no priority groups and no pause")
    answer = await ask(
        log.js, f"CONSUMER.CREATE.{stream}.ndvi", stream_name=stream, action="create", config=named
    )
    return dict(answer["config"])


async def config_of(log: Log) -> dict[str, Any]:
    return dict((await ask(log.js, f"CONSUMER.INFO.{log.names.events}.ndvi"))["config"])


async def test_only_what_the_library_must_have_is_changed(log: Log) -> None:
    before = await make(
        log, **KEPT, ack_wait=SECOND, max_deliver=5, backoff=[SECOND, 2 * SECOND], max_ack_pending=9
    )
    assert {name: before[name] for name in KEPT if name != "metadata"} == {
        name: KEPT[name] for name in KEPT if name != "metadata"
    }
    for number in range(12):
        await log.publish({"n": number})
    calls = Calls(SUCCESS)
    async with running(log.config(max_concurrency=8), calls):
        await seen(calls, 11)
        await log.settled()
    assert sorted(json.loads(call.data)["n"] for call in calls) == list(range(1, 12))
    changed = {
        "ack_wait": 30 * SECOND,
        "max_deliver": -1,
        "max_ack_pending": 10_000,
        "filter_subject": f"{log.prefix}.analysis.*",
    }
    del before["backoff"]
    assert await config_of(log) == before | changed


async def test_one_that_has_it_all_is_not_touched(log: Log) -> None:
    async with running(log.config(), Calls(SUCCESS)):
        pass
    said: list[str] = []

    async def listen(msg: Any) -> None:
        asked = json.loads(msg.data)
        if log.names.events in asked["subject"]:
            said.append(f"{asked['subject']} {json.loads(asked['request'])['action']}")

    await log.client.subscribe("$JS.EVENT.ADVISORY.API", cb=listen)  # of what is changed
    await log.client.flush()
    async with running(log.config(), Calls(SUCCESS)):
        pass
    async with running(log.config(max_ack_pending=99), Calls(SUCCESS)):
        pass
    await until(lambda: _is_any(said))
    what = f"$JS.API.CONSUMER.CREATE.{log.names.events}.ndvi.{log.prefix}.analysis.*"
    assert said == [f"{what} update"]


async def test_several_filters_become_the_one(log: Log) -> None:
    await make(log, filter_subjects=[f"{log.prefix}.actions.a", f"{log.prefix}.actions.b"])
    async with running(log.config(), Calls(SUCCESS)):
        await log.publish({})
        await log.settled()
    config = await config_of(log)
    assert config["filter_subject"] == f"{log.prefix}.analysis.*"
    assert "filter_subjects" not in config


async def test_many_processes_that_start_at_once_share_one(log: Log) -> None:
    consumers = [NATSConsumer(log.config(max_ack_pending=1_000 + n)) for n in range(5)]
    assert all(await asyncio.gather(*(each.connect() for each in consumers)))
    await asyncio.gather(*(each.subscribe(Calls(SUCCESS)) for each in consumers))
    assert (await config_of(log))["max_ack_pending"] in range(1_000, 1_005)
    await asyncio.gather(*(each.close() for each in consumers))


@pytest.mark.parametrize(
    ("existing", "what"),
    [
        ({"deliver_subject": "push.to"}, "is a push consumer"),
        ({"ack_policy": "all"}, "does not use explicit acknowledgements"),
        ({"ack_policy": "none"}, "does not use explicit acknowledgements"),
        ({"headers_only": True}, "delivers headers only, no events"),
        (
            {"priority_groups": ["a", "b"], "priority_policy": "overflow"},
            "has the priority groups a, b: give one of them as priority_group",
        ),
    ],
)
async def test_one_that_can_not_be_worked_with_is_refused_and_left_alone(
    log: Log, existing: dict[str, Any], what: str
) -> None:
    # The same in all else, so that the server would take an update.
    before = await make(log, filter_subject=f"{log.prefix}.analysis.*", **existing)
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    with pytest.raises(StreamError, match=f"Consumer ndvi on {log.names.events} .*{what}"):
        await consumer.subscribe(Calls(SUCCESS))
    await consumer.close()
    assert await config_of(log) == before


async def test_a_group_that_the_consumer_does_not_have_is_refused(log: Log) -> None:
    consumer = NATSConsumer(log.config(priority_group="jobs"))
    assert await consumer.connect()
    with pytest.raises(StreamError, match="has no priority groups: leave out priority_group"):
        await consumer.subscribe(Calls(SUCCESS))
    await consumer.close()
    assert await log.js.consumers_info(log.names.events) == []


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_paused_one_stays_paused_which_is_reported(
    log: Log, caplog: pytest.LogCaptureFixture, hours: int
) -> None:
    until_ = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    before = await make(log, pause_until=until_)
    consumer = NATSConsumer(log.config())
    assert await consumer.connect()
    await consumer.subscribe(Calls(SUCCESS))
    await consumer.close()
    assert (await config_of(log)).get("pause_until") == before.get("pause_until")
    assert (f"Consumer ndvi on {log.names.events} is paused until" in caplog.text) == (hours > 0)


async def test_what_the_server_refuses_is_raised(log: Log) -> None:
    consumer = NATSConsumer(log.config(subject_filter=f"{log.prefix}..x"))
    assert await consumer.connect()
    with pytest.raises((APIError, StreamError)):
        await consumer.subscribe(Calls(SUCCESS))
    await consumer.close()


async def test_of_several_groups_the_named_one_is_pulled_for(log: Log) -> None:
    await make(log, priority_groups=["a", "b"], priority_policy="overflow")
    calls = Calls(SUCCESS)
    async with running(log.config(priority_group="b"), calls):
        await log.publish({})
        await seen(calls, 1)
        await log.settled()


async def test_a_client_for_overflow_gets_nothing_while_we_keep_up(log: Log) -> None:
    await make(log, priority_groups=["jobs"], priority_policy="overflow")
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        overflow = await _asking(log.client, log, min_pending=1_000, expires=20 * SECOND)
        for number in range(50):
            await log.publish({"n": number})
        await seen(calls, 50)
        await log.settled()
        assert overflow.empty()


async def test_of_two_processes_only_the_pinned_one_works_and_the_other_takes_over(
    log: Log,
) -> None:
    await make(
        log,
        priority_groups=["jobs"],
        priority_policy="pinned_client",
        priority_timeout=8 * SECOND,
        max_expires=SECOND,
    )
    calls = [Calls(SUCCESS), Calls(SUCCESS)]
    published = 0

    async def publish(count: int) -> None:
        nonlocal published
        for _ in range(count):
            await log.publish({"n": published})
            published += 1

    async with running(log.config(), calls[0]) as first:
        await publish(1)
        await seen(calls[0], 1)
        async with running(log.config(), calls[1]) as second:
            await publish(30)
            await seen(calls[0], 31)
            await log.settled()
            assert calls[1] == []
            # The server removes the pin: its holder is informed, and waits for its turn.
            await ask(log.js, f"CONSUMER.UNPIN.{log.names.events}.ndvi", group="jobs")
            before = list(map(len, calls))
            await publish(30)
            await log.settled()
            [pinned] = [n for n, count in enumerate(before) if len(calls[n]) > count]
            await (first, second)[pinned].close()
            left = calls[1 - pinned]
            done = len(left)
            await publish(10)
            await seen(left, done + 10)
            await log.settled()
    numbers = [json.loads(call.data)["n"] for each in calls for call in each]
    assert sorted(numbers) == list(range(71))


async def test_a_pinned_one_keeps_its_pin_through_a_stall(
    log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await make(
        log,
        priority_groups=["jobs"],
        priority_policy="pinned_client",
        priority_timeout=300 * SECOND,
    )
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        await log.publish({})
        await seen(calls, 1)
        pin = await _pin(log)
        monkeypatch.setattr(pull, "_GRACE_SECONDS", -4.5)  # as if the answers were late

        async def has_stalled() -> bool:
            return caplog.text.count("pulling again in one second") > 1

        await until(has_stalled)
        await log.publish({})
        await seen(calls, 2)
        assert await _pin(log) == pin


async def _pin(log: Log) -> str:
    info = await ask(log.js, f"CONSUMER.INFO.{log.names.events}.ndvi")
    return str(info["priority_groups"][0].get("pinned_client_id"))


async def _asking(client: Client, log: Log, **request: Any) -> "asyncio.Queue[Any]":
    """An open pull request of another client; its messages."""
    arrived: asyncio.Queue[Any] = asyncio.Queue()
    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=arrived.put)
    body = {"batch": 1, "group": "jobs", **request}
    where = f"$JS.API.CONSUMER.MSG.NEXT.{log.names.events}.ndvi"
    await client.publish(where, json.dumps(body).encode(), reply=inbox)
    await client.flush()
    return arrived


async def _is_any(said: list[str]) -> bool:
    return bool(said)
