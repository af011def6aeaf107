"""`dlq discard`, `resolve`, `park`, `unpark` and `audit` on real servers."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import nats
import psycopg
import pytest
from click.testing import CliRunner, Result

from sahool_dlq.cli import _command
from sahool_dlq.errors import QueryError, RedriveError
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.decisions import decide, preview_decision
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.orchestration.approval import plan_as_markdown
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.choose.where import COLUMNS
from sahool_dlq.settings import Settings
from support.platform_log import environment, in_lake, letter, publish, query

Run = Callable[..., Result]


@pytest.fixture
def dlq(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a verb against a platform whose twelve failures are drained."""
    for name, value in environment(settings, COLUMNS="200").items():
        if name.startswith("DLQ_") or name == "COLUMNS":
            monkeypatch.setenv(name, value)
    asyncio.run(_fill(settings))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(_command(), arguments, catch_exceptions=False)

    return run


async def _fill(settings: Settings) -> None:
    connection = await nats.connect(settings.nats_url.get_secret_value())
    await ensure_streams(connection.jetstream(), settings.stream_names)
    bodies = [letter(n, tenant_id=f"tenant-{n % 2}", retry_count=n) for n in range(12)]
    await publish(connection, settings, bodies)
    await drain_log(settings)
    await connection.close()


