"""A shutdown ends within `shutdown_seconds` plus five, whatever handlers and NATS do."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sahool_dlq.bridge.run import Bridge
from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import (
    ConsumerContext,
    DLQAction,
    DLQConsumer,
    DLQConsumerConfig,
    NATSConsumer,
    NATSConsumerConfig,
    ProcessingResult,
)
from sahool_dlq.events.monitor.dlq_event import DLQEvent
from sahool_dlq.events.service import Service
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.connection import connect_service, disconnect
from sahool_dlq.settings import Settings
from support import ROOT
from support.consumer_log import SUCCESS, Calls, Log, in_full, opened, running, seen
from support.seed import SEED
from support.servers import pause

Factory = Callable[..., NatsServer]

PROGRAM = """
import asyncio, sys, time
from sahool_dlq.events import NATSConsumer, NATSConsumerConfig, ProcessingResult, start_consumer

async def leave():
    sys.exit(3)

async def handler(context):
    number, what = int(context.data), sys.argv[2]
    print(number, flush=True)
    if number or what == "works":
        await asyncio.sleep(0.02 if what == "works" else 60)
    elif what == "exits":
        await asyncio.sleep(0.5)
        sys.exit(3)
    elif what == "exits in a task":
        await asyncio.sleep(0.5)
        async with asyncio.TaskGroup() as group:
            group.create_task(leave())
    elif what == "blocks the loop":
        time.sleep(9.5)  # longer than a pull request waits
    elif what == "blocks it for ever":
        time.sleep(60)
    elif what == "blocks a thread":
        await asyncio.to_thread(time.sleep, 60)
    elif what == "does not listen":
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
    else:
        await asyncio.sleep(60)
    return ProcessingResult.SUCCESS

