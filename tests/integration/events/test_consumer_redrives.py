"""Redrives in a consumer: which ones it handles, and what it reports."""

import json

from sahool_dlq.deadletter import ids
from support.consumer_log import RETRY, SUCCESS, Calls, Log, running


def redrive_headers(log: Log, consumer: str, **changes: str) -> dict[str, str]:
    root = ids.failure_id("EVENTS", 1, 2, "ndvi")
    return {
        "Dlq-Redrive-Id": ids.redrive_id(root, 1),
        "Dlq-Redrive-Of": root,
        "Dlq-Redrive-Attempt": "1",
        "Dlq-Redrive-For": f"{log.names.events}/{consumer}",
        **changes,
    }


async def test_a_redrive_for_another_is_acknowledged_and_skipped(log: Log) -> None:
    calls = Calls(ValueError("never called"))
    async with running(log.config(), calls) as consumer:
        await log.publish({}, headers=redrive_headers(log, "other"))
        await log.settled()
        assert consumer._subscriptions[0].counters.skipped == 1
    assert calls == []
    await log.letters(0)


async def test_a_redrive_for_us_is_reported_before_it_is_acknowledged(log: Log) -> None:
    calls = Calls(SUCCESS)
    subscription = await log.client.subscribe(f"{log.prefix}.redrive.>")
    async with running(log.config(), calls):
        headers = redrive_headers(log, "ndvi")
        await log.publish({}, headers=headers)
        told = await subscription.next_msg(timeout=30)
        await log.settled()
    assert told.subject == f"{log.prefix}.redrive.succeeded"
    news = json.loads(told.data)
    assert news["failure_id"] == headers["Dlq-Redrive-Of"] == calls[0].redrive_of
    assert news["redrive_id"] == headers["Dlq-Redrive-Id"]
    assert (news["attempt"], news["actor"]) == (1, "ndvi-service")
    assert news["consumer"] == f"{log.names.events}/ndvi"


async def test_a_redrive_instead_of_another_is_handled_and_reported_for_that_one(log: Log) -> None:
    calls = Calls(SUCCESS)
    subscription = await log.client.subscribe(f"{log.prefix}.redrive.>")
    async with running(log.config(), calls):
        headers = redrive_headers(log, "other")
        headers["Dlq-Redrive-Instead-Of"] = headers.pop("Dlq-Redrive-For")
        await log.publish({}, headers=headers)
        told = await subscription.next_msg(timeout=30)
        await log.settled()
    news = json.loads(told.data)
    assert news["consumer"] == f"{log.names.events}/other"
    assert news["reason"] == f"redirected, and handled by {log.names.events}/ndvi"
    assert len(calls) == 1


async def test_a_success_that_can_not_be_told_is_acknowledged_all_the_same(log: Log) -> None:
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        await log.js.delete_stream(log.names.dead_letters)
        await log.publish({}, headers=redrive_headers(log, "ndvi"))
        await log.settled()
    assert len(calls) == 1


async def test_a_redrive_that_fails_again_says_whose_it_was(log: Log) -> None:
    headers = redrive_headers(log, "ndvi")
    async with running(log.config(), Calls(RETRY)):
        await log.publish({}, headers=headers)
        [letter] = await log.letters(1)
    assert letter["redrive_of"] == headers["Dlq-Redrive-Of"]
    assert letter["redrive_id"] == headers["Dlq-Redrive-Id"]
    assert letter["redrive_attempt"] == 1
    assert letter["failure_id"] != letter["redrive_of"]


async def test_forged_redrive_headers_do_not_end_the_connection(log: Log) -> None:
    calls = Calls(SUCCESS)
    long = "x" * 30_000  # the server takes 64 KiB of headers
    forged = redrive_headers(log, "ndvi", **{"Dlq-Redrive-Id": long, "Dlq-Redrive-Of": long})
    async with running(log.config(), calls) as consumer:
        await log.publish({}, headers=forged)
        await log.publish({}, headers=redrive_headers(log, "ndvi", **{"Dlq-Redrive-Attempt": "x"}))
        await log.settled()
        assert consumer.is_connected
    assert len(calls) == 2
    await log.letters(0)
