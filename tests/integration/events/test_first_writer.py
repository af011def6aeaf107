"""A message that uses a failure's id before its dead letter replaces nothing, and is detected."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

from sahool_dlq.deadletter import ids
from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import ConsumerContext, NATSConsumer, ProcessingResult, Retry
from sahool_dlq.events.outbox import OwnId, OwnIds, publish_dead_letter
from sahool_dlq.events.results import HandlerResult
from sahool_dlq.events.same import SameLetters
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.stored import last_message, stored_message
from support.consumer_log import Log, opened, running, until
from support.servers import pause

FORGED = b'{"forged": true}'


async def first_attempt_at(log: Log) -> str:
    """What everybody may read who may read the attempts of an event that waits for its retry."""
    found: dict[str, Any] = {}

    async def is_kept() -> bool:
        subject = log.names.subjects.attempt(log.names.events, "ndvi", 1)
        message = await last_message(log.client, log.names.attempts, subject)
        found.update(json.loads(message.data) if message else {})
        return bool(found)

    await until(is_kept)
    return str(found["first_at"])


async def test_a_forged_dead_letter_does_not_take_the_place_of_the_real_one(log: Log) -> None:
    told: list[str] = []
    may_fail = asyncio.Event()

    async def handler(context: ConsumerContext) -> HandlerResult:
        if context.attempt == 0:
            return Retry(delay_seconds=0.2)
        await may_fail.wait()
        raise ValueError("the real failure")

    consumer = NATSConsumer(log.config(max_retries=1), lambda kind, _: told.append(kind))
    assert await consumer.connect()
    await consumer.subscribe(handler)
    consumer.start_in_background()
    try:
        await log.publish({"n": 1})
        message_id = f"{await failure_id(log)}-{await first_attempt_at(log)}"
        headers = {"Nats-Msg-Id": message_id}
        await log.js.publish(f"{log.prefix}.dlq.ndvi", FORGED, headers=headers)
        may_fail.set()
        forged, real = await log.stored(2)
        await log.settled()
        [subscription] = consumer._subscriptions
        assert (subscription.counters.dead_lettered, subscription.counters.ids_taken) == (1, 1)
    finally:
        await consumer.close()
    assert forged.data == FORGED
    assert json.loads(real.data or b"")["error_message"] == "the real failure"
    assert (real.headers or {})["Nats-Msg-Id"].startswith(f"{message_id}-")
    assert told == ["dead_letter_id_taken"]


async def failure_id(log: Log) -> str:
    event = await stored_message(log.client, log.names.events, 1)
    assert event is not None
    return ids.failure_id(log.names.events, 1, event.timestamp_ns, "ndvi")


async def test_our_own_try_that_was_not_answered_stays_one_message(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    server = nats_server_factory()

    async def handler(context: ConsumerContext) -> ProcessingResult:
        pause(server.pid)  # what is sent now, it receives when it continues
        raise ValueError("bad")

    async with opened(server.url) as log, running(log.config(), handler) as consumer:
        await log.publish({"n": 1})
        [subscription] = consumer._subscriptions

        async def has_failed_once() -> bool:
            return not subscription.is_log_writable

        try:
            await until(has_failed_once, 30)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await log.letters(1)
        await log.settled()
        assert (subscription.counters.dead_lettered, subscription.counters.ids_taken) == (1, 0)


async def test_a_try_under_the_new_id_that_is_repeated_stays_one_message(log: Log) -> None:
    fields = {"failure_id": "f", "first_attempt_at": "t", "original_headers": {}}
    subject, own_id = f"{log.prefix}.dlq.ndvi", OwnId()
    await log.js.publish(subject, FORGED, headers={"Nats-Msg-Id": "f-t"})
    for _ in range(2):
        await publish_dead_letter(log.client, subject, fields, b"{}", True, own_id)
    await publish_dead_letter(log.client, subject, fields, b"{}", True)  # who does not look
    assert len(await log.stored(2)) == 2


READERS = """
authorization {
  users: [
    { user: "reader", password: "secret" }
    { user: "blind", password: "secret", permissions: { publish: { deny: "$JS.API.STREAM.MSG.>" }}}
  ]
}
"""


async def test_who_may_read_the_log_knows_its_own_dead_letter_of_before_it_died(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    server = nats_server_factory(config=READERS)
    url = server.url.replace("nats://", "nats://{}:secret@")
    when = "2026-01-02T03:04:05+00:00"
    fields = {"failure_id": "f", "first_attempt_at": when, "original_headers": {}}
    fields |= {"last_attempt_at": when, "dlq_timestamp": when}
    async with opened(url.format("reader")) as log:
        subject = f"{log.prefix}.dlq.ndvi"
        names = log.names.dead_letters

        async def written(user: str, changes: dict[str, str], is_json: bool = True) -> int:
            """Written by a new process; the number of messages in the log after it."""
            async with connected(url.format(user)) as client:
                letter = fields | changes
                own_id = OwnIds(SameLetters(client).is_ours).of(letter)
                await publish_dead_letter(client, subject, letter, b"{}", is_json, own_id)
            return (await log.js.stream_info(names)).state.messages

        assert [await written("reader", {}) for _ in range(2)] == [1, 1]
        assert await written("reader", {"error_message": "another"}) == 2
        assert await written("reader", {}, is_json=False) == 3
        assert await written("blind", {}) == 4  # it cannot know, and keeps both

        # Found without an advisory: it says when somebody looked, which is another time each time.
        times = [f"2026-01-0{day}T00:00:00+00:00" for day in (3, 4)]
        found = [{"failure_id": "g", "last_attempt_at": at, "dlq_timestamp": at} for at in times]
        assert [await written("reader", each) for each in found] == [5, 5]
        assert await written("reader", found[1] | {"error_message": "another"}) == 6
