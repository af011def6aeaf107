"""An event is stored once, even if the acknowledgement of its publish is lost."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from os import kill
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig, StreamSource
from pydantic import SecretStr

from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import FencedError, ServerUnavailableError
from sahool_dlq.events import NATSConfig, NATSPublisher
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.redrive.origin import RefusedError
from sahool_dlq.redrive.publish.once import DoubtError, OncePublisher
from sahool_dlq.settings import Settings
from support.consumer_log import until
from support.lasting import lasting_client
from support.redriving import Service, dead_letters, fail, quick, redrive_timeouts, rows
from support.servers import pause

Then = Callable[[], Awaitable[object]]
HEADERS: dict[str, Any] = {"Nats-Msg-Id": "r1"}


def losing(monkeypatch: pytest.MonkeyPatch, mark: str, then: Then | None = None) -> list[str]:
    """Lose the server's answer to the first publish with this header, and do `then`."""
    publish_really, lost = JetStreamContext.publish, list[str]()

    async def publish(js: JetStreamContext, subject: str, *more: Any, **named: Any) -> Any:
        ack = await publish_really(js, subject, *more, **named)
        if mark in (named.get("headers") or {}) and not lost:
            lost.append(subject)
            if then is not None:
                await then()
            raise nats.errors.TimeoutError
        return ack

    monkeypatch.setattr(JetStreamContext, "publish", publish)
    return lost


@contextlib.asynccontextmanager
async def stream(client: Client, settings: Settings, **config: Any) -> Any:
    """A stream of a test; its name, and a subject that it captures."""
    prefix = f"{settings.subject_prefix}x"
    named = StreamConfig(name=f"X_{prefix}", subjects=[f"{prefix}.>"], **config)
    await client.jetstream().add_stream(named)
    yield named.name, f"{prefix}.a"
    await client.jetstream().delete_stream(str(named.name))


async def stored(client: Client, name: str) -> int:
    return (await client.jetstream().stream_info(name)).state.last_seq


def sourcing(settings: Settings) -> dict[str, Any]:
    """A stream with `sources`, which keeps no ids."""
    return {"sources": [StreamSource(name=settings.totals_stream)]}


