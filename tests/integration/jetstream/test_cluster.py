"""Three NATS servers with replicas: the leader dies, and nothing is lost or stored twice."""

import asyncio
import contextlib
import json

import nats
import nats.errors
import pytest
from pydantic import SecretStr

from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.events import ConsumerContext, ProcessingResult
from sahool_dlq.events import intake as intake_module
from sahool_dlq.jetstream import pull as pull_module
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from support.consumer_log import SUCCESS, Log, running, until
from support.lasting import lasting_client
from support.platform_log import failures, in_lake, letter, publish, query

EVENTS = 100


async def replicated(log: Log) -> None:
    """Create the streams after the cluster has a leader, then with three replicas each."""

    async def is_made() -> bool:
        with contextlib.suppress(nats.errors.Error):
            # A cluster without a leader does not answer: ask again soon.
            await ensure_streams(log.client.jetstream(timeout=2), log.names)
            return True
        return False

    await until(is_made)
    for name in (log.names.events, log.names.dead_letters):
        config = (await log.js.stream_info(name)).config
        config.num_replicas = 3
        await log.js.update_stream(config)

        async def is_current(name: str = name) -> bool:
            cluster = (await log.js.stream_info(name)).cluster
            replicas = cluster.replicas or [] if cluster else []
            return sum(bool(replica.current) for replica in replicas) == 2

        await until(is_current)


async def leader(log: Log, cluster: list[NatsServer]) -> NatsServer:
    """The server that leads the dead-letter stream."""
    info = await log.js.stream_info(log.names.dead_letters)
    assert info.cluster is not None
    return next(server for server in cluster if server._name == info.cluster.leader)


async def test_the_death_of_the_leader_loses_and_doubles_nothing(
    cluster: list[NatsServer], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "_PULL_SECONDS", 0.5)
    monkeypatch.setattr(pull_module, "_GRACE_SECONDS", 0.5)
    urls = [server.url for server in cluster]

    async def handler(context: ConsumerContext) -> ProcessingResult:
        if int(context.data) % 2:
            raise ValueError(f"event {int(context.data)}")
        return SUCCESS

    client = await lasting_client(urls)
    log = Log(urls[0], client)
    await replicated(log)
    platform = settings.model_copy(
        update={
            "nats_url": SecretStr(",".join(urls)),
            "subject_prefix": log.prefix,
            "events_stream": log.names.events,
            "dlq_stream": log.names.dead_letters,
            "totals_stream": log.names.totals,
            "drain_batch_messages": 10,
        }
    )
    stored = await publish(client, platform, map(letter, range(600)))
    is_over = asyncio.Event()
    drains: list[str] = []

    async def drain_all_the_time() -> None:
        while not is_over.is_set():
            try:
                drains.append(f"{(await drain_log(platform)).drained} drained")
            except ServerUnavailableError as error:
                drains.append(str(error))

    async def has_begun() -> bool:
        rows = query(platform, "SELECT last_sequence FROM drain_checkpoints")
        return bool(rows) and rows[0]["last_sequence"] > 0

    async def produce() -> None:
        for number in range(EVENTS):
            await log.publish(str(number).encode(), headers={"Nats-Msg-Id": str(number)})
            await asyncio.sleep(0.005)

    draining = asyncio.create_task(drain_all_the_time())
    try:
        async with running(log.config(servers=urls, ack_wait_seconds=1), handler):
            producing = asyncio.create_task(produce())
            killed = await leader(log, cluster)
            await until(has_begun)
            await asyncio.to_thread(killed.kill)
            await producing
            await asyncio.to_thread(killed.start)
            await log.settled()
    finally:
        is_over.set()
        await draining
    print(drains)
    await drain_log(platform)
    rows = failures(platform)
    failed = [row["error_message"] for row in rows if row["original_stream"]]
    assert sorted(failed) == sorted(f"event {n}" for n in range(EVENTS) if n % 2)
    assert sorted(row["event_id"] for row in rows if not row["original_stream"]) == sorted(
        json.loads(body)["event_id"] for body in stored.values()
    )
    # If an acknowledgement is lost with the leader, its event fails again: still one failure.
    assert {row["seen_count"] for row in rows if not row["original_stream"]} == {1}
    # The lake keeps each message of the log, PostgreSQL one row a failure, and how often it came.
    in_log = [str(row["id"]) for row in rows for _ in range(row["seen_count"])]
    assert sorted(in_lake(platform)["failure_id"]) == sorted(in_log)
    assert (await verify_stores(platform)).findings == ()
    await client.close()
