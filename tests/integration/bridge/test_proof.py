"""Successes proved by the server's metrics of acknowledgements, instead of being inferred."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig, StreamSource
from pydantic import SecretStr

from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.embedded import NatsServer
from sahool_dlq.jobs.adoption import adopt
from sahool_dlq.jobs.case_history import case_history
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import redrive
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.publish import inferred
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.settings import Settings
from support.foreign_consumers import Platform, opened
from support.platform_log import query

pytestmark = pytest.mark.xdist_group("proof")  # they share a NATS of their own

ALL_OF_THEM = Selection(error_types=("MessageTerminated",))


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server."""
    with NatsServer(tmp_path_factory.mktemp("proof"), has_login=False) as server:
        yield server.url


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with opened(settings) as platform:
        yield platform


async def failed(platform: Platform, *, is_adopted: bool = True, stream: str | None = None) -> None:
    """One event that the consumer `c` has terminated, as a pending failure."""
    where = stream or platform.settings.events_stream
    await platform.fail("c", {1: b"+TERM no"}, stream=where)
    if is_adopted:
        await adopt(platform.settings, f"{where}/c", actor="me", reason="test")
    await bridge_pending(platform.settings)
    await drain_log(platform.settings)


async def redriven(
    platform: Platform, meanwhile: Callable[[int], Awaitable[object]], **changes: Any
) -> RedriveReport:
    """Redrive what failed; `meanwhile` gets the sequence of the redriven event."""
    settings = platform.settings.model_copy(update={"redrive_timeout_seconds": 6, **changes})

    async def wait_and_act() -> None:
        stream = settings.events_stream
        before = (await platform.js.stream_info(stream)).state.last_seq
        async with asyncio.timeout(30):
            while (last := (await platform.js.stream_info(stream)).state.last_seq) == before:
                await asyncio.sleep(0.02)
        await meanwhile(last)

    acting = asyncio.create_task(wait_and_act())
    report = await redrive(
        settings, ALL_OF_THEM, trigger="manual", requested_by="me", reason="cured"
    )
    await acting
    assert report is not None
    return report


async def answer(platform: Platform, answers: bytes, *, stream: str | None = None) -> None:
    """Answer the next event of the consumer `c`."""
    where = stream or platform.settings.events_stream
    sub = await platform.js.pull_subscribe("", "c", stream=where)
    [msg] = await sub.fetch(1, timeout=20)
    await platform.client.publish(msg.reply, answers)
    await platform.client.flush()
    await sub.unsubscribe()


def states(platform: Platform) -> list[tuple[str, str]]:
    rows = query(
        platform.settings,
        "SELECT f.status, r.state_reason FROM redrives r JOIN failed_events f"
        " ON f.id = r.failure_id",
    )
    return [(row["status"], row["state_reason"]) for row in rows]


async def test_an_acknowledged_redrive_has_succeeded_and_the_news_says_that_it_is_proved(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inferred, "_SETTLE_SECONDS", 3_600)  # nothing has to settle here
    await platform.publish({"n": 1})
    await failed(platform)
    report = await redriven(platform, lambda _: answer(platform, b"+ACK"))
    assert report.outcomes == {"succeeded": 1}
    reason = f"proved: the server reports that {platform.settings.events_stream}/c acknowledged 2"
    assert states(platform) == [("resolved", reason)]
    [failure] = query(platform.settings, "SELECT id::text FROM failed_events")
    told = {kind: why for _, kind, _, why in case_history(platform.settings, failure["id"])}
    assert told["redrive.succeeded"] == reason


async def test_one_that_fails_again_has_failed_again(platform: Platform) -> None:
    await platform.publish({"n": 1})
    await failed(platform)
    report = await redriven(platform, lambda _: answer(platform, b"+TERM still no"))
    assert report.outcomes == {"failed_again": 1}


async def reset_past(platform: Platform, sequence: int) -> None:
    """Set the consumer's position after the event."""
    where = f"$JS.API.CONSUMER.RESET.{platform.settings.events_stream}.c"
    request = json.dumps({"seq": sequence + 1}).encode()
    done = json.loads((await platform.client.request(where, request)).data)
    assert "error" not in done


async def made_anew(platform: Platform, _: int) -> None:
    """The consumer is deleted and created again for new events, which it handles."""
    stream = platform.settings.events_stream
    await platform.js.delete_consumer(stream, "c")
    config = ConsumerConfig(
        durable_name="c", ack_policy=AckPolicy.EXPLICIT, deliver_policy="new", max_deliver=2
    )
    await platform.js.add_consumer(stream, config)
    await platform.publish({"n": 2})
    await answer(platform, b"+ACK")


async def displaced(platform: Platform, _: int) -> None:
    """A newer value replaces the event in the stream while the consumer handles it."""
    stream = platform.settings.events_stream
    sub = await platform.js.pull_subscribe("", "c", stream=stream)
    await sub.fetch(1, timeout=20)
    await platform.publish({"n": 2})  # one value for each subject
    await answer(platform, b"+ACK")  # of the newer one
    await sub.unsubscribe()


PASSED_BY = [reset_past, made_anew, displaced]


