"""Tasks of a real Taskiq worker on JetStream: retried and dead-lettered as events are."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig
from taskiq import AsyncBroker, Context, TaskiqDepends
from taskiq.acks import AcknowledgeType
from taskiq.api import run_receiver_task
from taskiq_nats import NatsBroker, PullBasedJetStreamBroker, PushBasedJetStreamBroker

from sahool_dlq.errors import StreamError
from sahool_dlq.events import taskiq_dead_letters
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.consumer_log import Log, seen, until
from support.plain_handlers import came_again
from support.platform_log import failures
from support.redriving import TIMEOUTS, quick, redrive_timeouts


def broker_of(
    log: Log,
    kind: type[Any] = PullBasedJetStreamBroker,
    durable: str = "tasks",
    max_deliver: int = -1,
    **changes: Any,
) -> Any:
    config = ConsumerConfig(durable_name=durable, name=durable, ack_wait=2, max_deliver=max_deliver)
    broker = kind(
        log.url,
        subject=f"{log.prefix}.analysis.tasks",
        stream_name=log.names.events,
        durable=durable,
        consumer_config=config,
        pull_consume_timeout=1,
    )
    taskiq_dead_letters(broker, log.config(**{"name": "task-service", **changes}))
    return broker


@contextlib.asynccontextmanager
async def working(broker: AsyncBroker, **options: Any) -> AsyncIterator[None]:
    """A worker in this process."""
    broker.is_worker_process = True
    await broker.startup()
    worker = asyncio.create_task(run_receiver_task(broker, **options))
    try:
        yield
    finally:
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        await broker.shutdown()


@pytest.mark.parametrize("kind", [PullBasedJetStreamBroker, PushBasedJetStreamBroker])
@pytest.mark.parametrize("when", [AcknowledgeType.WHEN_SAVED, AcknowledgeType.WHEN_EXECUTED])
async def test_a_task_that_fails_is_retried_then_kept(
    log: Log, kind: type[Any], when: AcknowledgeType
) -> None:
    broker = broker_of(log, kind, max_retries=1)
    calls: list[int] = []

    @broker.task(task_name="compute")
    async def compute(number: int) -> None:
        calls.append(number)
        if number:
            raise ConnectionError("no tile server")

    async with working(broker, ack_time=when):
        await compute.kiq(0)
        await compute.kiq(1)
        [letter] = await log.letters(1)
        await log.settled("tasks")
    assert sorted(calls) == [0, 1, 1]
    assert (letter["error_type"], letter["error_message"]) == ("ConnectionError", "no tile server")
    assert 'raise ConnectionError("no tile server")' in letter["stack_trace"]
    assert (letter["retry_count"], len(letter["attempts"])) == (1, 2)
    assert (letter["handler"], letter["consumer_service"]) == ("compute", "task-service")
    assert letter["original_data"]["args"] == [1]


async def test_what_taskiq_would_acknowledge_unread_is_kept(log: Log) -> None:
    broker = broker_of(log)
    async with working(broker):
        await log.publish(b"no task", "analysis.tasks")
        [letter] = await log.letters(1)
        await log.settled("tasks")
    assert (letter["dlq_reason"], letter["handler"]) == ("no_task", "unknown")


async def test_a_task_that_is_sent_again_or_rejected_by_itself_says_so(log: Log) -> None:
    broker = broker_of(log, max_retries=5, retry_delay_seconds=60)
    calls: list[str] = []

    @broker.task(task_name="decide")
    async def decide(word: str, context: Annotated[Context, TaskiqDepends()]) -> None:
        calls.append(word)
        if word == "reject":
            context.reject()
        if len(calls) == 1:
            await context.requeue()

    async with working(broker):
        await decide.kiq("requeue")
        await seen(calls, 2)
        await log.settled("tasks")
        await decide.kiq("reject")
        [letter] = await log.letters(1)
        await log.settled("tasks")
    assert calls == ["requeue", "requeue", "reject"]
    assert letter["dlq_reason"] == "rejected"


async def test_a_slow_task_is_in_progress_and_one_without_an_answer_comes_again(log: Log) -> None:
    broker = broker_of(log)
    calls: list[str] = []

    @broker.task(task_name="slow")
    async def slow() -> None:
        calls.append("slow")
        await asyncio.sleep(5)  # this time is what is tested: longer than ack_wait

    @broker.task(task_name="silent", ack_type="manual")
    async def silent(context: Annotated[Context, TaskiqDepends()]) -> None:
        calls.append("silent")
        if calls.count("silent") > 1:
            await context.ack()

    async with working(broker):
        await slow.kiq()
        await silent.kiq()
        await seen(calls, 3)
        await log.settled("tasks")
    assert sorted(calls) == ["silent", "silent", "slow"]


async def test_a_task_that_comes_again_while_it_runs_is_not_called_again(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    broker = broker_of(log)
    calls: list[str] = []
    is_over = asyncio.Event()

    @broker.task(task_name="blocking")
    async def blocking() -> None:
        calls.append("blocking")
        time.sleep(3)  # noqa: ASYNC251  (what is tested: nothing else runs for longer than ack_wait)
        await is_over.wait()

    with caplog.at_level(logging.INFO):
        async with working(broker):
            await blocking.kiq()
            await until(came_again(caplog))
            is_over.set()
            await log.settled("tasks")
    assert calls == ["blocking"]


async def test_a_task_without_an_answer_at_its_last_delivery_is_kept(log: Log) -> None:
    broker = broker_of(log, max_deliver=2)
    calls: list[str] = []

    @broker.task(task_name="silent", ack_type="manual")
    async def silent() -> None:
        calls.append("silent")

    async with working(broker):
        await silent.kiq()
        [letter] = await log.letters(1)
        await log.settled("tasks")
    assert calls == ["silent", "silent"]
    assert (letter["dlq_reason"], letter["handler"]) == ("max_deliveries", "silent")


async def test_a_task_that_is_cut_off_has_not_failed(log: Log) -> None:
    broker = broker_of(log)
    runs: list[asyncio.Task[Any]] = []

    @broker.task(task_name="endless")
    async def endless() -> None:
        runs.append(running := asyncio.current_task())
        if len(runs) == 1 and running is not None:
            running.cancel()  # as the end of the program does
            await asyncio.Event().wait()

    async with working(broker):
        await endless.kiq()
        await seen(runs, 2)
        await log.settled("tasks")
    await log.letters(0)


async def test_a_redrive_is_for_its_durable_and_resolves_the_case(
    settings: Settings, client: Client
) -> None:
    log = Log(settings.nats_url.get_secret_value(), client, settings.subject_prefix)
    broker, other = broker_of(log), broker_of(log, durable="other", name="other-service")
    is_mended = False
    others: list[int] = []

    @broker.task(task_name="compute")
    async def compute(number: int) -> None:
        if not is_mended:
            raise TimeoutError("no tile server")

    @other.task(task_name="compute")
    async def computed(number: int) -> None:
        others.append(number)

    async with working(broker), working(other):
        await compute.kiq(7)
        await log.letters(1)
        await drain_log(settings)
        is_mended = True
        assert await redrive_timeouts(quick(settings), selection=TIMEOUTS) is not None
        await log.settled("tasks")
        await log.settled("other")
        await drain_log(settings)
    [failure] = failures(settings)
    assert (failure["status"], failure["consumer_name"]) == ("resolved", "tasks")
    assert others == [7]


def test_a_broker_without_jetstream_is_refused(log: Log) -> None:
    with pytest.raises(StreamError, match="NatsBroker acknowledges nothing"):
        taskiq_dead_letters(NatsBroker(log.url), log.config())
