"""What runs of redrives show: state, tasks, log lines, and who asked for what."""

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Event
from typing import Any

import nats
import pytest
from prefect_api import Drained, Platform, letter_of, until

from sahool_dlq.events import ConsumerContext, NATSConsumer, NATSConsumerConfig, ProcessingResult

pytestmark = pytest.mark.xdist_group("prefect")  # one Prefect server is enough


def publish(platform: Platform, *letters: bytes) -> None:
    """Dead letters, as services send them."""

    async def send() -> None:
        connection = await nats.connect(platform.settings.nats_url.get_secret_value())
        for letter in letters:
            await connection.jetstream().publish("sahool.dlq.odd", letter)
        await connection.close()

    with ThreadPoolExecutor(1) as other:  # if a browser runs, this thread has a loop already
        other.submit(lambda: asyncio.run(send())).result()


STOPS = "Stop{this}Error"  # as other languages name anonymous functions


def odd(number: int, error: str, **changes: Any) -> bytes:
    """One dead letter for a subject that no stream captures: its redrive ends at once."""
    return letter_of(number, original_subject="odd.soil", error_type=error, **changes)


def test_a_redrive_that_stops_itself_has_failed_and_says_what_it_did(
    platform_with_worker: Platform, drained: Drained
) -> None:
    platform = platform_with_worker
    publish(platform, odd(101, STOPS), odd(102, STOPS))
    given = {"reason": "the cause is mended", "your_name": "ann"}
    started = platform.start(
        "redrive", failures={"error_type": STOPS}, delivery={"own_copy": True}, **given
    )
    run = platform.ended(started)
    assert (run["state_type"], run["state"]["name"]) == ("FAILED", "Failed")
    assert run["state"]["message"] == "Stopped: none tried, 1 unroutable, 1 left as they were"
    assert run["name"] == "redrive: stopped, none tried"
    assert platform.tasks(started) == {
        "Drain what came before": "0 messages drained",  # the second time; 2 the first
        "Plan": "2 redrives of 1 group",
        f"Ramp {STOPS} in ndvi": "none tried, 1 unroutable, 1 left as they were",
        "Settle: drain the outcomes": "2 messages drained",
    }
    ramp = [task for task in platform.task_runs(started) if task["name"].startswith("Ramp")]
    assert [task["state_type"] for task in ramp] == ["FAILED"]
    log = platform.log(started)
    assert (20, "1 unroutable: no stream captures its subject") in [
        (level, said) for level, logger, said in log if logger == "sahool_dlq.redrive.publish.ramp"
    ]
    assert not [said for _, _, said in log if "Traceback" in said]
    errors = [said for level, _, said in log if level > 30]
    assert all(said.startswith("Finished in state Failed('") for said in errors)
    outcomes = json.loads(platform.artifacts(started)["redrives"]["data"])
    assert {row["outcome"]: row["events"] for row in outcomes} == {
        "unroutable": 1,
        "cancelled": 1,
    }


def test_a_dry_run_shows_the_plan_and_touches_nothing(
    platform_with_worker: Platform, drained: Drained
) -> None:
    platform = platform_with_worker
    started = platform.start("dry-run", failures={"group": drained.group_id})
    run = platform.ended(started)
    said = r"Would publish 3 redrives of 1 group; about "
    assert run["state"]["message"].startswith(said)
    plan = platform.artifacts(started)["redrive-plan"]["data"]
    assert "**3 redrives of 1 group**" in plan
    assert r"\[x\](javascript:x)" in plan
    assert (
        platform.ended(platform.start("dry-run", failures={"service": "none"}))["state"]["message"]
        == "Nothing to redrive"
    )


REPLAYED, REPLAYED_STREAM = "odd.replayed", "REPLAYED"


@contextmanager
def handling(platform: Platform) -> Iterator[list[bytes]]:
    """A service that has handled two events, on a stream of its own; what it was given."""
    got: list[bytes] = []
    is_over, url = Event(), platform.settings.nats_url.get_secret_value()

    async def handle(context: ConsumerContext) -> ProcessingResult:
        got.append(context.data)
        return ProcessingResult.SUCCESS

    async def work(are_there: Future[None]) -> None:
        connection = await nats.connect(url)
        js = connection.jetstream()
        await js.add_stream(name=REPLAYED_STREAM, subjects=[REPLAYED])
        config = NATSConsumerConfig(
            servers=[url], name="replayed", consumer_name="replayed", stream_name=REPLAYED_STREAM
        )
        consumer = NATSConsumer(config)
        assert await consumer.connect()
        await consumer.subscribe(handle, REPLAYED)
        consumer.start_in_background()
        for number in range(2):
            await js.publish(REPLAYED, b'{"number": %d}' % number)
        while not is_over.is_set():
            await asyncio.sleep(0.05)
            if len(got) == 2 and not are_there.done():
                are_there.set_result(None)
        await consumer.close()
        await js.delete_stream(REPLAYED_STREAM)
        await connection.close()

    with ThreadPoolExecutor(1) as other:
        are_there = Future[None]()
        running = other.submit(lambda: asyncio.run(work(are_there)))
        try:
            are_there.result(60)
            yield got
        finally:
            is_over.set()
            running.result()