def as_json(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def statuses(settings: Settings) -> dict[str, int]:
    rows = query(settings, "SELECT status, count(*) AS n FROM failed_events GROUP BY 1")
    return {row["status"]: row["n"] for row in rows}


def ids(settings: Settings, where: str = "true") -> list[str]:
    rows = query(settings, f"SELECT id::text FROM failed_events WHERE {where} ORDER BY event_id")
    return [row["id"] for row in rows]


def test_a_decision_is_true_in_both_sinks_and_in_the_audit_when_the_verb_returns(
    dlq: Run, settings: Settings
) -> None:
    one, two, *_ = ids(settings)
    for verb, failure, status in (("discard", one, "discarded"), ("resolve", two, "resolved")):
        done = as_json(dlq(verb, failure, "--reason", "known bug", "--by", "ana", "--json"))
        assert (done["decision"], done["changed"], done["left"]) == (status, 1, {})
    assert statuses(settings) == {"pending": 10, "discarded": 1, "resolved": 1}
    [row] = query(settings, "SELECT * FROM failed_events WHERE status = 'resolved'")
    assert (row["resolution_cause"], row["resolution_notes"]) == ("manual", "known bug")
    told = in_lake(settings, "case_events").select("kind", "failure_id", "actor", "reason").rows()
    assert told == [
        ("triage.discarded", one, "ana", "known bug"),
        ("triage.resolved", two, "ana", "known bug"),
    ]
    rows = as_json(dlq("audit", one, "--json"))["audit"]
    assert [(r["action"], r["actor"], r["reason"], r["failure_ids"]) for r in rows] == [
        ("triage.discarded", "ana", "known bug", [one])
    ]
    everything = as_json(dlq("audit", "--json"))["audit"]
    assert [(r["action"], r["detail"].get("changed")) for r in everything] == [
        ("triage.resolved.done", 1),
        ("triage.resolved", None),
        ("triage.discarded.done", 1),
        ("triage.discarded", None),
    ]
    assert "known bug" in dlq("audit", "--action", "triage.discarded").stdout


def test_parked_failures_are_unparked_by_the_same_selection(dlq: Run, settings: Settings) -> None:
    chosen = ("--tenant", "tenant-1", "--where", "data.number >= 5 AND retry_count <> 7")
    dry = as_json(dlq("park", *chosen, "--reason", "later", "--dry-run", "--json"))
    assert (dry["would_change"], statuses(settings)) == (3, {"pending": 12})
    shown = dlq("park", *chosen, "--reason", "later", "--dry-run").stdout
    assert "3 failures would become parked" in shown
    assert as_json(dlq("park", *chosen, "--reason", "later", "--json"))["changed"] == 3
    assert statuses(settings) == {"pending": 9, "parked": 3}
    parked = ids(settings, "status = 'parked'")
    assert "3 failures are unparked now" in dlq("unpark", *chosen, "--reason", "now").stdout
    assert statuses(settings) == {"pending": 12}
    again = dlq("unpark", parked[0], "--reason", "now")
    assert f"{parked[0]} stays pending." in again.stdout


def test_a_decision_that_stops_at_its_limit_says_so(dlq: Run, settings: Settings) -> None:
    park = ("park", "--type", "ConnectionError", "--limit", "5", "--reason", "outage")
    assert "That is the --limit" in dlq(*park).stdout
    assert as_json(dlq(*park, "--json"))["limit_reached"]
    last = dlq(*park).stdout
    assert "2 failures are parked now" in last
    assert "--limit" not in last


def test_every_column_that_is_documented_can_be_asked_for(dlq: Run, settings: Settings) -> None:
    literal = {"text": "'x'", "number": "-1", "time": "'2020-01-01'"}
    for name, column in COLUMNS.items():
        selection = Selection(where=f"{name} = {literal[column.kind]} OR {name} IS NULL")
        preview_decision(settings, selection, "parked")  # PostgreSQL takes it
    for condition, count in {
        "data.name LIKE 'Gänse 1%'": 3,
        "headers.Trace IN ('t1', 't2')": 2,
        "data.number > 9": 2,
        "data.number = '3'": 1,
        "data.number = true": 0,
        "data.missing IS NULL AND event_type = 'ndvi_computed'": 12,
        "subject ILIKE '%NDVI%' AND error_type IN ('ConnectionError')": 12,
    }.items():
        found, _ = preview_decision(settings, Selection(where=condition), "parked")
        assert len(found) == count, condition
    for selection, count in (
        (Selection(subject="sahool.analysis.*"), 12),
        (Selection(subject="sahool.*"), 0),
        (Selection(event_type="ndvi_computed", error_types=("ConnectionError",)), 12),
        (Selection(tenant_id="tenant-0", limit=2), 2),
    ):
        found, _ = preview_decision(settings, selection, "parked")
        assert len(found) == count, selection


def test_a_batch_is_planned_approved_and_run_by_commands(
    dlq: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLQ_REDRIVE_APPROVAL_COUNT", "2")
    monkeypatch.setenv("DLQ_REDRIVE_TIMEOUT_SECONDS", "0.2")
    chosen = (
        *("redrive", "--tenant", "tenant-1", "--own-copy"),  # no stream has their events
        *("--limit", "3", "--reason", "fixed", "--by", "ana"),
    )
    edit = ("--edit", '{"number": null, "email": "a@b.example"}')
    dry = dlq(*chosen, *edit, "--dry-run").stdout
    for part in (
        "A redrive would publish 0 of 3 events",
        "3 would be refused and parked: sahool.analysis.ndvi_computed is not among",
        "That is the --limit. The oldest come first",
        "The edit, in 3 events",
        "Raw dead letters: 3 in the stream, 0 kept in Postgres, 0 gone.",
        "Of 3, about 0 are expected to succeed",
        "At 10.0 a second publishing takes about 0 s",
    ):
        assert part in dry
    assert "a@b.example" not in dry
    form = plan_as_markdown(as_json(dlq(*chosen, *edit, "--dry-run", "--json")))
    assert "3 would be refused and parked: sahool.analysis" in form
    assert "a@b.example" not in form
    assert query(settings, "SELECT count(*) AS n FROM redrive_batches") == [{"n": 0}]
    waiting = dlq(*chosen)
    assert "3 events wait for an approval:  dlq batches approve" in waiting.stdout
    [batch] = as_json(dlq("batches", "--json"))["batches"]
    assert (batch["state"], batch["planned"], batch["requested_by"]) == (
        "awaiting_approval",
        3,
        "ana",
    )
    refused = dlq("batches", "resume", batch["id"][:8])
    assert "is awaiting_approval, not paused" in refused.stderr
    assert (
        as_json(dlq("batches", "approve", batch["id"], "--later", "--json"))["state"] == "running"
    )
    assert as_json(dlq("batches", "cancel", batch["id"], "--json"))["state"] == "cancelled"
    shown = dlq("batches", "show", batch["id"][:8]).stdout
    assert "redrive.awaiting_approval" in shown
    # Nobody may be redriven to: the subject is not on the allow-list.
    aborted = dlq(*chosen, "--yes", "--json")
    report = json.loads(aborted.stdout)
    assert aborted.exit_code == 1
    assert json.loads(aborted.stderr)["error"] == (
        f"The batch {report['batch_id']} was aborted because a group was stopped: find the cause"
        f" before the next redrive."
    )
    assert (report["state"], report["outcomes"]) == ("aborted", {"refused": 1, "cancelled": 2})
    [(why, count)] = report["reasons"]["refused"].items()
    assert (count, "is not among the subjects that DLQ_REDRIVE_SUBJECTS allows" in why) == (1, True)
    assert "1 refused" in dlq("audit", report["batch_id"][:8]).stdout
    told = dlq(*chosen, "--yes")
    assert (told.exit_code, "was aborted because" in told.stderr) == (1, True)
    assert f"refused 1: {why}." in told.stdout
    assert "That is the --limit" in told.stdout
    waiting = as_json(dlq(*chosen[:4], "--json"))["batch_id"]
    as_json(dlq("batches", "approve", waiting, "--later", "--json"))
    as_json(dlq("batches", "pause", waiting, "--json"))
    resumed = dlq("batches", "resume", waiting)
    assert (resumed.exit_code, resumed.stderr.count("\n")) == (1, 1)
    assert f"The batch {waiting} was aborted because" in resumed.stderr
    assert f"refused 1: {why}." in resumed.stdout
    assert dlq("batches", "show", "zzz").exit_code == 2
    assert "No redrive has been planned yet" not in dlq("batches").stdout


def test_what_makes_no_sense_is_one_sentence_and_changes_nothing(
    dlq: Run, settings: Settings
) -> None:
    before = statuses(settings)
    for arguments, needs in {
        ("--reason", "x"): "Say what to redrive or decide on",
        ("not-an-id", "--reason", "x"): "'not-an-id' is not a failure id",
        ("00000000-0000-0000-0000-000000000000", "--reason", "x"): "No failure has the id",
        ("--where", "1 = 1; DROP TABLE failed_events", "--reason", "x"): "The condition",
        ("--since", "soon", "--reason", "x"): "'soon' is not a time",
        ("--type", "ConnectionError", "--reason", " "): "Give a reason",
        ("--type", "ConnectionError", "--group", "", "--reason", "x"): "An empty group selects",
    }.items():
        result = dlq("discard", *arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.stderr
        assert needs in result.stderr
    assert dlq("discard", "--type", "ConnectionError").exit_code == 2  # no reason
    for unknown in ("g", "0123456789abcdef", "%"):
        for verb in ("discard", "redrive"):
            nobody = dlq(verb, "--group", unknown, "--reason", "x")
            assert (nobody.exit_code, nobody.stdout) == (2, "")
            assert f"There is no group {unknown!r}" in nobody.stderr
    for verb in ("audit", "batches"):
        assert dlq(verb, "--limit", "-1").exit_code == 2
    unset = dlq("redrive", "--type", "ConnectionError", "--edit", "")
    assert (unset.exit_code, "The edit is not JSON" in unset.stderr) == (1, True)
    unkept = dlq("redrive", "--type", "ConnectionError", "--edit", r'{"unit": "\u0000"}')
    assert (unkept.exit_code, unkept.stderr.count("\n")) == (1, 1)
    wrong = "The edit contains NUL or a lone surrogate, which PostgreSQL cannot store"
    assert wrong in unkept.stderr
    assert statuses(settings) == before
    assert query(settings, "SELECT count(*) AS n FROM audit_log") == [{"n": 0}]


async def test_a_decision_that_died_while_it_was_told_can_be_said_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _fill(settings)
    everything = Selection(error_types=("ConnectionError",))
    with monkeypatch.context() as patched:
        patched.setattr("sahool_dlq.jobs.decisions.drain_log", _only_once(drain_log))
        with pytest.raises(ConnectionAbortedError):
            await decide(settings, everything, "discarded", actor="ana", reason="first")
    report = await decide(settings, everything, "discarded", actor="ana", reason="again")
    assert report.changed == 0  # the drain found what was reported before
    assert statuses(settings) == {"discarded": 12}
    rows = query(settings, "SELECT DISTINCT resolution_notes AS why FROM failed_events")
    assert rows == [{"why": "first"}]


def _only_once(job: Any) -> Any:
    calls = 0

    async def run(settings: Settings) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ConnectionAbortedError
        await job(settings)

    return run


def test_the_audit_can_not_be_changed(dlq: Run, settings: Settings) -> None:
    dlq("discard", *ids(settings)[:1], "--reason", "to be kept")
    dsn = settings.postgres_dsn.get_secret_value()
    for statement in (
        "UPDATE audit_log SET actor = 'nobody'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ):
        with (
            psycopg.connect(dsn) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"),
        ):
            connection.execute(statement)
    assert len(query(settings, "SELECT * FROM audit_log WHERE reason = 'to be kept'")) == 1


async def test_an_audit_of_something_that_is_no_id_is_refused(settings: Settings) -> None:
    from sahool_dlq.jobs.decisions import audit_trail

    with pytest.raises(QueryError, match="is not an id"):
        audit_trail(settings, about="x")
    with pytest.raises(RedriveError, match="Say what"):
        preview_decision(settings, Selection(), "parked")
