"""The publisher on a real NATS: True once the server has the event, else False and a reason."""

import logging
from collections.abc import AsyncIterator, Callable

import nats
import pytest

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import NATSConfig, NATSPublisher
from sahool_dlq.jetstream.permissions import check_heard
from sahool_dlq.jetstream.streams import ensure_streams
from support.consumer_log import Log, new_prefix


@pytest.fixture
async def publisher(log: Log) -> AsyncIterator[NATSPublisher]:
    config = NATSConfig(
        servers=[log.url],
        stream_name=log.names.events,
        subject_prefix=log.prefix,
        connect_timeout_seconds=5,
    )
    publisher = NATSPublisher(config)
    assert await publisher.connect()
    yield publisher
    await publisher.close()


async def test_true_once_the_server_has_it(log: Log, publisher: NATSPublisher) -> None:
    subject = f"{log.prefix}.analysis.ndvi"
    subscription = await log.client.subscribe(subject)
    await check_heard(log.client, subject)
    assert await publisher.publish(subject, b"{}", {"name": "Gänse"})
    msg = await subscription.next_msg(timeout=30)
    assert (msg.data, msg.headers) == (b"{}", {"name": "Gänse"})
    assert (await log.js.get_msg(log.names.events, 1)).data == b"{}"


async def test_the_stream_is_made_where_none_captures_the_subject(
    log: Log, publisher: NATSPublisher
) -> None:
    for name in (log.names.events, log.names.dead_letters, log.names.totals):
        await log.js.delete_stream(name)
    assert await publisher.publish(f"{log.prefix}.actions.sown", b"1")
    assert (await log.js.stream_info(log.names.events)).state.messages == 1
    for subject in log.names.subjects.log:  # dead letters are the consumers' business
        with pytest.raises(nats.js.errors.NotFoundError):
            await log.js.find_stream_name_by_subject(subject)


async def test_the_stream_of_events_takes_in_what_no_other_captures(
    log: Log, publisher: NATSPublisher
) -> None:
    for subject in ("tasks.plan.made", "tasks.done", "hello"):
        assert await publisher.publish(f"{log.prefix}.{subject}", b"1")
    info = await log.js.stream_info(log.names.events)
    assert info.state.messages == 3
    like = [f"{log.prefix}.tasks.>", f"{log.prefix}.hello"]
    assert info.config.subjects == [*log.names.subjects.events, *like]
    await ensure_streams(log.js, log.names)  # as a consumer does: it takes nothing away
    assert (await log.js.stream_info(log.names.events)).config.subjects == info.config.subjects


async def test_false_where_no_stream_can_take_it(
    log: Log, publisher: NATSPublisher, caplog: pytest.LogCaptureFixture
) -> None:
    for subject in (f"elsewhere.{log.prefix}", f"{log.prefix}.totals"):
        assert not await publisher.publish(subject, b"1")
    assert "was not published" in caplog.text
    await log.js.delete_stream(log.names.dead_letters)
    assert not await publisher.publish(f"{log.prefix}.dlq.x", b"1")  # it is no event
    await log.js.delete_stream(log.names.events)
    await log.js.add_stream(name=f"HALF_{log.prefix}", subjects=[f"{log.prefix}.analysis.>"])
    assert not await publisher.publish(f"{log.prefix}.actions.sown", b"1")
    assert "captures some of" in caplog.text


async def test_what_is_too_large_is_refused_before_the_server_hangs_up(
    log: Log, publisher: NATSPublisher
) -> None:
    subject, limit = f"{log.prefix}.analysis.ndvi", log.client.max_payload
    assert not await publisher.publish(subject, b"x" * (limit - 10), {"a": "b"})
    assert not await publisher.publish(subject, b"x" * (limit + 1))
    assert not await publisher.publish(f"{log.prefix}.analysis.{'x' * 9_000}", b"1")
    assert not await publisher.publish(f"{log.prefix}.analysis. x", b"1")
    assert await publisher.publish(subject, b"x" * (limit - 18), {"a": "b"})
    assert await publisher.publish(subject, b"x" * limit)


async def test_false_without_a_server(
    nats_server_factory: Callable[..., NatsServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = nats_server_factory()
    config = NATSConfig(
        servers=[server.url],
        subject_prefix=new_prefix(),
        timeout_seconds=0.3,
        connect_timeout_seconds=0.5,
    )
    publisher = NATSPublisher(config)
    assert not await publisher.publish("a.b", b"1")
    assert await publisher.connect()
    server.kill()
    assert not await publisher.publish(f"{config.subject_prefix}.analysis.x", b"1")
    await publisher.close()
    assert not await publisher.publish("a.b", b"1")
    caplog.set_level(logging.ERROR)
    caplog.clear()
    assert not await publisher.connect()
    assert len(caplog.records) == 1
    assert f"No NATS server answers at {server.url}" in caplog.text