def test_a_replay_shows_its_plan_and_then_gives_the_events_to_the_consumer_again(
    platform_with_worker: Platform, drained: Drained
) -> None:
    platform = platform_with_worker
    given = {
        "consumer": f"{REPLAYED_STREAM}/replayed",
        "reason": "rounded",
        "your_name": "ann",
        "events": {"where": "data.number >= 0"},
    }
    with handling(platform) as got:
        started = platform.start("replay", plan_only=True, **given)
        run = platform.ended(started)
        assert run["state"]["message"] == "Would publish 2 events for REPLAYED/replayed"
        assert f"- {REPLAYED}" in platform.artifacts(started)["redrive-plan"]["data"]
        assert len(got) == 2
        run = platform.ended(platform.start("replay", **given))
        assert run["state"]["message"] == "Replayed 2: 2 tried, all succeeded"
    assert sorted(got) == sorted(2 * [b'{"number": 0}', b'{"number": 1}'])


def test_a_selection_of_everything_is_refused_in_one_sentence(
    platform_with_worker: Platform,
) -> None:
    run = platform_with_worker.ended(platform_with_worker.start("dry-run"))
    assert run["state_type"] == "FAILED"
    assert run["state"]["message"].startswith("Say what to redrive or decide on: ")
    log = platform_with_worker.log(run["id"])
    assert not [said for _, _, said in log if "Traceback" in said]


def test_a_run_that_waits_for_an_approval_is_no_error(
    platform_with_worker: Platform, drained: Drained
) -> None:
    platform = platform_with_worker
    publish(platform, *(odd(200 + n, "WaitError", error_message=f"why {n}") for n in range(3)))
    given = {"reason": "asked for by farmers", "your_name": "ann"}
    started = platform.start("redrive", failures={"error_type": "WaitError"}, **given)
    assert platform.in_state(started, "PAUSED")["state"]["name"] == "Suspended"
    log = platform.log(started)
    assert [said for level, _, said in log if level > 20] == []
    assert log[-1][2] == "Waiting for approval; this process ends now."
    plan = platform.artifacts(started)["redrive-plan"]["data"]
    assert "**3 redrives of 1 group**, requested by **ann**: asked for by farmers" in plan
    assert "- why 0" in plan
    answer = {"approve": False, "decided_by": "bob", "comment": "not today"}
    platform.call(f"/flow_runs/{started}/resume", {"run_input": answer})
    ended = platform.ended(started)
    assert (ended["state"]["name"], ended["state"]["message"]) == (
        "Rejected",
        "Rejected by bob: not today",
    )
    assert platform.tasks(started)["Approve"] == "Rejected by bob: not today"


def test_groups_that_escalate_are_one_event_and_reported_once(
    platform_with_worker: Platform, drained: Drained
) -> None:
    """Alerts are evaluated once for it, not for each group and each build."""
    platform = platform_with_worker
    now = datetime.now(UTC).isoformat()
    letters = [
        odd(300 + n, f"Spike{n % 2}Error", dlq_timestamp=now, last_attempt_at=now)
        for n in range(24)
    ]
    publish(platform, *letters)
    platform.ran("drain-dlq")
    until(lambda: _spikes(platform, now) or None, "the event")
    built = platform.ran("build-marts")
    # By their states, which the page shows: both are new.
    found = r"; \d+ groups, ([2-9]|\d\d+) to look at, \d+ incidents?$"
    assert re.search(found, built["state"]["message"])
    (event,) = _spikes(platform, now)
    told = {group["error_class"] for group in event["payload"]["groups"]}
    assert told == {"Spike0Error", "Spike1Error"}
    assert event["resource"]["prefect.resource.name"] == "2 groups"
    runs = [
        run
        for run in platform.runs("alert")
        if (run["created_by"] or {}).get("type") == "AUTOMATION"
        and datetime.fromisoformat(run["created"]) > datetime.fromisoformat(now)
    ]
    assert len(runs) <= 1


def _spikes(platform: Platform, since: str) -> list[dict[str, Any]]:
    """Other tests of this platform emit such events too."""
    wanted = {"event": {"name": ["dlq.groups.escalating"]}, "occurred": {"since": since}}
    asked = {"filter": wanted, "limit": 50}
    found: list[dict[str, Any]] = platform.call("/events/filter", asked)["events"]
    return found
