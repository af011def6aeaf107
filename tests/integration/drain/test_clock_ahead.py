"""A time from a clock that is ahead is replaced by the server's time."""

import json
from datetime import UTC, datetime, timedelta

from nats.aio.client import Client

from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import explain_policy, preview_redrive, transient_selection
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support.platform_log import failures, in_lake, letter, publish
from support.redriving import quick, rows

AHEAD = "2106-02-07T06:28:15Z"


async def test_it_is_stored_with_the_servers_time_and_taken_by_the_schedule(
    settings: Settings, client: Client
) -> None:
    times = dict.fromkeys(("first_attempt_at", "last_attempt_at", "dlq_timestamp"), AHEAD)
    await publish(client, settings, [letter(0, error_type="TimeoutError", **times)])
    await drain_log(settings)
    [row] = failures(settings)
    [kept] = in_lake(settings).rows(named=True)
    for name in times:
        assert row[name] == kept[name] == kept["published_at"]
        assert f"{name} is ahead of the server's time: {AHEAD}" in row["parse_error"]
    assert row["parse_error"] == kept["parse_error"]
    assert row["clamped"] == kept["clamped"] == ",".join(times)
    settings = quick(settings)
    scheduled = await preview_redrive(settings, transient_selection(settings))
    assert scheduled.plan.count == 1
    recent = Selection(since=datetime.now(UTC) - timedelta(hours=1), until=datetime.now(UTC))
    assert (await preview_redrive(settings, recent)).plan.count == 1
    assert [each.pending.failure_count for each in explain_policy(settings)] == [1]
    [age] = rows(settings, "SELECT extract(epoch FROM now() - dlq_timestamp) FROM failed_events")
    assert 0 <= age[0] < 60


async def test_a_decision_of_such_a_clock_closes_at_the_servers_time(
    settings: Settings, client: Client
) -> None:
    origin = {
        "original_stream": "E",
        "original_sequence": 1,
        "original_timestamp_ns": 1,
        "consumer_name": "c",
    }
    await publish(client, settings, [letter(0, **origin)])
    await drain_log(settings)
    [row] = failures(settings)
    news = {"failure_id": str(row["id"]), "at": AHEAD, "actor": "a", "reason": "by hand"}
    await publish(client, settings, [json.dumps(news).encode()], "triage.resolved")
    await drain_log(settings)
    [closed] = in_lake(settings, "case_events").rows(named=True)
    assert closed["at"] == closed["published_at"]
    assert json.loads(closed["body"])["at"] == AHEAD
    assert failures(settings)[0]["resolved_at"] == closed["at"]
