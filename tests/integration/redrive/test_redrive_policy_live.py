"""The scheduled redrive on real servers: what the policy selects, and its explanation."""

import asyncio
import json
import uuid
from datetime import timedelta

from click.testing import CliRunner
from nats.aio.client import Client

from sahool_dlq.cli import _command
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import explain_policy, preview_redrive, transient_selection
from sahool_dlq.redrive.choose.schedule import handled_per_second
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from support.platform_log import environment, execute, failures, letter, publish, query
from support.redriving import FAST


def remember(settings: Settings, group: str, state: str, count: int, ago: str) -> None:
    """Past redrives of failures of this group with this outcome, an interval ago."""
    batch = str(uuid.uuid4())
    execute(
        settings,
        "INSERT INTO redrive_batches (id, trigger, requested_by, reason, selection, state, planned)"
        " VALUES (%s, 'automatic', 'x', 'x', '{}', 'done', 0)",
        batch,
    )
    execute(
        settings,
        "INSERT INTO redrives (id, failure_id, attempt, batch_id, group_id, subject, state,"
        " published_at, ended_at) SELECT gen_random_uuid(), id, 1, %s, group_id, 'x', %s,"
        " now() - %s::interval, now() - %s::interval FROM failed_events"
        " WHERE group_id = %s AND status = 'resolved' AND NOT EXISTS"
        " (SELECT FROM redrives WHERE failure_id = failed_events.id) LIMIT %s",
        *(batch, state, ago, ago, group, count),
    )


async def test_the_schedule_takes_what_pays_and_one_canary_of_what_does_not(
    settings: Settings, client: Client, monkeypatch
) -> None:
    settings = settings.model_copy(update=FAST)
    kinds = {"slow tile": 70, "no route": 70}
    bodies = [
        letter(n, error_type="TimeoutError", error_message=message)
        for message, count in kinds.items()
        for n in range(count)
    ]
    bodies.append(letter(500, error_type="TimeoutError", error_message="access denied"))
    bodies.append(letter(501, error_type="ValueError", error_message="bad"))
    await publish(client, settings, bodies)
    await drain_log(settings)
    groups = {row["error_message"]: row["group_id"] for row in failures(settings)}
    for message in kinds:  # most are over, and were redriven
        execute(
            settings,
            "UPDATE failed_events SET status = 'resolved' WHERE id IN (SELECT id FROM failed_events"
            " WHERE error_message = %s ORDER BY id LIMIT 64)",
            message,
        )
    remember(settings, groups["slow tile"], "succeeded", 20, "1 hour")
    remember(settings, groups["no route"], "failed_again", 60, "2 hours")

    async def planned() -> dict[str, int]:
        shown = await preview_redrive(settings, transient_selection(settings))
        return {group.group_id: group.count for group in shown.plan.groups}

    denied = groups["access denied"]
    assert await planned() == {groups["slow tile"]: 6, denied: 1}
    verdicts = {each.pending.cell.group_id: each for each in explain_policy(settings)}
    assert {group: each.verdict.kind for group, each in verdicts.items()} == {
        groups["slow tile"]: "redrive",
        groups["no route"]: "wait",
        denied: "redrive",
    }
    assert verdicts[denied].belief == (1, 9, 0)  # no transient error, whatever its type says
    assert "stopped, the next canary is due" in verdicts[groups["no route"]].verdict.why

    execute(settings, "UPDATE redrives SET ended_at = ended_at - interval '1 day'")
    assert await planned() == {groups["slow tile"]: 6, groups["no route"]: 1, denied: 1}
    execute(settings, "UPDATE failed_events SET dlq_timestamp = now() WHERE status = 'pending'")
    resting = settings.model_copy(update={"redrive_delay_seconds": 3_000.0})
    shown = await preview_redrive(resting, transient_selection(resting))
    assert [group.count for group in shown.plan.groups] == [1]  # the canary alone does not rest

    for name, value in environment(settings, COLUMNS="200").items():
        monkeypatch.setenv(name, value)
    printed = CliRunner().invoke(_command(), ["policy"], catch_exceptions=False)
    assert "one canary" in printed.stdout
    arguments = ["policy", "show", "--group", groups["no route"], "--json"]
    told = json.loads(CliRunner().invoke(_command(), arguments, catch_exceptions=False).stdout)
    assert [(g["verdict"], g["pending"]) for g in told["groups"]] == [("canary", 6)]

    run = ["policy", "run", "--by", "cron", "--json"]
    done = await asyncio.to_thread(CliRunner().invoke, _command(), run, catch_exceptions=False)
    [report] = json.loads(done.stdout)
    assert (done.exit_code, report["planned"], report["state"]) == (0, 1, "done")
    by = "SELECT requested_by, trigger FROM redrive_batches WHERE id = %s"
    [batch] = query(settings, by, report["batch_id"])
    assert batch == {"requested_by": "cron", "trigger": "automatic"}
    refused = CliRunner().invoke(_command(), ["policy", "run", "--worth", "0.3"])
    assert (refused.exit_code, "only --by goes with it" in refused.output) == (2, True)


