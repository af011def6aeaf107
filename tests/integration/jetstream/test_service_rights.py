"""The NATS user of one service can do all of its work, and nothing to events of others."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats
import pytest
from nats.js.api import ConsumerConfig

from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.events import ConsumerContext, NATSPublisher, ProcessingResult, Retry
from sahool_dlq.events.publishing.publisher import NATSConfig
from sahool_dlq.events.results import HandlerResult
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.grants import Consumption, as_block, grants_of_service
from sahool_dlq.jetstream.permissions import check_heard
from sahool_dlq.jetstream.streams import ensure_body_store, ensure_streams
from support.consumer_log import SUCCESS, Log, running, seen, until

PREFIX = "rights"


def block(service: str, *, is_dlq_own: bool = False) -> str:
    """The user that `dlq nats-permissions` prints for a service on its own subject."""
    names = Log("", None, PREFIX).names
    subject = f"{PREFIX}.analysis.{service}"
    consumption = Consumption(names.events, service, subject)
    publishes = [f"{PREFIX}.actions.paid"]
    return as_block(
        grants_of_service(names, service, [consumption], publishes, is_dlq_own=is_dlq_own)
    )


@pytest.fixture(params=[False])
async def log(
    request: pytest.FixtureRequest, nats_server_factory: Callable[..., NatsServer]
) -> AsyncIterator[Log]:
    """Streams, two services with their own rights, and an administrator.

    With the parameter True, their dead letters go to separate subjects.
    """
    services = "billing", "spraying"
    blocks = "\n".join(block(service, is_dlq_own=request.param) for service in services)
    for service in ("BILLING", "SPRAYING"):
        blocks = blocks.replace(f"$NATS_{service}_PASSWORD", "secret")
    admin = "{ user: admin, password: secret }"
    server = nats_server_factory(config=f"authorization {{ users: [\n{admin}\n{blocks}\n] }}")
    client = await nats.connect(f"nats://admin:secret@127.0.0.1:{server.port}")
    made = Log(f"nats://billing:secret@127.0.0.1:{server.port}", client, PREFIX)
    await ensure_streams(made.js, made.names)
    await ensure_body_store(made.js)
    yield made
    await client.close()


def billing(log: Log, **changes: Any) -> Any:
    filter_ = f"{PREFIX}.analysis.billing"
    return log.config(
        **{"name": "billing", "consumer_name": "billing", "subject_filter": filter_, **changes}
    )


async def test_the_service_does_all_of_its_work(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = billing(log, max_retries=3, totals_interval_seconds=0.2)
    calls: list[tuple[bytes, int]] = []
    large = json.dumps({"x": "y" * 1_048_000}).encode()  # more than a dead letter may have

    async def handler(context: ConsumerContext) -> HandlerResult:
        calls.append((context.data[:10], context.attempt))
        if context.data == b'"waits"':
            return Retry(delay_seconds=60)
        if context.data == b'"good"':
            return SUCCESS
        return ProcessingResult.RETRY if context.attempt == 0 else ProcessingResult.DEAD_LETTER

    async with running(config, handler) as consumer:
        for body in (b'"good"', b'"bad"', large):
            await log.publish(body, "analysis.billing")
        await log.publish(b'"others"', "analysis.spraying")
        await log.letters(2)
        gone = await log.publish(b'"waits"', "analysis.billing")
        await seen(calls, 6)
        [subscription] = consumer._subscriptions
        # an event that leaves its stream while it waits
        await log.js.delete_msg(log.names.events, gone)
        for retry in subscription._retries._events.values():
            retry.due_at = 0
        letters = await log.letters(3)

        async def counted() -> bool:
            return (await log.js.stream_info(log.names.totals)).state.messages > 1

        await until(counted)
        kept = await log.js.get_last_msg(
            log.names.attempts, f"{PREFIX}.attempts.{log.names.events}.billing.2"
        )
    assert json.loads(kept.data or b"")["failed_count"] == 2
    reasons = [letter["dlq_reason"] for letter in letters]
    assert reasons.count("event_removed") == 1
    pointers = [
        letter["original_data"]["object"]
        for letter in letters
        if letter["payload_encoding"] == "object"
    ]
    assert len(pointers) == 1
    assert (await (await ensure_body_store(log.js)).get(pointers[0]["name"])).data == large
    publisher = NATSPublisher(NATSConfig(servers=[log.url]))
    assert await publisher.connect()
    assert await publisher.publish(f"{PREFIX}.actions.paid", b"{}")
    assert not await publisher.publish(f"{PREFIX}.analysis.spraying", b"{}")
    await publisher.close()
    assert b'"others"' not in [data for data, _ in calls]
    refused = [each for each in caplog.messages if "does not permit" in each]
    assert len(refused) == 1  # the publisher's
    assert "analysis.spraying" in refused[0]


async def test_a_process_continues_with_the_attempts_of_another(log: Log) -> None:
    config = billing(log, max_retries=3, retry_delay_seconds=0.3)
    attempts: list[int] = []

    async def handler(context: ConsumerContext) -> HandlerResult:
        attempts.append(context.attempt)
        return ProcessingResult.RETRY if len(attempts) < 4 else SUCCESS

    async with running(config, handler):
        await log.publish(b"{}", "analysis.billing")
        await seen(attempts, 2)
    async with running(config, handler):
        await seen(attempts, 4)
        await log.settled("billing")
    assert attempts == [0, 1, 2, 3]


async def test_it_can_neither_read_other_events_nor_touch_another_consumer(log: Log) -> None:
    """The attacker has the password of `billing`."""
    events = log.names.events
    theirs = ConsumerConfig(
        durable_name="spraying", filter_subject=f"{PREFIX}.analysis.spraying", ack_wait=30
    )
    await log.js.add_consumer(events, theirs)
    await log.publish(b'"secret plan"', "analysis.spraying")
    before = await log.js.consumer_info(events, "spraying")
    own = f"{events}.billing.{PREFIX}.analysis.billing"
    async with connected(log.url) as client:
        for subject in (
            f"$JS.API.STREAM.MSG.GET.{events}",
            f"$JS.API.DIRECT.GET.{events}",
            f"$JS.API.DIRECT.GET.{events}.{PREFIX}.analysis.spraying",
            "$JS.API.STREAM.MSG.GET.OBJ_sahool-dlq-bodies",
            f"$JS.API.STREAM.MSG.GET.{log.names.dead_letters}",
            f"$JS.API.STREAM.MSG.GET.{log.names.attempts}",
            f"$JS.API.CONSUMER.CREATE.{events}",
            f"$JS.API.CONSUMER.CREATE.{events}.billing",
            f"$JS.API.CONSUMER.CREATE.{events}.spraying.{PREFIX}.analysis.spraying",
            f"$JS.API.CONSUMER.CREATE.{events}.spraying.{PREFIX}.analysis.billing",
            f"$JS.API.CONSUMER.CREATE.{log.names.dead_letters}.billing.{PREFIX}.analysis.billing",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{events}.spraying",
            f"$JS.API.CONSUMER.DELETE.{events}.spraying",
            f"$JS.API.CONSUMER.PAUSE.{events}.spraying",
            f"$JS.API.CONSUMER.RESET.{events}.spraying",
            f"$JS.API.CONSUMER.INFO.{events}.spraying",
            f"$JS.API.CONSUMER.MSG.NEXT.{events}.spraying",
            f"$JS.ACK.{events}.spraying.1.1.1.1.0",
            f"$JS.ACK._.h4sh.{events}.spraying.1.1.1.1.0",
            "$JS.API.STREAM.CREATE.MIRROR",
            f"$JS.API.STREAM.UPDATE.{events}",
            f"$JS.API.STREAM.PURGE.{events}",
            f"$JS.API.STREAM.SNAPSHOT.{events}",
            f"{PREFIX}.analysis.spraying",
            f"{PREFIX}.attempts.{events}.spraying.1",
            f"{PREFIX}.totals.spraying.spraying",
            f"{PREFIX}.dlq.spraying",
            f"{PREFIX}.redrive.published",
            f"{PREFIX}.triage.resolved",
        ):
            with pytest.raises(NotPermittedError):
                await client.request(subject, b"{}", timeout=5)
        for subject in (">", f"{PREFIX}.>", "_INBOX.>", "_INBOX.spraying.>", "$JS.ACK.>"):
            await client.subscribe(subject)
            with pytest.raises(NotPermittedError):
                await check_heard(client, subject)
        # what its own subject says, and the body says otherwise
        config = {"name": "billing", "durable_name": "billing", "ack_policy": "explicit"}
        all_ = {**config, "filter_subject": f"{PREFIX}.>"}
        for body in (
            {"stream_name": events, "config": all_},
            {"stream_name": events, "config": config},
            {"stream_name": events, "config": {**config, "filter_subjects": [f"{PREFIX}.>"]}},
            {"stream_name": events, "config": {**config, "name": "spraying"}},
            {"stream_name": events, "config": {**config, "durable_name": "spraying"}},
            {"stream_name": log.names.dead_letters, "config": all_},
        ):
            answer = await client.request(
                f"$JS.API.CONSUMER.CREATE.{own}", json.dumps(body).encode(), timeout=5
            )
            assert "error" in json.loads(answer.data), body
        # a request whose answer is to be another request
        await client.publish(
            f"$JS.API.STREAM.INFO.{events}", reply=f"$JS.API.CONSUMER.DELETE.{events}.spraying"
        )
        await client.flush()
    names = [info.name for info in await log.js.consumers_info(events)]
    assert names == ["spraying"]
    after = await log.js.consumer_info(events, "spraying")
    assert (after.config, after.num_pending, after.delivered) == (
        before.config,
        1,
        before.delivered,
    )


@pytest.mark.parametrize("log", [True], indirect=True)
async def test_on_a_separate_subject_no_other_service_writes_its_dead_letters(log: Log) -> None:
    async def handler(_: ConsumerContext) -> HandlerResult:
        return ProcessingResult.DEAD_LETTER

    async with running(billing(log, dlq_subject_per_service=True), handler):
        await log.publish(b"{}", "analysis.billing")
        await log.letters(1)
    message = await log.js.get_msg(log.names.dead_letters, 1)
    assert message.subject == f"{PREFIX}.dlq.billing.billing"
    async with connected(log.url) as client:
        for subject in ("dlq.spraying.spraying", "dlq.spraying.billing", "dlq.billing"):
            with pytest.raises(NotPermittedError):
                await client.request(f"{PREFIX}.{subject}", b"{}", timeout=5)