async def main():
    config = NATSConsumerConfig.model_validate_json(sys.argv[1])
    if sys.argv[2].startswith("exits") and config.name == "in the background":
        await start_consumer(handler, config)
        await asyncio.sleep(60)
    consumer = NATSConsumer(config)
    assert await consumer.connect()
    await consumer.subscribe(handler)
    await consumer.run()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def service(
    config: NATSConsumerConfig, what: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        in_full(config),
        what,
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _line(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return int(await process.stdout.readline())


async def _ends(process: asyncio.subprocess.Process, seconds: float) -> int:
    """The exit status of a process, which must end within so many seconds."""
    async with asyncio.timeout(seconds):
        return await process.wait()


async def _all_come_again(log: Log, numbers: set[int]) -> None:
    """Check that a consumer receives all of these events well before ack_wait is over."""
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        await seen(calls, len(numbers), seconds=20)
        await log.settled()
    assert {int(call.data) for call in calls} == numbers


# -- handlers


@pytest.mark.parametrize("name", ["run", "in the background"])
@pytest.mark.parametrize("what", ["exits", "exits in a task"])
async def test_sys_exit_in_a_handler_ends_the_process_and_gives_its_events_back(
    log: Log, what: str, name: str
) -> None:
    for number in range(20):
        await log.publish(number)
    config = log.config(name=name, max_concurrency=8, shutdown_seconds=1, max_retries=0)
    async with service(config, what) as process:
        assert [await _line(process) for _ in range(8)] == list(range(8))
        assert await _ends(process, 0.5 + 1 + 5) == 3
    await log.letters(0)
    await _all_come_again(log, set(range(20)))


@pytest.mark.parametrize(
    ("what", "exit_code"),
    [
        ("waits", 0),
        ("does not listen", 128 + signal.SIGTERM),
        ("blocks a thread", 128 + signal.SIGTERM),
    ],
)
async def test_a_handler_that_does_not_end_holds_nothing_up(
    log: Log, what: str, exit_code: int
) -> None:
    for number in range(4):
        await log.publish(number)
    async with service(log.config(max_concurrency=2, shutdown_seconds=1), what) as process:
        assert {await _line(process), await _line(process)} == {0, 1}
        process.terminate()
        assert await _ends(process, 1 + 5) == exit_code
    await log.letters(0)
    await _all_come_again(log, set(range(4)))


async def test_sigterm_is_heard_once_a_handler_no_longer_blocks_the_loop(log: Log) -> None:
    for number in range(6):
        await log.publish(number)
    async with service(log.config(max_concurrency=2, shutdown_seconds=20), "blocks the loop") as (
        process
    ):
        assert await _line(process) == 0
        began = time.monotonic()
        await asyncio.sleep(4)
        process.terminate()
        assert await _ends(process, 20) == 0
        assert time.monotonic() - began < 9.5 + 5
        assert process.stdout is not None
        assert await process.stdout.read() in (b"", b"1\n")  # nothing was begun after the word
    await _all_come_again(log, set(range(1, 6)))


@pytest.mark.parametrize("what", ["waits", "blocks it for ever"])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_process_at_once(
    log: Log, what: str, second: signal.Signals
) -> None:
    await log.publish(0)
    async with service(log.config(shutdown_seconds=60), what) as process:
        assert await _line(process) == 0
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(1)
        assert process.returncode is None
        process.send_signal(second)
        assert await _ends(process, 5) == 128 + second


async def test_close_ends_where_a_handler_does_not_listen(log: Log) -> None:
    called, is_over = asyncio.Event(), asyncio.Event()

    async def deaf(context: ConsumerContext) -> ProcessingResult:
        called.set()
        while not is_over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await is_over.wait()
        raise ValueError("too late to be a failure")

    consumer = NATSConsumer(log.config(shutdown_seconds=0.1))
    assert await consumer.connect()
    await consumer.subscribe(deaf)
    consumer.start_in_background()
    await log.publish(0)
    await called.wait()
    await _closes(consumer, 0.1)
    is_over.set()
    await log.letters(0)
    await _all_come_again(log, {0})


async def _closes(service: Service, shutdown_seconds: float) -> None:
    async with asyncio.timeout(shutdown_seconds + 5):
        await service.close()


# -- NATS


async def test_a_server_that_hangs_holds_no_service_up(nats_server_factory: Factory) -> None:
    server = nats_server_factory()
    async with (
        opened(server.url) as log,
        service(log.config(shutdown_seconds=1), "works") as (process),
    ):
        for number in range(50):
            await log.publish(number)
        for _ in range(10):
            await _line(process)
        pause(server.pid)
        try:
            process.terminate()
            assert await _ends(process, 1 + 5) == 0
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_monitor_and_bridge_end_while_the_server_hangs(
    nats_server_factory: Factory, tmp_path: Path
) -> None:
    server = nats_server_factory()
    called = asyncio.Event()

    async def handle(event: DLQEvent) -> DLQAction:
        called.set()
        await asyncio.sleep(60)
        return DLQAction.STORE

    async with opened(server.url) as log:
        async with running(log.config(), Calls(ValueError("why"))):
            await log.publish(0)
            await log.letters(1)
        monitor = DLQConsumer(
            DLQConsumerConfig(
                servers=[server.url],
                dlq_subject=f"{log.prefix}.dlq.>",
                dlq_stream_name=log.names.dead_letters,
                shutdown_seconds=0.5,
            )
        )
        assert await monitor.connect()
        await monitor.subscribe(handle)
        bridge = Bridge(
            Settings(
                home=tmp_path,
                nats_url=server.url,
                subject_prefix=log.prefix,
                dlq_stream=log.names.dead_letters,
            )
        )
        await bridge.open()
        monitor.start_in_background()
        bridge.start_in_background()
        await called.wait()
        pause(server.pid)
        try:
            await asyncio.gather(_closes(monitor, 0.5), _closes(bridge, 0))  # nothing is in hand
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_a_service_ends_after_and_amid_restarts_of_nats(nats_server_factory: Factory) -> None:
    print(f"DLQ_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    server = nats_server_factory()
    async with opened(server.url) as log:
        config = log.config(shutdown_seconds=1, max_concurrency=8, totals_interval_seconds=0.05)
        for number in range(600):
            await log.publish(number)
        for _ in range(3):
            async with service(config, "works") as process:
                await _line(process)
                starting = None
                for _ in range(rng.randint(1, 2)):
                    await asyncio.sleep(rng.uniform(0.1, 0.8))
                    if starting:
                        await starting
                    await asyncio.to_thread(rng.choice([server.kill, server.stop]))
                    await asyncio.sleep(rng.uniform(0, 0.5))
                    starting = asyncio.create_task(asyncio.to_thread(server.start))
                    await asyncio.sleep(rng.uniform(0, 0.5))
                process.terminate()
                assert await _ends(process, 1 + 5) == 0
                assert starting
                await starting


async def test_a_late_answer_does_not_stop_a_connection_from_reading(
    nats_url: str,
) -> None:
    connection = await connect_service(Access(servers=[nats_url]), name="test", timeout_seconds=20)
    flushing = asyncio.create_task(connection.flush())
    async with asyncio.timeout(20):
        while not connection._pongs:
            await asyncio.sleep(0)  # not longer: the answer comes within a millisecond
    flushing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flushing
    await connection.flush()
    await connection.flush()  # nats-py alone: the loop that reads has ended
    await disconnect(connection)