async def test_the_budget_follows_what_the_services_handled_in_the_last_hour(
    settings: Settings,
) -> None:
    for started, service, handled, ago in (
        ("10 hours", "ndvi", 100_000, "50 minutes"),
        ("10 hours", "ndvi", 103_000, "0 minutes"),  # 3,000 in 50 minutes
        ("100 seconds", "ndvi", 500, "0 seconds"),  # a second process, seen once
        ("10 hours", "idle", 70, "2 hours"),  # too old
    ):
        execute(
            settings,
            "INSERT INTO service_totals VALUES ((SELECT count(*) FROM service_totals),"
            " now() - %s::interval, %s, 'c', date_trunc('hour', now()) - %s::interval,"
            " %s, 0, 0, 0, 0)",
            *(ago, service, started, handled),
        )
    execute(
        settings,
        "UPDATE service_totals SET started_at = published_at - interval '100 seconds'"
        " WHERE handled = 500",
    )
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        rates = handled_per_second(connection)
    assert set(rates) == {"ndvi"}
    assert abs(rates["ndvi"] - (1 + 5)) < 0.1


async def test_a_backtest_replays_what_the_lake_holds(
    settings: Settings, client: Client, monkeypatch
) -> None:
    from sahool_dlq.deadletter.envelope.encode import encode_case_event
    from sahool_dlq.deadletter.ids import redrive_id

    await publish(client, settings, [letter(n, error_type="TimeoutError") for n in range(3)])
    await drain_log(settings)
    rows = failures(settings)
    js = client.jetstream()
    for row, kinds in zip(rows, (["published", "succeeded"], ["published"], []), strict=True):
        for kind in kinds:
            failure = str(row["id"])
            body = encode_case_event(
                failure_id=failure,
                at=row["published_at"] + timedelta(minutes=len(kind)),
                actor="x",
                redrive_id=redrive_id(failure, 1),
                attempt=1,
            )
            await js.publish(settings.subjects.redrive(kind), body)
    again = json.loads(letter(9, error_type="TimeoutError"))
    failed = str(rows[1]["id"])
    again["original_headers"] |= {
        "Dlq-Redrive-Id": redrive_id(failed, 1),
        "Dlq-Redrive-Of": failed,
        "Dlq-Redrive-Attempt": "1",
    }
    await publish(client, settings, [json.dumps(again).encode()])
    await drain_log(settings)
    assert query(settings, "SELECT count(*) AS n FROM failed_events WHERE status = 'resolved'") == [
        {"n": 1}
    ]
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)

    def dlq(*arguments: str) -> str:
        return CliRunner().invoke(_command(), arguments, catch_exceptions=False).stdout

    report = json.loads(dlq("policy", "backtest", "--json"))
    assert (report["redrives"], report["successes"], report["taken"]) == (2, 1, 2)
    stern = json.loads(dlq("policy", "backtest", "--worth", "1", "--json"))
    assert (stern["canaries"], stern["taken"]) == (1, 1)  # never worth it: one canary
    assert "The policy on 2 redrives that were" in dlq("policy", "backtest")
