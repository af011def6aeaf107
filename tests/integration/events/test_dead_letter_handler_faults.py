"""Faults around handlers that nats-py calls: nothing is lost or stored twice."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import NATSConsumerConfig, with_dead_letters
from sahool_dlq.events.beside import settler
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support import ROOT
from support.consumer_log import Log, in_full, opened, seen, until
from support.plain_handlers import pulling
from support.platform_log import failures
from support.redriving import TIMEOUTS, quick, redrive_timeouts


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "PAUSE_SECONDS", 0.2)


@pytest.mark.parametrize("max_deliver", [-1, 1])
async def test_without_the_log_an_event_waits_and_its_handler_is_not_called_again(
    log: Log, max_deliver: int
) -> None:
    calls: list[int] = []

    @with_dead_letters(log.config())
    async def handle(msg: Msg) -> None:
        calls.append(msg.metadata.num_delivered)
        raise ValueError("bad")

    await log.js.delete_stream(log.names.dead_letters)
    async with pulling(log, handle, max_deliver=max_deliver, ack_wait=2) as js:
        await log.publish({"n": 1})

        async def came_again() -> bool:
            info = await js.consumer_info(log.names.events, "plain")
            return bool(info.num_redelivered)

        await seen(calls, 1)
        if max_deliver == -1:
            await until(came_again)
        assert await log.pending("plain") == (0, 1)
        await ensure_streams(log.js, log.names)
        [letter] = await log.letters(1)
        await log.settled("plain")
    assert calls == [1]
    assert letter["error_message"] == "bad"


async def test_a_restart_of_nats_amid_calls_loses_and_doubles_no_failure(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    server = nats_server_factory()
    calls: list[int] = []
    async with opened(server.url) as log:

        @with_dead_letters(log.config(max_retries=1))
        async def handle(msg: Msg) -> None:
            number = json.loads(msg.data)
            calls.append(number)
            if len(calls) == 5:
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            raise ValueError(f"bad {number}")

        for number in range(8):
            await log.publish(number)
        async with pulling(log, handle, ack_wait=2):
            letters = await log.letters(8, 120)
            await log.settled("plain", 120)
    assert sorted(each["original_data"] for each in letters) == list(range(8))


DIES = """
import asyncio, json, os, signal, sys
import nats
from nats.aio.msg import Msg
from sahool_dlq.events import NATSConsumerConfig, with_dead_letters

config = NATSConsumerConfig(**json.loads(sys.argv[1]))
when = sys.argv[2]

@with_dead_letters(config)
async def handle(msg):
    print("called", flush=True)
    if when == "in the call":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("bad")

if when == "before the acknowledgement":
    async def die(self, timeout=1.0):
        os.kill(os.getpid(), signal.SIGKILL)
    Msg.ack_sync = die

async def main():
    client = await nats.connect(config.servers[0].get_secret_value())
    js = client.jetstream()
    sub = await js.pull_subscribe(config.subject_filter, "plain", config.stream_name)
    while True:
        try:
            for msg in await sub.fetch(1, timeout=1):
                await handle(msg)
        except nats.errors.TimeoutError:
            continue

asyncio.run(main())
"""


async def runs_until_dead(config: NATSConsumerConfig, when: str) -> int:
    """Run a process of the service until it dies; how often it called its handler."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DIES, in_full(config), when),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == -signal.SIGKILL
    return said.count(b"called")


async def prepared(log: Log) -> None:
    """The durable consumer; it delivers events again soon after their process died."""

    async def never(_: Msg) -> None: ...

    async with pulling(log, never, ack_wait=1):
        pass


async def test_a_death_between_dead_letter_and_acknowledgement_leaves_one_dead_letter(
    log: Log,
) -> None:
    await prepared(log)
    await log.publish({"n": 1})
    config = log.config()
    assert await runs_until_dead(config, "before the acknowledgement") == 1
    assert await runs_until_dead(config, "before the acknowledgement") == 1

    @with_dead_letters(config)
    async def handle(msg: Msg) -> None:
        raise KeyError("another failure")

    [first] = await log.stored(1)  # the second process wrote the same under the same id
    async with pulling(log, handle, ack_wait=1):
        await log.settled("plain")
        letters = await log.stored(2)
    ids = [(letter.headers or {})["Nats-Msg-Id"] for letter in letters]
    assert letters[0] == first
    assert ids[1].startswith(f"{ids[0]}-")  # which has other content, and is stored in addition


async def test_calls_that_kill_their_process_are_counted_over_processes(log: Log) -> None:
    await prepared(log)
    await log.publish({"n": 1})
    config = log.config(max_retries=0)
    calls = 0
    for _ in range(7):
        calls += await runs_until_dead(config, "in the call")

    @with_dead_letters(config)
    async def handle(msg: Msg) -> None:
        raise AssertionError("never called")

    async with pulling(log, handle, ack_wait=1):
        [letter] = await log.letters(1)
    assert calls == 7
    assert letter["dlq_reason"] == "crash_loop"


async def test_two_processes_count_the_calls_of_both(log: Log) -> None:
    calls: list[str] = []
    config = log.config(max_retries=3, retry_delay_seconds=0.1)

    def handler(name: str) -> Callable[[Msg], object]:
        @with_dead_letters(config)
        async def handle(msg: Msg) -> None:
            calls.append(name)
            raise ValueError(name)

        return handle

    async with pulling(log, handler("a")), pulling(log, handler("b")):
        for number in range(6):
            await log.publish(number)
        letters = await log.letters(6)
        await log.settled("plain")
    assert len(calls) == 6 * 4
    assert {letter["retry_count"] for letter in letters} == {3}
    assert all(len(letter["attempts"]) == 4 for letter in letters)


async def test_a_redrive_to_a_plain_handler_resolves_its_case(
    settings: Settings, client: Client
) -> None:
    is_mended = False
    log = Log(settings.nats_url.get_secret_value(), client, settings.subject_prefix)
    others: list[int] = []

    @with_dead_letters(log.config(name="plain-service"))
    async def handle(msg: Msg) -> None:
        if not is_mended:
            raise TimeoutError("no tile server")

    @with_dead_letters(log.config(name="other-service"))
    async def other(msg: Msg) -> None:
        others.append(msg.metadata.sequence.stream)

    async with pulling(log, handle), pulling(log, other, durable="other"):
        await log.publish({"event_id": "e1"})
        await log.letters(1)
        await drain_log(settings)
        is_mended = True
        report = await redrive_timeouts(quick(settings), selection=TIMEOUTS)
        assert report is not None
        await log.settled("plain")
        await log.settled("other")
        await drain_log(settings)
    [failure] = failures(settings)
    assert (failure["status"], failure["consumer_name"]) == ("resolved", "plain")
    assert len(others) == 1  # the redrive was not for it