async def test_a_stream_with_sources_gets_an_event_once_though_its_answer_is_lost(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    js = client.jetstream()
    async with stream(client, settings, **sourcing(settings)) as (name, subject):
        for other in range(3):
            await js.publish(f"{subject}.{other}", b"")

        async def others() -> None:
            for other in range(3):
                await js.publish(f"{subject}.{other}", b"")

        losing(monkeypatch, "Nats-Msg-Id", others)
        async with connected(settings.nats_url) as own:
            ack = await OncePublisher(own).publish(subject, b"event", HEADERS)
        assert (ack.stream, ack.seq) == (name, 4)
        assert await stored(client, name) == 7


async def test_a_redriver_that_lost_the_lock_repeats_nothing(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        raise FencedError("it is another's now")

    async with stream(client, settings) as (name, subject):
        losing(monkeypatch, "Nats-Msg-Id", lambda: client.jetstream().purge_stream(name))
        async with connected(settings.nats_url) as own:
            with pytest.raises(FencedError):
                await OncePublisher(own, lost).publish(subject, b"event", HEADERS)
        assert (await client.jetstream().stream_info(name)).state.messages == 0


async def test_what_was_not_stored_is_published_again_also_beside_others(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    js, publish_really, calls = client.jetstream(), JetStreamContext.publish, list[str]()

    async def publish(each: JetStreamContext, where: str, *more: Any, **named: Any) -> Any:
        if "Nats-Msg-Id" in (named.get("headers") or {}):
            calls.append(named["headers"].get("Nats-Expected-Last-Sequence", ""))
            if len(calls) == 1:
                raise nats.errors.TimeoutError  # it was lost on its way there
            if len(calls) <= 4:
                await publish_really(js, f"{where}.other", b"")
        return await publish_really(each, where, *more, **named)

    async with stream(client, settings, **sourcing(settings)) as (name, subject):
        monkeypatch.setattr(JetStreamContext, "publish", publish)
        async with connected(settings.nats_url) as own:
            ack = await OncePublisher(own).publish(subject, b"event", HEADERS)
        assert calls == ["", "0", "1", "2", "3"]
        assert ack.seq == await stored(client, name) == 4
        found = await stored_message(client, name, 4)
        assert found is not None
        assert found.data == b"event"


async def test_what_is_still_on_its_way_makes_the_server_refuse_the_repeat(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_really, late = JetStreamContext.publish, list[Any]()

    async def publish(js: JetStreamContext, *what: Any, **named: Any) -> Any:
        if not late:
            late.append((what, {**named, "headers": dict(named["headers"])}))
            raise nats.errors.TimeoutError
        if len(late) == 1:  # the stream was looked at: now the first comes, then its repeat
            late.append(await publish_really(js, *late[0][0], **late[0][1]))
        return await publish_really(js, *what, **named)

    async with stream(client, settings, **sourcing(settings)) as (name, subject):
        monkeypatch.setattr(JetStreamContext, "publish", publish)
        async with connected(settings.nats_url) as own:
            ack = await OncePublisher(own).publish(subject, b"event", HEADERS)
        assert ack.seq == late[1].seq == await stored(client, name) == 1


async def test_a_worked_off_event_is_not_published_again(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream of a handled event forgets its id after a restart."""
    js = client.jetstream()
    async with stream(client, settings, retention=RetentionPolicy.WORK_QUEUE) as (name, subject):
        await js.publish(subject, b"another that waits")

        async def work_off() -> None:
            sub = await js.pull_subscribe(subject, "worker", stream=name, config=ConsumerConfig())
            for msg in await sub.fetch(2):
                if msg.data == b"event":
                    await msg.ack_sync()

        losing(monkeypatch, "Nats-Msg-Id", work_off)
        async with connected(settings.nats_url) as own:
            with pytest.raises(DoubtError, match="no longer has all messages since then"):
                await OncePublisher(own).publish(subject, b"event", HEADERS)
        assert await stored(client, name) == 2


async def test_a_stream_that_was_created_again_can_not_tell(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    js = client.jetstream()
    async with stream(client, settings, **sourcing(settings)) as (name, subject):
        config = (await js.stream_info(name)).config

        async def make_anew() -> None:
            await js.delete_stream(name)
            await js.add_stream(config)

        losing(monkeypatch, "Nats-Msg-Id", make_anew)
        async with connected(settings.nats_url) as own:
            with pytest.raises(DoubtError, match="was created again"):
                await OncePublisher(own).publish(subject, b"event", HEADERS)
        assert await stored(client, name) == 0


async def test_a_refusal_after_a_lost_answer_is_a_doubt_and_before_it_a_refusal(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stream(client, settings, max_msg_size=100) as (name, subject):
        config = (await client.jetstream().stream_info(name)).config

        async def lower() -> None:
            config.max_msg_size = 10
            await client.jetstream().update_stream(config)

        async with connected(settings.nats_url) as own:
            with pytest.raises(RefusedError, match="maximum"):
                await OncePublisher(own).publish(subject, b"e" * 200, HEADERS)
            losing(monkeypatch, "Nats-Msg-Id", lower)
            with pytest.raises(DoubtError, match="then the server refused it"):
                await OncePublisher(own).publish(subject, b"event", HEADERS)


@pytest.mark.parametrize("window", [0.5, 120])
async def test_a_nats_that_dies_while_a_redrive_publishes_gets_it_once(
    settings: Settings,
    nats_server_factory: Callable[..., NatsServer],
    monkeypatch: pytest.MonkeyPatch,
    window: float,
) -> None:
    """It stored the event, sent no answer, and restarts after its duplicate window."""
    server = nats_server_factory()
    settings = quick(settings, nats_url=SecretStr(server.url), redrive_timeout_seconds=15)
    tasks: list[asyncio.Task[None]] = []

    async def come_back() -> None:
        await asyncio.sleep(2.5)  # longer than the window: the case itself
        await asyncio.to_thread(server.start)

    async def die() -> None:
        await asyncio.to_thread(server.kill)
        tasks.append(asyncio.create_task(come_back()))

    client = await lasting_client(server.url)
    js = client.jetstream()
    await ensure_streams(js, settings.stream_names)
    config = (await js.stream_info(settings.events_stream)).config
    config.duplicate_window = window
    await js.update_stream(config)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 1)
        service.error = None
        lost = losing(monkeypatch, "Dlq-Redrive-Id", die)
        report = await redrive_timeouts(settings)
    await asyncio.gather(*tasks)
    assert report is not None
    assert report.outcomes == {"succeeded": 1}
    assert len(lost) == 1
    assert {each.headers["Dlq-Redrive-Token"] for each in service.seen} == {
        row[0] for row in rows(settings, "SELECT id::text FROM redrives")
    }
    assert await stored(client, settings.events_stream) == 2
    await client.close()


async def test_a_redrive_in_doubt_is_followed_and_its_silence_says_so(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(settings, redrive_timeout_seconds=2)
    js = client.jetstream()
    config = (await js.stream_info(settings.events_stream)).config
    config.duplicate_window = 0.5
    await js.update_stream(config)

    async def purge() -> None:
        await js.purge_stream(settings.events_stream)

    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 1)
    losing(monkeypatch, "Dlq-Redrive-Id", purge)
    silent = await js.pull_subscribe_bind("ndvi", settings.events_stream)
    pulling = asyncio.create_task(silent.fetch(1, timeout=60))
    try:
        report = await redrive_timeouts(settings)
    finally:
        pulling.cancel()
    assert report is not None
    assert report.outcomes == {"outcome_unknown": 1}
    [reason] = report.reasons["outcome_unknown"]
    assert "it is not known whether it was stored" in reason


async def test_a_nats_that_stays_away_parks_nothing(
    settings: Settings,
    nats_server_factory: Callable[..., NatsServer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the connection was given up says nothing about the event."""
    server = nats_server_factory()
    settings = quick(settings, nats_url=SecretStr(server.url), redrive_timeout_seconds=5)

    client = await lasting_client(server.url)
    await ensure_streams(client.jetstream(), settings.stream_names)

    async def die() -> None:
        await asyncio.to_thread(server.kill)

    service = Service(settings, TimeoutError("slow"))
    async with service.running():
        await fail(settings, client, service, 1)
        service.error = None
        with monkeypatch.context() as patched:
            losing(patched, "Dlq-Redrive-Id", die)
            with pytest.raises(ServerUnavailableError):
                await redrive_timeouts(settings)
        assert rows(settings, "SELECT state FROM redrives") == [("published",)]
        await asyncio.to_thread(server.start)
        await dead_letters(client, settings, 3)  # the failure, the news, and the success
        await redrive_timeouts(settings)
    assert await stored(client, settings.events_stream) == 2
    assert rows(settings, "SELECT status FROM failed_events") == [("resolved",)]
    assert len(service.seen) >= 1
    await client.close()


async def replicated(client: Client, settings: Settings) -> tuple[str, str]:
    """A stream with three replicas on a cluster, all of them current."""
    prefix = settings.subject_prefix
    js = client.jetstream(timeout=2)

    async def is_made() -> bool:
        with contextlib.suppress(nats.errors.Error):
            await js.add_stream(name="X", subjects=[f"{prefix}.>"], num_replicas=3)
            return True
        return False

    async def is_current() -> bool:
        with contextlib.suppress(nats.errors.Error):
            cluster = (await js.stream_info("X")).cluster
            replicas = cluster.replicas or [] if cluster else []
            return sum(bool(replica.current) for replica in replicas) == 2
        return False

    await until(is_made)
    await until(is_current)
    return "X", f"{prefix}.a"


async def test_an_id_that_a_cluster_is_storing_just_now_is_no_refusal(
    settings: Settings, cluster: list[NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    urls = ",".join(server.url for server in cluster)
    async with connected(urls) as client:
        name, subject = await replicated(client, settings)
        once = OncePublisher(client)
        await once.publish(subject, b"first", {"Nats-Msg-Id": "first"})
        for number in range(20):
            headers: dict[str, Any] = {"Nats-Msg-Id": f"r{number}"}
            acks = await asyncio.gather(
                *(once.publish(subject, b"event", headers) for _ in range(4))
            )
            assert len({ack.seq for ack in acks}) == 1
        assert await stored(client, name) == 21
    assert "err_code=10158" in caplog.text


async def test_a_publisher_that_repeats_itself_on_a_cluster_says_that_it_was_taken(
    settings: Settings, cluster: list[NatsServer]
) -> None:
    config = NATSConfig(servers=[server.url for server in cluster])
    async with connected(cluster[0].url) as client:
        name, subject = await replicated(client, settings)
        publisher = NATSPublisher(config)
        assert await publisher.connect()
        for number in range(20):
            headers = {"Nats-Msg-Id": f"r{number}"}
            taken = [publisher.publish(subject, b"event", headers) for _ in range(4)]
            assert set(await asyncio.gather(*taken)) == {True}
        await publisher.close()
        assert await stored(client, name) == 20


async def test_a_cluster_that_lost_its_quorum_for_a_while_has_the_event_once(
    settings: Settings, cluster: list[NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    servers = {server._name: server for server in cluster}
    async with connected(cluster[0].url) as client:
        name, subject = await replicated(client, settings)
        once = OncePublisher(client)
        await once.publish(subject, b"first", {"Nats-Msg-Id": "first"})
        info = await client.jetstream().stream_info(name)
        assert info.cluster is not None
        stopped = [servers[each.name].pid for each in info.cluster.replicas or []]
    leader = servers[str(info.cluster.leader)]
    async with connected(leader.url) as client:
        once = OncePublisher(client)
        await once.publish(subject, b"second", {"Nats-Msg-Id": "second"})
        for pid in stopped:
            pause(pid)
        try:
            publishing = asyncio.create_task(once.publish(subject, b"event", HEADERS))

            async def is_in_process() -> bool:
                return "err_code=10158" in caplog.text

            await until(is_in_process)
        finally:
            for pid in stopped:
                kill(pid, signal.SIGCONT)
        ack = await publishing
        assert ack.seq == await stored(client, name) == 3
