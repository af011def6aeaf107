"""Events that were given up without an advisory: before the bridge ran, or without a pull."""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from sahool_dlq.bridge.find_unadvised import _EXACT_SINCE, Untold
from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.deadletter import ids
from sahool_dlq.jetstream.api import ask
from sahool_dlq.jetstream.pull import Puller, PullTerms, delivery_of
from sahool_dlq.jetstream.streams import ensure_advisory_stream
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support import servers
from support.foreign_consumers import Platform, opened, refuse
from support.platform_log import failures

pytestmark = pytest.mark.xdist_group("unsaid")  # they share a NATS of their own

counts_exactly = servers.needs_nats(2, 14, "before, num_redelivered counts removed events, too")


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server."""
    with servers.nats(tmp_path_factory.mktemp("unsaid")) as server:
        yield server.url


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with opened(settings) as platform:
        yield platform


async def forget(platform: Platform) -> None:
    """Delete all advisories, as if the bridge had not run until now."""
    await platform.js.delete_stream(platform.settings.advisory_stream)
    await ensure_advisory_stream(platform.js, platform.settings.stream_names)


@counts_exactly
async def test_events_given_up_before_anybody_listened_are_found_where_all_failed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, stream = platform.settings, platform.settings.events_stream
    await platform.publish({"n": 1}, {"n": 2}, {"n": 3})
    await platform.fail("c", {})
    await forget(platform)
    with monkeypatch.context() as older_server:  # its figures include deleted messages
        older_server.setattr("sahool_dlq.bridge.find_unadvised._EXACT_SINCE", (999, 0))
        assert await bridge_pending(settings) == ({}, [])
    for _ in range(2):  # another bridge finds the messages of the first, and adds none
        assert await bridge_pending(settings) == ({"found": 3}, [])
    letters = await platform.letters()
    assert [letter["original_data"] for letter in letters] == [{"n": 1}, {"n": 2}, {"n": 3}]
    for letter in letters:
        origin = (stream, letter["original_sequence"], letter["original_timestamp_ns"], "c")
        assert letter["failure_id"] == ids.failure_id(
            *origin
        )  # an advisory would give the same result
        assert letter["error_message"] == (
            "c gave up after 2 deliveries."
            " DETAIL: no advisory reported it; the counters of the consumer prove it."
        )
    await drain_log(settings)
    await platform.publish({"n": 4})
    await platform.fail("c", {})
    assert await bridge_pending(settings) == ({"bridged": 1}, [])
    await drain_log(settings)
    rows = failures(settings)
    assert (len(rows), len({row["group_id"] for row in rows})) == (4, 1)
    assert await bridge_pending(settings) == ({}, [])


@counts_exactly
async def test_on_a_work_queue_they_are_found_though_others_were_handled(
    platform: Platform,
) -> None:
    settings = platform.settings
    work = StreamConfig(name="WORK", subjects=["work.>"], retention=RetentionPolicy.WORK_QUEUE)
    await platform.js.add_stream(work)
    for number in range(4):
        await platform.js.publish(f"work.{number}", b"%d" % number)
    await platform.fail("c", {1: b"+ACK", 3: b"+ACK"}, stream="WORK")
    await forget(platform)
    assert await bridge_pending(settings) == ({"found": 2}, [])
    assert [letter["original_data"] for letter in await platform.letters()] == [1, 3]


@counts_exactly
async def test_among_handled_events_only_their_number_is_reported_and_less_what_is_known(
    platform: Platform,
) -> None:
    settings, stream = platform.settings, platform.settings.events_stream
    await platform.publish({"n": 1}, {"n": 2}, {"n": 3})
    await platform.fail("c", {1: b"+ACK"})
    await forget(platform)
    untold = [Untold(stream, "c", 2)]
    assert await bridge_pending(settings) == ({}, untold)
    await platform.publish({"n": 4}, {"n": 5})
    await platform.fail("c", {5: b"+TERM"})
    assert await bridge_pending(settings) == ({"bridged": 2}, untold)
    await drain_log(settings)
    await forget(platform)  # as an age limit does: now only the database has the fourth
    assert await bridge_pending(settings) == ({}, untold)
    await platform.js.delete_msg(stream, 2)
    assert await bridge_pending(settings) == ({}, [Untold(stream, "c", 1)])
    assert len(await platform.letters()) == 2


async def test_events_without_a_pull_are_noticed_and_no_delivery_is_spent(
    platform: Platform,
) -> None:
    settings, stream = platform.settings, platform.settings.events_stream
    await platform.publish({"n": 1}, {"n": 2}, {"n": 3})
    config = ConsumerConfig(max_deliver=2, ack_wait=30)
    sub = await platform.js.pull_subscribe("", "c", stream=stream, config=config)
    [first] = await sub.fetch(1)
    await refuse(platform.client, first)
    for msg in await sub.fetch(2):  # the first event again, and the second
        await refuse(platform.client, msg)
    before = await platform.js.consumer_info(stream, "c")
    assert (before.num_ack_pending, before.num_waiting) == (2, 0)

    for _ in range(3):
        assert (await bridge_pending(settings))[1] == []
    assert [letter["original_data"] for letter in await platform.letters()] == [{"n": 1}]

    deliveries = {}
    while len(deliveries) < 2:
        for msg in await sub.fetch(2, timeout=10):
            deliveries[msg.data] = msg.metadata.num_delivered
            await msg.ack()
    assert deliveries == {b'{"n": 2}': 2, b'{"n": 3}': 1}


async def grouped(platform: Platform, **config: Any) -> Puller:
    """A client that pulls for group `g` of a new consumer `c`, which has received the first event
    twice.
    """
    stream = platform.settings.events_stream
    version = platform.client.connected_server_version
    needed = (2, 12) if config["priority_policy"] == "prioritized" else (2, 11)
    if (version.major, version.minor) < needed:
        pytest.skip("this server does not know such groups")
    whole = {"ack_policy": "explicit", "max_deliver": 2, "priority_groups": ["g"], **config}
    body = {"stream_name": stream, "config": {"name": "c", "durable_name": "c", **whole}}
    await ask(platform.js, f"CONSUMER.CREATE.{stream}.c", **body)
    puller = Puller(platform.client, stream, "c", PullTerms("g"))
    await puller.open()
    await platform.publish({"n": 1}, {"n": 2}, {"n": 3})
    for _ in range(2):
        async for msg in puller.pull(1):
            assert msg.data == b'{"n": 1}'
            await refuse(platform.client, msg)
    return puller


async def test_a_consumer_with_priority_groups_is_made_to_notice_too(platform: Platform) -> None:
    settings = platform.settings
    puller = await grouped(platform, priority_policy="overflow")
    assert (await bridge_pending(settings))[1] == []
    assert [letter["original_data"] for letter in await platform.letters()] == [{"n": 1}]
    assert [msg.data async for msg in puller.pull(5)] == [b'{"n": 2}', b'{"n": 3}']
    await puller.close()


async def test_no_look_takes_a_pin_from_a_client_or_keeps_one_for_a_dead_one(
    platform: Platform,
) -> None:
    settings, stream = platform.settings, platform.settings.events_stream
    puller = await grouped(
        platform, priority_policy="pinned_client", priority_timeout=6 * 10**9, ack_wait=3600 * 10**9
    )

    async def pinned() -> str | None:
        info = await ask(platform.js, f"CONSUMER.INFO.{stream}.c")
        return cast("str | None", info["priority_groups"][0].get("pinned_client_id"))

    pin = await pinned()
    assert pin == puller.pin
    assert await bridge_pending(settings) == ({"bridged": 1}, [])
    assert await pinned() == pin
    deliveries: dict[bytes, int] = {}
    for _ in range(3):  # it is alive, and receives its events
        async for msg in puller.pull(1):
            deliveries[msg.data] = delivery_of(msg).delivery_count
            if len(deliveries) == 1 and deliveries[msg.data] == 1:
                await refuse(platform.client, msg)
        assert await bridge_pending(settings) == ({}, [])
        assert await pinned() == pin
    assert deliveries == {b'{"n": 2}': 2, b'{"n": 3}': 1}
    # From here on it is dead; checks do not prolong its pin, and do not take it.
    await puller.close()
    began = time.monotonic()
    while await pinned() is not None:
        assert time.monotonic() - began < 30
        await bridge_pending(settings)
    assert await bridge_pending(settings) == ({}, [])
    assert await pinned() is None


@pytest.mark.parametrize("policy", ["overflow", "pinned_client", "prioritized"])
async def test_one_behind_others_of_a_group_is_noticed(platform: Platform, policy: str) -> None:
    settings, stream = platform.settings, platform.settings.events_stream
    puller = await grouped(platform, priority_policy=policy, ack_wait=3600 * 10**9)
    [second, third] = [msg async for msg in puller.pull(2)]
    for msg in (second, third):
        await refuse(platform.client, msg)
    [again] = [msg async for msg in puller.pull(1)]
    await refuse(platform.client, again)
    assert await bridge_pending(settings) == ({"bridged": 2}, [])
    given_up = {letter["original_sequence"] for letter in await platform.letters()}
    assert given_up == {1, delivery_of(again).sequence}
    [last] = [msg async for msg in puller.pull(5)]
    assert (delivery_of(last).delivery_count, {delivery_of(last).sequence} | given_up) == (
        2,
        {1, 2, 3},
    )
    assert (await platform.js.consumer_info(stream, "c")).num_ack_pending == 1
    await puller.close()


async def test_our_own_readers_and_consumers_that_never_give_up_are_left_alone(
    platform: Platform,
) -> None:
    settings = platform.settings
    await platform.publish({})
    await platform.js.publish(f"{settings.subject_prefix}.dlq.ndvi", b"{}")
    await platform.fail("somebodys-monitor", {}, stream=settings.dlq_stream)
    endless = await platform.js.pull_subscribe("", "endless", stream=settings.events_stream)
    for _ in range(3):
        for msg in await endless.fetch(1):
            await refuse(platform.client, msg)
    await forget(platform)
    assert await bridge_pending(settings) == ({}, [])


@pytest.mark.parametrize("how", ["purge by subject", "rollup"])
async def test_what_a_purge_made_the_figures_forget_is_not_told_and_nothing_is_invented(
    platform: Platform, how: str
) -> None:
    settings, js = platform.settings, platform.js
    await js.add_stream(StreamConfig(name="X", subjects=["x.>"], allow_rollup_hdrs=True))
    for subject in ("x.good", "x.bad", "x.old"):
        await js.publish(subject, b"1")
    await platform.fail("c", {1: b"+ACK", 3: b"+ACK"}, stream="X")
    await forget(platform)
    exact = _is_exact(platform)
    assert await bridge_pending(settings) == ({}, [Untold("X", "c", 1)] if exact else [])
    if how == "rollup":
        await js.publish("x.old", b"2", headers={"Nats-Rollup": "sub"})
    else:
        await js.purge_stream("X", subject="x.old")
    assert (await js.get_msg("X", 2)).data == b"1"  # given up, and still there
    assert await bridge_pending(settings) == ({}, [])
    await js.publish("x.bad", b"3")
    await platform.fail("c", {4: b"+ACK"} if how == "rollup" else {}, stream="X")
    assert await bridge_pending(settings) == ({"bridged": 1}, [])
    await forget(platform)  # the figures show one of two events that were given up
    assert await bridge_pending(settings) == ({}, [Untold("X", "c", 1)] if exact else [])
    assert len(await platform.letters()) == 1


async def test_lowering_max_deliver_gives_up_what_is_past_it_and_2_15_says_so(
    platform: Platform,
) -> None:
    settings, stream, js = platform.settings, platform.settings.events_stream, platform.js
    await platform.publish({"n": 1})
    config = ConsumerConfig(max_deliver=-1, ack_wait=30)
    sub = await js.pull_subscribe("", "c", stream=stream, config=config)
    for _ in range(4):
        for msg in await sub.fetch(1, timeout=10):
            await refuse(platform.client, msg)
    edited = (await sub.consumer_info()).config
    edited.max_deliver = 2
    await js.add_consumer(stream, edited)
    await platform.publish({"n": 2})
    await platform.fail("c", {})
    version = platform.client.connected_server_version
    if (version.major, version.minor) >= (2, 15):
        told = {"bridged": 2}
    elif (version.major, version.minor) >= (2, 14):
        told = {"bridged": 1, "found": 1}
    else:
        told = {"bridged": 1}
    assert await bridge_pending(settings) == (told, [])


def _is_exact(platform: Platform) -> bool:
    """Whether this server's figures can be used, see `sample`."""
    version = platform.client.connected_server_version
    return (version.major, version.minor) >= _EXACT_SINCE
