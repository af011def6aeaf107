"""Consumers that answer late, twice or not at all, and events deleted meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime

import pytest
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from sahool_dlq.bridge.advisory import Advisory
from sahool_dlq.bridge.late import LateAcks
from sahool_dlq.bridge.run import bridge_pending, bridging
from sahool_dlq.jetstream.streams import TERMINATIONS
from sahool_dlq.jobs.case_history import case_history
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.redrive.publish.acks import following_acks
from sahool_dlq.redrive.publish.heard import Place
from sahool_dlq.redrive.publish.inferred import Advisories, end_of_foreign, why_silent
from sahool_dlq.redrive.publish.sent_acks import listening
from sahool_dlq.settings import Settings
from support import servers
from support.foreign_consumers import Platform, opened
from support.platform_log import failures

pytestmark = pytest.mark.xdist_group("answers")  # they share a NATS of their own

RETENTIONS = [RetentionPolicy.LIMITS, RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST]
TAKING = [RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST]  # an answer deletes the event


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server."""
    with servers.nats(tmp_path_factory.mktemp("answers")) as server:
        yield server.url


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with opened(settings) as platform:
        yield platform


async def hold(platform: Platform, config: dict[str, object], bodies: int = 1) -> list[Msg]:
    """Deliver events `x.a` of a stream X of this kind to its consumer c, without an answer."""
    js = platform.js
    headers = {"Nats-TTL": "1s"} if config.pop("allow_msg_ttl", False) else None
    wanted = {**StreamConfig(name="X", subjects=["x.>"], **config).as_dict()}
    if headers:
        wanted["allow_msg_ttl"] = True
    await _request(platform, "STREAM.CREATE.X", wanted)
    settings = ConsumerConfig(max_deliver=2, ack_wait=20)
    sub = await js.pull_subscribe("", "c", stream="X", config=settings)
    for number in range(bodies):
        await js.publish("x.a", b"%d" % number, headers=headers)
    return await sub.fetch(bodies, timeout=10)


async def _request(platform: Platform, what: str, body: dict[str, object]) -> None:
    answer = await platform.client.request(f"$JS.API.{what}", json.dumps(body).encode())
    assert "error" not in json.loads(answer.data), answer.data


async def has_left(platform: Platform, sequence: int = 1) -> None:
    """Wait until stream X no longer has an event, and the server has published an advisory."""
    async with asyncio.timeout(20):
        while True:
            info = await platform.js.consumer_info("X", "c")
            stream = await platform.js.stream_info("X", subjects_filter=">")
            if stream.state.first_seq > sequence and not info.num_ack_pending:
                return
            await asyncio.sleep(0.05)


async def newer(js: JetStreamContext) -> None:
    await js.publish("x.a", b"newer")


async def rolled_up(js: JetStreamContext) -> None:
    await js.publish("x.a", b"newer", headers={"Nats-Rollup": "sub"})


async def deleted(js: JetStreamContext) -> None:
    await js.delete_msg("X", 1)


async def purged(js: JetStreamContext) -> None:
    await js.publish("x.b", b"another")
    await js.purge_stream("X", subject="x.a")


async def nothing(js: JetStreamContext) -> None:
    """Let the event expire."""


REMOVALS: dict[str, tuple[dict[str, object], Callable[[JetStreamContext], Awaitable[None]]]] = {
    "newer value": ({"max_msgs_per_subject": 1}, newer),
    "max_msgs": ({"max_msgs": 1}, newer),
    "max_age": ({"max_age": 1}, nothing),
    "Nats-TTL": ({"allow_msg_ttl": True}, nothing),
    "rollup": ({"allow_rollup_hdrs": True}, rolled_up),
    "deletion": ({}, deleted),
    "purge by subject": ({}, purged),
    "deletion from a work queue": ({"retention": RetentionPolicy.WORK_QUEUE}, deleted),
    "age in a work queue": ({"retention": RetentionPolicy.WORK_QUEUE, "max_age": 1}, nothing),
    "deletion from an interest stream": ({"retention": RetentionPolicy.INTEREST}, deleted),
}


@pytest.mark.parametrize("how", REMOVALS)
async def test_an_event_that_leaves_its_stream_in_a_consumers_hands_is_no_failure(
    platform: Platform, how: str
) -> None:
    version = platform.client.connected_server_version
    is_old = (version.major, version.minor) < (2, 11)
    if is_old and how == "Nats-TTL":
        pytest.skip("it came with 2.11")
    config, remove = REMOVALS[how]
    [msg] = await hold(platform, dict(config))
    await remove(platform.js)
    await has_left(platform)
    await msg.ack_sync()
    # NATS 2.10 reports neither of these two.
    told = {} if is_old and how in ("rollup", "purge by subject") else {"removed": 1}
    assert await bridge_pending(platform.settings) == (told, [])
    assert await platform.letters() == []