async def prepare_for(passed_by: object, platform: Platform) -> None:
    """Publish an event, to a stream that keeps only the last value if that matters."""
    if passed_by is reset_past and platform.client.connected_server_version.minor < 14:
        pytest.skip("nats-server resets consumers from 2.14 on")
    if passed_by is displaced:
        info = await platform.js.stream_info(platform.settings.events_stream)
        info.config.max_msgs_per_subject = 1
        await platform.js.update_stream(info.config)
    await platform.publish({"n": 1})


@pytest.mark.parametrize("passed_by", PASSED_BY, ids=lambda each: each.__name__)
async def test_what_the_figures_passed_by_without_an_acknowledgement_is_not_called_a_success(
    platform: Platform, passed_by: Callable[[Platform, int], Awaitable[None]]
) -> None:
    await prepare_for(passed_by, platform)
    await failed(platform)
    report = await redriven(platform, lambda sequence: passed_by(platform, sequence))
    assert report.outcomes == {"outcome_unknown": 1}
    [(status, reason)] = states(platform)
    assert status == "pending"
    assert reason.startswith("no answer for 6 s, and the server reported no acknowledgement")


@pytest.mark.parametrize("passed_by", PASSED_BY, ids=lambda each: each.__name__)
async def test_where_nothing_is_told_figures_alone_infer_nothing(
    platform: Platform, passed_by: Callable[[Platform, int], Awaitable[None]]
) -> None:
    await prepare_for(passed_by, platform)
    await failed(platform, is_adopted=False)
    report = await redriven(platform, lambda sequence: passed_by(platform, sequence))
    assert report.outcomes == {"outcome_unknown": 1}
    stream = platform.settings.events_stream
    why = {
        reset_past: "",
        made_anew: f", {stream}/c was created again meanwhile",
        displaced: f", the event left {stream} without an acknowledgement",
    }
    assert states(platform) == [("pending", f"no answer for 6 s{why[passed_by]}")]


async def test_a_consumer_of_a_stream_that_sources_another_is_not_judged_by_its_namesake_there(
    platform: Platform,
) -> None:
    stream = platform.settings.events_stream
    await platform.js.add_stream(StreamConfig(name="ALL", sources=[StreamSource(name=stream)]))
    config = ConsumerConfig(durable_name="c", ack_policy=AckPolicy.EXPLICIT)
    await platform.js.add_consumer(stream, config)
    await platform.publish({"n": 1})
    await answer(platform, b"+ACK")
    await failed(platform, is_adopted=False, stream="ALL")
    report = await redriven(platform, lambda _: answer(platform, b"+ACK"))
    assert report.outcomes == {"outcome_unknown": 1}
    elsewhere = "its consumer takes it from another stream than the one that stored it"
    assert states(platform) == [("pending", f"no answer for 6 s, {elsewhere}")]


async def test_where_a_part_is_told_it_proves_what_it_tells_of(platform: Platform) -> None:
    """The server samples at random: 99 of 100 is nearly all."""
    stream = platform.settings.events_stream
    await platform.publish({"n": 1})
    await failed(platform)
    info = await platform.js.consumer_info(stream, "c")
    info.config.sample_freq = "99%"
    await platform.js.add_consumer(stream, info.config)
    # It has the event, and an earlier one keeps its floor where it is: nothing can be inferred.
    held = await platform.js.pull_subscribe("", "c", stream=stream)
    await platform.publish({"n": 2})
    await held.fetch(1, timeout=5)
    report = await redriven(platform, lambda _: answer(platform, b"+ACK"))
    assert report.outcomes == {"succeeded": 1}
    assert states(platform)[0][1].startswith("proved: ")


async def test_an_acknowledgement_in_a_stream_that_was_created_again_is_none_of_this_event(
    platform: Platform,
) -> None:
    settings, stream = platform.settings, platform.settings.events_stream
    await platform.publish({"n": 1})
    await failed(platform)

    async def replace(sequence: int) -> None:
        config = (await platform.js.stream_info(stream)).config
        await platform.js.delete_stream(stream)
        await platform.js.add_stream(StreamConfig(name=stream, subjects=config.subjects))
        consumer = ConsumerConfig(
            durable_name="c", ack_policy=AckPolicy.EXPLICIT, sample_freq="100%"
        )
        await platform.js.add_consumer(stream, consumer)
        for number in range(sequence):
            await platform.publish({"other": number})
        for _ in range(sequence):
            await answer(platform, b"+ACK")  # the last has the sequence of the redriven event

    report = await redriven(platform, replace)
    assert (await platform.js.stream_info(settings.ack_stream)).state.messages == 2
    assert report.outcomes == {"outcome_unknown": 1}


async def test_acknowledgements_of_an_outage_are_heard_after_it(
    settings: Settings, nats_server_factory: Callable[..., NatsServer], tmp_path: Any
) -> None:
    server = nats_server_factory(tmp_path / "outage")
    async with opened(settings.model_copy(update={"nats_url": SecretStr(server.url)})) as platform:
        await platform.publish({"n": 1})
        await failed(platform)

        async def restart_and_answer(_: int) -> None:
            sub = await platform.js.pull_subscribe("", "c", stream=settings.events_stream)
            [msg] = await sub.fetch(1, timeout=20)
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            other = await nats.connect(server.url)  # the redriver's message arrives later
            await other.publish(msg.reply, b"+ACK")
            await other.flush()
            await other.close()

        report = await redriven(platform, restart_and_answer, redrive_timeout_seconds=30)
        assert report.outcomes == {"succeeded": 1}
        assert states(platform)[0][1].startswith("proved: ")
