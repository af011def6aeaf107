"""The consumer while servers, connections and its own process die: no event is lost."""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from nats.js.api import DiscardPolicy

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import (
    ConsumerContext,
    NATSConfig,
    NATSConsumer,
    NATSConsumerConfig,
    NATSPublisher,
    ProcessingResult,
)
from sahool_dlq.events import intake as intake_module
from sahool_dlq.jetstream import pull as pull_module
from sahool_dlq.jetstream.streams import ensure_streams
from support import ROOT
from support.consumer_log import RETRY, SUCCESS, Log, in_full, opened, running, seen, until
from support.seed import SEED
from support.servers import pause

Factory = Callable[..., NatsServer]

SERVICE = """
import asyncio, os, signal, sys
from sahool_dlq.events import NATSConsumerConfig, ProcessingResult, start_consumer

async def handler(context):
    print(context.attempt, flush=True)
    if context.data == b'{"kill": true}':
        os.kill(os.getpid(), signal.SIGKILL)
    return ProcessingResult.SUCCESS

async def main():
    await start_consumer(handler, NATSConsumerConfig.model_validate_json(sys.argv[1]))
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def _short_pulls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is detected within half a second."""
    monkeypatch.setattr(intake_module, "_PULL_SECONDS", 0.3)
    monkeypatch.setattr(pull_module, "_GRACE_SECONDS", 0.2)