async def test_forty_values_each_handled_while_the_next_comes_are_no_failure(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    sub = None
    for number in range(40):
        if sub is None:
            [msg] = await hold(platform, {"max_msgs_per_subject": 1})
            sub = await platform.js.pull_subscribe("", "c", stream="X")
        else:
            [msg] = await sub.fetch(1, timeout=10)
        await platform.js.publish("x.a", b"%d" % number)  # while the event before is handled
        await msg.ack_sync()
    counts, untold = await bridge_pending(platform.settings)
    assert (counts, untold) == ({"removed": 40}, [])
    assert await platform.letters() == []
    assert caplog.text.count("c on X was handling event") == 1


async def test_a_term_stays_a_failure_whatever_words_it_has_and_what_left_before(
    platform: Platform,
) -> None:
    one, two = await hold(platform, {}, 2)
    await platform.client.publish(one.reply, b"+TERM Unacknowledged message was deleted")
    await platform.js.delete_msg("X", 2)
    await has_advisories(platform, "c", 2)
    await platform.client.publish(two.reply, b"+TERM no price")
    await platform.client.flush()
    assert await bridge_pending(platform.settings) == ({"bridged": 1, "gone": 1, "removed": 1}, [])
    letters = await platform.letters()
    assert [letter["error_message"] for letter in letters] == [
        "Unacknowledged message was deleted",
        "no price The event itself is lost: X no longer has it.",
    ]


async def has_advisories(platform: Platform, consumer: str, count: int) -> None:
    """Wait until so many terminations of a consumer of X are stored."""
    subject = f"{TERMINATIONS}.X.{consumer}"
    async with asyncio.timeout(10):
        while True:
            name = platform.settings.advisory_stream
            state = (await platform.js.stream_info(name, subjects_filter=subject)).state
            if (state.subjects or {}).get(subject, 0) >= count:
                return
            await asyncio.sleep(0.05)


async def give_up(platform: Platform, retention: RetentionPolicy, max_deliver: int = 2) -> Msg:
    """The last delivery of an event of stream X that its consumer c has given up since."""
    js = platform.js
    await js.add_stream(StreamConfig(name="X", subjects=["x.>"], retention=retention))
    config = ConsumerConfig(max_deliver=max_deliver, ack_wait=0.3)
    sub = await js.pull_subscribe("", "c", stream="X", config=config)
    await js.publish("x.a", b'{"n": 1}')
    async with asyncio.timeout(20):
        for _ in range(max_deliver):
            [msg] = await sub.fetch(1, timeout=10)
        while (await sub.consumer_info()).num_ack_pending:
            with pytest.raises(TimeoutError):  # the server notices when somebody pulls
                await sub.fetch(1, timeout=0.3)
    return msg


@pytest.mark.parametrize("retention", TAKING)
@pytest.mark.parametrize("is_brought_in_before", [True, False])
async def test_terminations_after_an_event_was_given_up_add_no_failure(
    platform: Platform, retention: RetentionPolicy, is_brought_in_before: bool
) -> None:
    settings = platform.settings
    msg = await give_up(platform, retention)
    if is_brought_in_before:
        assert await bridge_pending(settings) == ({"bridged": 1}, [])
    for reason in (b"+TERM late", b"+TERM late again"):
        await platform.client.publish(msg.reply, reason)
    await has_advisories(platform, "c", 2)
    counts, _ = await bridge_pending(settings)
    assert counts == ({"repeated": 2} if is_brought_in_before else {"gone": 1, "repeated": 2})
    [letter] = await platform.letters()
    assert letter["original_data"] == ({"n": 1} if is_brought_in_before else None)
    await drain_log(settings)
    [row] = failures(settings)
    assert (str(row["id"]), row["seen_count"]) == (letter["failure_id"], 1)


async def test_a_repeated_termination_on_a_work_queue_is_one_failure(platform: Platform) -> None:
    settings = platform.settings
    log = await platform.js.stream_info(settings.dlq_stream)
    log.config.duplicate_window = (
        0.1  # the server forgets it: only the failure's id prevents a duplicate
    )
    await platform.js.update_stream(log.config)
    one, two = await hold(platform, {"retention": RetentionPolicy.WORK_QUEUE}, 2)
    for answered in (one, two):
        for reason in (b"+TERM no price", b"+TERM no price, really"):
            await platform.client.publish(answered.reply, reason)
            await platform.client.flush()
            await bridge_pending(settings)
    await has_advisories(platform, "c", 4)
    await bridge_pending(settings)
    assert len(await platform.letters()) == 4
    await drain_log(settings)
    rows = failures(settings)
    assert {row["original_sequence"]: row["seen_count"] for row in rows} == {1: 2, 2: 2}


async def test_the_same_place_of_a_stream_created_again_is_another_failure(
    platform: Platform,
) -> None:
    for _ in range(2):
        [msg] = await hold(platform, {"retention": RetentionPolicy.WORK_QUEUE})
        await platform.client.publish(msg.reply, b"+TERM no price")
        await platform.client.flush()
        assert await bridge_pending(platform.settings) == ({"gone": 1}, [])
        await platform.js.delete_stream("X")
    assert len({letter["failure_id"] for letter in await platform.letters()}) == 2


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("max_deliver", [1, 2])
async def test_an_acknowledgement_after_an_event_was_given_up_discards_its_failure(
    platform: Platform, retention: RetentionPolicy, max_deliver: int
) -> None:
    settings = platform.settings
    async with bridging(settings) as bridge:
        msg = await give_up(platform, retention, max_deliver)
        async with asyncio.timeout(20):
            while not bridge.counts["bridged"]:
                await asyncio.sleep(0.05)
            for no_answer in (b"-NAK", b"+WPI", b"+ACK"):
                await platform.client.publish(msg.reply, no_answer)
            while not bridge.counts["acknowledged"]:
                await asyncio.sleep(0.05)
    assert bridge.counts == {"bridged": 1, "acknowledged": 1}
    await drain_log(settings)
    [row] = failures(settings)
    assert row["status"] == "discarded"
    [(_, failed, _, _), (_, kind, who, why)] = case_history(settings, str(row["id"]))
    assert (failed, kind, who) == ("failed", "triage.discarded", "dlq-bridge")
    assert why == "c acknowledged it after giving it up: it was handled."


@pytest.mark.parametrize("retention", RETENTIONS)
async def test_if_a_late_acknowledgement_is_missed_the_failure_stays_open(
    platform: Platform, retention: RetentionPolicy
) -> None:
    settings = platform.settings
    msg = await give_up(platform, retention)
    await msg.ack_sync()
    is_gone = retention in TAKING
    assert await bridge_pending(settings) == ({"gone" if is_gone else "bridged": 1}, [])
    await drain_log(settings)
    [row] = failures(settings)
    assert row["status"] == "pending"
    assert ("acknowledged too late, or removed" in row["error_message"]) is is_gone


async def test_other_answers_and_other_events_leave_the_failure_open(platform: Platform) -> None:
    settings = platform.settings
    async with bridging(settings) as bridge:
        msg = await give_up(platform, RetentionPolicy.LIMITS)
        await platform.js.publish("x.a", b'{"n": 2}')
        sub = await platform.js.pull_subscribe("", "c", stream="X")
        async with asyncio.timeout(20):
            while not bridge.counts["bridged"]:
                await asyncio.sleep(0.05)
            for answer in (b"-NAK", b"+WPI"):
                await platform.client.publish(msg.reply, answer)
            [other] = await sub.fetch(1, timeout=10)
            await other.ack_sync()
            await platform.client.publish(msg.reply, b"+TERM no price")
            while bridge.counts["bridged"] != 2:
                await asyncio.sleep(0.05)
    assert bridge.counts == {"bridged": 2}
    await drain_log(settings)
    [row] = failures(settings)
    assert row["status"] == "pending"


@pytest.mark.parametrize("retention", RETENTIONS)
@pytest.mark.parametrize("is_acknowledged", [True, False])
async def test_success_is_not_inferred_from_an_event_that_left_unanswered(
    platform: Platform, retention: RetentionPolicy, is_acknowledged: bool
) -> None:
    settings = platform.settings
    [msg] = await hold(platform, {"retention": retention})
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    advisories, place = (
        Advisories(settings.advisory_stream, settings.bridge_durable),
        Place("X", 1, "c"),
    )
    async with (
        following_acks(platform.client, settings.ack_stream, ["X/c"]) as told,
        listening(platform.client, told.untold) as sent,
    ):
        mark = await told.mark("X/c")
        if is_acknowledged:
            await msg.ack_sync()
        else:
            await platform.js.delete_msg("X", 1)
            await has_advisories(platform, "c", 1)
        await bridge_pending(settings)  # so that its durable consumer exists, without work
        end = end_of_foreign(platform.js, told, sent, place, mark, advisories, outcome)
        if is_acknowledged:
            assert await asyncio.wait_for(end, 20) == "inferred"
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(end, 5)
            assert (
                await why_silent(platform.js, place, mark)
                == "the event left X without an acknowledgement"
            )


async def test_only_the_latest_of_many_events_that_were_given_up_are_listened_for(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sahool_dlq.bridge.late._MOST_EVENTS", 2)
    late = LateAcks(platform.settings.subjects, asyncio.Event())
    heard = [await late.listen(platform.client, _given_up(number)) for number in (1, 2, 3)]
    for number in (1, 2, 3):
        await platform.client.publish(f"$JS.ACK.X.c.2.{number}.1.1.0", b"+ACK")
    await asyncio.wait_for(asyncio.gather(*heard[1:]), 10)
    assert not heard[0].done()


def _given_up(sequence: int) -> Advisory:
    return Advisory(
        type="io.nats.jetstream.advisory.v1.max_deliver",
        stream="X",
        consumer="c",
        stream_seq=sequence,
        deliveries=2,
        timestamp=datetime.now(UTC),
    )
