"""`dlq resolve --in-version` on real servers: later failures are judged by their version."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import nats
import pytest
from click.testing import CliRunner, Result

from sahool_dlq.cli import _command
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.settings import Settings
from sahool_dlq.sqlfiles import read_sql
from support.platform_log import environment, execute, in_lake, letter, publish, query

Run = Callable[..., Result]


@pytest.fixture
def dlq(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name, value in environment(settings, COLUMNS="200").items():
        if name.startswith("DLQ_") or name == "COLUMNS":
            monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(_command(), arguments, catch_exceptions=False)

    return run


def failing(settings: Settings, number: int, version: str) -> None:
    """A new failure of the one group, now."""

    async def fail() -> None:
        connection = await nats.connect(settings.nats_url.get_secret_value())
        await ensure_streams(connection.jetstream(), settings.stream_names)
        now = datetime.now(UTC).isoformat()
        times = dict.fromkeys(("first_attempt_at", "last_attempt_at", "dlq_timestamp"), now)
        body = letter(number, consumer_version=version, **times)
        await publish(connection, settings, [body])
        await connection.close()
        await drain_log(settings)

    asyncio.run(fail())


def group_of(dlq: Run) -> dict[str, Any]:
    [group] = json.loads(dlq("groups", "--json").stdout)["groups"]
    return dict(group)


def regressed(settings: Settings) -> list[dict[str, Any]]:
    """What the query for operators finds after the next build of the marts."""
    build_all_marts(settings)
    return query(settings, read_sql("monitoring/groups_regressed.sql"))


def test_a_failure_of_an_older_version_is_known_and_of_a_newer_one_a_regression(
    dlq: Run, settings: Settings
) -> None:
    for number in range(2):
        failing(settings, number, "2.3")
    group = group_of(dlq)["group_id"]

    refused = dlq("resolve", "--service", "x", "--in-version", "2.4", "--reason", "repaired")
    assert (refused.exit_code, "give --group" in refused.stderr) == (1, True)
    resolve = ("resolve", "--group", group, "--in-version", "2.4", "--reason", "repaired")
    said = dlq(*resolve, "--by", "ana").stdout
    assert "2 failures are resolved now" in said
    assert "counts as repaired in 2.4" in said
    assert (group_of(dlq)["state"], regressed(settings)) == ("resolved", [])

    told = in_lake(settings, "case_events").select("kind", "resolved_in_version").rows()
    assert told == [("triage.resolved", "2.4")] * 2
    [planned] = json.loads(dlq("audit", "--action", "triage.resolved", "--json").stdout)["audit"][
        1:
    ]
    assert planned["detail"]["in_version"] == "2.4"
    assert "2 failures  in version 2.4" in dlq("audit").stdout

    failing(settings, 2, "2.3")
    assert group_of(dlq)["state"] == "fixed"
    assert regressed(settings) == []
    assert "fixed in 2.4" in dlq("groups").stdout

    failing(settings, 3, "2.5")
    assert (group_of(dlq)["state"], group_of(dlq)["regressed_in_version"]) == ("regressed", "2.5")
    assert [row["returned_count"] for row in regressed(settings)] == [1]
    shown = dlq("show", group).stdout
    assert "regressed in 2.5" in shown
    history = dlq("show", query(settings, _RESOLVED)[0]["id"]).stdout
    assert "in version 2.4: repaired" in history

    execute(settings, f"TRUNCATE {_LOG} CASCADE")
    asyncio.run(drain_log(settings))
    rows = query(settings, "SELECT resolved_in_version AS v, status FROM failed_events")
    assert sorted((row["status"], row["v"]) for row in rows if row["v"]) == [
        ("resolved", "2.4"), ("resolved", "2.4")
    ]  # fmt: skip
    assert len(rows) == 4


_LOG = "failed_events, drain_checkpoints, drain_epochs, drain_anchors, stream_gaps"
_RESOLVED = "SELECT id::text FROM failed_events WHERE status = 'resolved' LIMIT 1"


def test_a_group_without_open_failures_can_be_resolved_in_a_version(
    dlq: Run, settings: Settings
) -> None:
    failing(settings, 1, "2.3")
    group = group_of(dlq)["group_id"]
    dlq("resolve", "--group", group, "--reason", "entered by hand")
    said = dlq("resolve", "--group", group, "--in-version", "2.4", "--reason", "repaired").stdout
    assert "counts as repaired in 2.4" in said
    assert group_of(dlq)["resolved_in_version"] == "2.4"
    rows = query(
        settings, "SELECT status, resolved_in_version, resolution_notes FROM failed_events"
    )
    assert [tuple(row.values()) for row in rows] == [("resolved", "2.4", "entered by hand")]
    failing(settings, 2, "2.3")
    assert group_of(dlq)["state"] == "fixed"