class Slow:
    """A slow handler that counts its calls by event."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.started: list[bytes] = []
        self.finished: list[bytes] = []

    async def __call__(self, context: ConsumerContext) -> ProcessingResult:
        self.started.append(context.data)
        await asyncio.sleep(self.seconds)
        self.finished.append(context.data)
        return SUCCESS


# -- the dead-letter stream


async def test_a_missing_dead_letter_stream_holds_the_letters_until_it_is_back(log: Log) -> None:
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.sequence)
        raise ValueError(f"cause {context.sequence}")

    config = log.config(ack_wait_seconds=0.6, max_concurrency=2)
    async with running(config, fails) as consumer:
        await log.publish({"n": 0})
        await log.letters(1)
        await log.js.delete_stream(log.names.dead_letters)
        for number in range(1, 7):
            await log.publish({"n": number})
        await asyncio.sleep(2)  # three times ack_wait
        assert len(calls) <= 1 + 2 * config.max_concurrency  # it stopped fetching
        assert Counter(calls).most_common(1)[0][1] == 1  # and keeps its events
        await ensure_streams(log.js, log.names)
        letters = await log.letters(6)
        await log.settled()
        assert consumer.is_connected
    assert {letter["original_data"]["n"] for letter in letters} == set(range(1, 7))
    for letter in letters:
        assert letter["error_message"] == f"cause {letter['original_sequence']}"
    assert len(calls) == 7


async def test_a_full_dead_letter_stream_loses_nothing(log: Log) -> None:
    stream = (await log.js.stream_info(log.names.dead_letters)).config
    stream.max_msgs, stream.discard = 1, DiscardPolicy.NEW
    await log.js.update_stream(stream)

    async def fails(context: ConsumerContext) -> ProcessingResult:
        return RETRY

    async with running(log.config(), fails):
        for number in range(3):
            await log.publish({"n": number})
        await log.stored(1)
        await asyncio.sleep(0.5)
        stream.max_msgs = 10
        await log.js.update_stream(stream)
        letters = await log.letters(3)
        await log.settled()
    assert sorted(letter["original_data"]["n"] for letter in letters) == [0, 1, 2]


async def test_closing_while_a_letter_is_held_gives_its_event_back(log: Log) -> None:
    calls: list[int] = []

    async def fails(context: ConsumerContext) -> ProcessingResult:
        calls.append(context.attempt)
        raise ValueError("the cause")

    async with running(log.config(), fails):
        await log.js.delete_stream(log.names.dead_letters)
        await log.publish({"n": 1})
        await seen(calls, 1)
        await asyncio.sleep(0.3)
    async with running(log.config(), fails):  # makes the stream again
        [letter] = await log.letters(1)
        await log.settled()
    assert letter["error_message"] == "the cause"
    assert calls == [0, 1]


# -- NATS


@pytest.mark.usefixtures("_short_pulls")
@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_every_event_is_handled_or_dead_lettered_over_restarts_of_nats(
    nats_server_factory: Factory, how: str
) -> None:
    print(f"DLQ_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    server = nats_server_factory()
    handled: set[int] = set()

    async def handler(context: ConsumerContext) -> ProcessingResult:
        number = json.loads(context.data)["n"]
        await asyncio.sleep(0.01)
        if number % 3 == 0:
            raise ValueError(f"event {number}")
        handled.add(number)
        return SUCCESS

    async with opened(server.url) as log:
        config = log.config(max_retries=1, ack_wait_seconds=1, max_concurrency=8)
        async with running(config, handler):

            async def produce() -> None:
                for number in range(300):
                    await log.publish({"n": number})

            producing = asyncio.create_task(produce())
            for _ in range(2):
                await asyncio.sleep(rng.uniform(0.2, 0.5))
                await asyncio.to_thread(getattr(server, how))
                await asyncio.sleep(0.2)
                await asyncio.to_thread(server.start)
            await producing
            await log.settled()
        last = (await log.js.stream_info(log.names.dead_letters)).state.last_seq
        letters = await log.letters(last)
    failed = {letter["original_data"]["n"] for letter in letters}
    assert handled == {n for n in range(300) if n % 3}
    assert failed == {n for n in range(300) if n % 3 == 0}
    # If a restart loses an acknowledgement, its event fails again.
    failings = {(letter["failure_id"], letter["first_attempt_at"]) for letter in letters}
    assert len(failings) == len(letters)
    for letter in letters:
        assert letter["error_message"] == f"event {letter['original_data']['n']}"


@pytest.mark.usefixtures("_short_pulls")
async def test_a_handler_at_work_over_a_restart_is_not_called_beside_itself(
    nats_server_factory: Factory,
) -> None:
    server = nats_server_factory()
    slow = Slow(4)
    async with opened(server.url) as log, running(log.config(ack_wait_seconds=0.6), slow):
        await log.publish(b"1")
        await seen(slow.started, 1)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(1)  # longer than ack_wait: the event comes again
        await asyncio.to_thread(server.start)
        await seen(slow.finished, 1)
        await log.settled()
    assert slow.started == [b"1"]


@pytest.mark.usefixtures("_short_pulls")
async def test_an_outage_piles_up_no_requests(nats_server_factory: Factory) -> None:
    server = nats_server_factory()
    slow = Slow(0.3)
    options = {"ack_wait_seconds": 0.5, "max_concurrency": 1}
    async with opened(server.url) as log, running(log.config(**options), slow):
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(2)  # four requests' time
        await asyncio.to_thread(server.start)
        for number in range(8):
            await log.publish(b"%d" % number)
        await log.settled()
    assert Counter(slow.started).most_common(1)[0][1] == 1
    assert len(slow.finished) == 8


@pytest.mark.usefixtures("_short_pulls")
async def test_a_deleted_consumer_is_made_again(log: Log) -> None:
    slow = Slow(0)
    async with running(log.config(), slow):
        await log.publish(b"1")
        await log.settled()
        await log.js.delete_consumer(log.names.events, "ndvi")
        await log.publish(b"2")
        await until(lambda: _contains(slow.finished, b"2"))
        await log.settled()


async def _contains(calls: list[bytes], what: bytes) -> bool:
    return what in calls


@pytest.mark.usefixtures("_short_pulls")
async def test_a_connection_that_the_server_ended_is_created_again(log: Log) -> None:
    slow = Slow(1.5)
    async with running(log.config(), slow) as consumer:
        await log.publish(b"1")
        await seen(slow.started, 1)
        ended = consumer._connection
        assert ended is not None
        # What nats-py does not check: the server answers with an error, and nats-py gives up.
        await ended.publish("x", b"x" * ended.max_payload, headers={"a": "b"})
        await until(lambda: _is_closed(ended))
        await log.publish(b"2")
        await seen(slow.finished, 2)
        await log.settled()
        assert consumer.is_connected
    assert sorted(slow.started) == [b"1", b"2"]  # answered over the new connection


async def _is_closed(connection: object) -> bool:
    return bool(connection.is_closed)


@pytest.mark.usefixtures("_short_pulls")
async def test_what_was_handled_without_a_connection_is_not_handled_again(log: Log) -> None:
    slow = Slow(0.5)
    config = log.config(reconnect_time_wait=1.5, ack_wait_seconds=15)
    async with running(config, slow) as consumer:
        await log.publish(b"1")
        await seen(slow.started, 1)
        assert consumer._connection is not None
        await consumer._connection.close()
        await seen(slow.finished, 1)
        assert not consumer.is_connected
        await log.settled()
    assert slow.started == [b"1"]


async def test_an_outage_is_reported_once_and_ends_no_close_in_an_error(
    nats_server_factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    server = nats_server_factory()
    async with opened(server.url) as log, running(log.config(), Slow(0)) as consumer:
        publisher = NATSPublisher(NATSConfig(servers=[server.url], subject_prefix=log.prefix))
        assert await publisher.connect()
        server.kill()
        await until(lambda: _is_reconnecting(consumer))
        caplog.clear()
        await asyncio.sleep(2)  # a try to connect every 0.2 s
        told = [each.message for each in caplog.records if each.levelno >= logging.WARNING]
        assert 1 <= len([each for each in told if "Connect call failed" in each]) <= 2
        await publisher.close()
        await consumer.close()


async def _is_reconnecting(consumer: NATSConsumer) -> bool:
    assert consumer._connection is not None
    return bool(consumer._connection.is_reconnecting)


@pytest.mark.usefixtures("_short_pulls")
async def test_a_connection_that_no_longer_reads_is_noticed(log: Log) -> None:
    slow = Slow(0)
    async with running(log.config(ack_wait_seconds=1), slow) as consumer:
        await log.publish(b"1")
        await log.settled()
        assert consumer._connection is not None
        reading = consumer._connection._reading_task
        assert reading is not None
        reading.cancel()
        await log.publish(b"2")
        assert consumer.is_connected  # as it believes
        await until(lambda: _contains(slow.finished, b"2"))
        await log.settled()


@pytest.mark.usefixtures("_short_pulls")
async def test_a_server_that_hangs_for_a_while_stops_nothing(nats_server_factory: Factory) -> None:
    server = nats_server_factory()
    slow = Slow(0)
    async with opened(server.url) as log, running(log.config(ack_wait_seconds=1), slow):
        pause(server.pid)
        await asyncio.sleep(2)
        os.kill(server.pid, signal.SIGCONT)
        await log.publish(b"1")
        await seen(slow.finished, 1)
        await log.settled()


async def test_connect_says_false_without_a_server(
    nats_server_factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    server = nats_server_factory()
    url = server.url
    server.stop()
    caplog.set_level(logging.ERROR)
    consumer = NATSConsumer(
        NATSConsumerConfig(servers=[url.replace("//", "//me:secret@")], connect_timeout_seconds=0.5)
    )
    assert not await consumer.connect()
    assert not consumer.is_connected
    assert f"No NATS server answers at {url} (" in caplog.text
    assert "secret" not in caplog.text


# -- the service's own process


@contextlib.contextmanager
def service(config: NATSConsumerConfig) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVICE, in_full(config)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_an_event_that_kills_its_process_ends_as_a_crash_loop(log: Log) -> None:
    config = log.config(ack_wait_seconds=0.4)
    await log.publish(b'{"kill": true}')
    attempts = []
    async with asyncio.timeout(180):
        while True:
            with service(config) as process:
                assert process.stdout is not None
                dying = asyncio.create_task(asyncio.to_thread(process.stdout.readline))
                done, _ = await asyncio.wait(
                    {dying, storing := asyncio.create_task(log.letters(1, seconds=180))},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if dying not in done:
                    [letter] = storing.result()
                    await log.publish(b'{"kill": false}')  # the service lives on
                    assert await dying == "0\n"
                    await log.settled()
                    break
                storing.cancel()
                assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL
                attempts.append(int(dying.result()))
    # The first call may be uncounted; then max_retries + 1, and a tolerance. None of them failed.
    assert attempts == [0] * 7
    assert (
        "Its handler was called at least 6 times, and 6 calls never ended"
        in letter["error_message"]
    )
    assert (letter["dlq_reason"], letter["error_type"]) == ("crash_loop", "CrashLoop")
    assert letter["original_data"] == {"kill": True}
