"""Redrives of events that are too old are parked with their age; others keep their TTL."""

import asyncio
import json
import subprocess
from typing import Any

import pytest
from click.testing import CliRunner
from nats.aio.client import Client
from nats.js.api import StreamConfig

from sahool_dlq.cli import _command
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.redrive import (
    plan_redrive,
    preview_redrive,
    redrive,
    run_redrive,
    transient_selection,
)
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.settings import Settings
from support.platform_log import DLQ, ROOT, environment, execute, letter
from support.platform_log import publish as publish_letters
from support.redriving import (
    TIMEOUTS,
    Service,
    dead_letters,
    fail,
    quick,
    redrive_timeouts,
    rows,
    seen,
)


async def with_ttl(settings: Settings, client: Client, *ttls: str) -> None:
    """Publish an event for each TTL; none where it is empty."""
    js = client.jetstream(timeout=60)
    config = (await js.stream_info(settings.events_stream)).config
    config.allow_msg_ttl = True
    await js.update_stream(config)
    for number, ttl in enumerate(ttls):
        body = json.dumps({"event_id": f"e{number}"}).encode()
        where = f"{settings.subject_prefix}.analysis.ndvi"
        await js.publish(where, body, headers={"Nats-TTL": ttl} if ttl else None)


async def test_an_event_lives_as_long_as_its_producer_wanted(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow")).running() as service:
        await with_ttl(settings, client, "2", "1h", "never")
        await dead_letters(client, settings, 3)

        async def is_over() -> bool:
            state = (await client.jetstream().stream_info(settings.events_stream)).state
            return state.messages == 2  # by the server's own reckoning

        async with asyncio.timeout(30):
            while not await is_over():
                await asyncio.sleep(0.1)
        service.error = None
        service.seen.clear()
        report = await redrive_timeouts(quick(settings))
        await seen(service, 2)
    assert report is not None
    assert (report.state, report.outcomes) == ("done", {"too_late": 1, "succeeded": 2})
    [reason] = report.reasons["too_late"]
    assert reason.endswith(" old, and its producer allows 2 seconds (Nats-TTL: 2)")
    by_event = {json.loads(each.data)["event_id"]: each.headers for each in service.seen}
    assert 3_000 < int(by_event["e1"]["Nats-TTL"]) < 3_600
    assert by_event["e2"]["Nats-TTL"] == "never"
    found = rows(settings, "SELECT status, resolution_notes FROM failed_events ORDER BY event_id")
    assert found == [("parked", reason), ("resolved", None), ("resolved", None)]
    in_lake = query(settings, "SELECT outcome FROM redrives ORDER BY outcome").rows()
    assert in_lake == [("succeeded",), ("succeeded",), ("too_late",)]
    assert query(settings, "SELECT status FROM cases ORDER BY status").rows() == [
        ("parked",),
        ("resolved",),
        ("resolved",),
    ]
    last = (await client.jetstream().stream_info(settings.events_stream)).state.last_seq
    assert last == 3 + 2


async def test_a_redirect_to_a_stream_that_takes_no_ttl_says_so_and_spends_nothing(
    settings: Settings, client: Client
) -> None:
    to = f"{settings.subject_prefix}-other.ndvi"
    settings = quick(settings, redrive_subjects=[to])
    other = StreamConfig(name=f"OTHER_{settings.subject_prefix}", subjects=[to])
    await client.jetstream().add_stream(other)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await with_ttl(settings, client, "1h", "never", "")
        await dead_letters(client, settings, 3)
        await drain_log(settings)
        service.error = None
        shown = await preview_redrive(settings, TIMEOUTS, redirect_to=to)
        [each] = shown.reached.unreached
        why = f"OTHER_{settings.subject_prefix} does not accept an event with a Nats-TTL: set"
        assert (each.consumer, each.count) == (to, 2)
        assert each.reason.startswith(why)
        report = await redrive(
            settings,
            TIMEOUTS,
            trigger="manual",
            requested_by="ana",
            reason="x",
            redirect_to=to,
        )
    assert report is not None
    assert report.outcomes["cancelled"] == 2
    assert list(report.reasons["cancelled"]) == [each.reason]
    assert (await client.jetstream().stream_info(other.name)).state.messages == 1
    found = rows(settings, "SELECT status, redrive_count FROM failed_events ORDER BY event_id")
    assert found[:2] == [("pending", 0)] * 2

    other.allow_msg_ttl = True
    await client.jetstream().update_stream(other)
    assert not (await preview_redrive(settings, TIMEOUTS, redirect_to=to)).reached.unreached


OLD = 1_000_000_000_000_000_000  # nanoseconds: September 2001


async def old_letters(settings: Settings, client: Client, count: int) -> None:
    """Dead letters of events that were stored long ago."""
    origin = {
        "original_stream": settings.events_stream,
        "original_timestamp_ns": OLD,
        "original_subject": f"{settings.subject_prefix}.analysis.ndvi",
        "consumer_name": "ndvi",
        "error_type": "TimeoutError",
    }
    bodies = [letter(n, **origin, original_sequence=n + 1) for n in range(count)]
    await publish_letters(client, settings, bodies)


async def test_what_is_older_than_asked_for_is_parked_and_says_nothing_of_its_group(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow")).running() as service:
        await old_letters(settings, client, 2)
        await fail_more(settings, client, service, 3)
        service.error = None
        order = Order("manual", "ana", "again", max_age_seconds=86_400)
        planned = await plan_redrive(quick(settings), TIMEOUTS, order)
        assert planned is not None
        batch, shown = planned
        assert batch.max_age_seconds == 86_400
        assert sum(shown.refused.values()) in (0, 2)  # of what failed just now it may not know
        report = await run_redrive(quick(settings), batch.id)
    assert (report.state, report.outcomes) == ("done", {"too_late": 2, "succeeded": 3})
    assert all(
        " days old, and 24 hours are the most" in reason for reason in report.reasons["too_late"]
    )
    parked = rows(settings, "SELECT count(*) FROM failed_events WHERE status = 'parked'")
    assert parked == [(2,)]


async def fail_more(settings: Settings, client: Client, service: Service, count: int) -> None:
    before = (await client.jetstream().stream_info(settings.dlq_stream)).state.messages
    js = client.jetstream(timeout=60)
    for number in range(count):
        where = f"{settings.subject_prefix}.analysis.ndvi"
        await js.publish(where, json.dumps({"event_id": f"e{number}"}).encode())
    await dead_letters(client, settings, before + count)
    service.seen.clear()


async def test_the_setting_holds_for_the_schedule_and_a_dry_run_counts_them(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings, redrive_max_age_seconds=3_600.0)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await fail(settings, client, service, 1)
        await drain_log(settings)
        execute(settings, "UPDATE failed_events SET first_attempt_at = now() - interval '3 hours'")
        shown = await preview_redrive(settings, TIMEOUTS)
        assert shown.refused == {"older than 60 minutes": 1}
        assert shown.expected_successes == 0
        wider = await preview_redrive(settings, TIMEOUTS, max_age_seconds=86_400)
        assert wider.refused == {}
        service.error = None
        # The event itself is new, which its raw dead letter says: what counts.
        report = await redrive_timeouts(settings, selection=transient_selection(settings))
    assert report is not None
    assert report.outcomes == {"succeeded": 1}
    assert rows(settings, "SELECT max_age_seconds FROM redrive_batches") == [(3_600.0,)]


@pytest.mark.parametrize("age", ["", "soon", "0d", "9999999999999w"])
def test_an_invalid_age_is_refused(age: str) -> None:
    arguments: list[Any] = ["redrive", "--type", "E", "--max-age", age]
    result = CliRunner().invoke(_command(), arguments)
    assert result.exit_code == 2
    assert "is not a duration: write 24h or 7d." in result.output


async def test_the_flag_of_the_command_is_kept_with_the_batch(
    settings: Settings, client: Client
) -> None:
    await old_letters(settings, client, 1)
    command = [*DLQ, "redrive", "--type", "TimeoutError", "--max-age", "1d", "--json"]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["outcomes"] == {"too_late": 1}
    assert rows(settings, "SELECT max_age_seconds FROM redrive_batches") == [(86_400.0,)]
