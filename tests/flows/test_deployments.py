"""prefect.yaml on a real server: what is deployed, and what the runs do and report."""

import json
import re
from typing import Any

import psycopg
import pytest
from prefect_api import SECRET, Drained, Platform, make_late, until

from sahool_dlq.stores.postgres.database import database
from sahool_dlq.stores.postgres.verifications import last_verifications

pytestmark = pytest.mark.xdist_group("prefect")  # one Prefect server is enough


def test_every_deployment_is_there_with_its_description(prefect_platform: Platform) -> None:
    found = prefect_platform.deployments()
    assert set(found) == {
        "drain-dlq",
        "build-marts",
        "maintain-lake",
        "verify",
        "alert",
        "redrive-transient",
        "redrive-group",
        "redrive",
        "dry-run",
        "replay",
        "report",
        "doctor",
        "watch-runs",
    }
    assert all(deployment["description"] for deployment in found.values())


def test_neither_a_redrive_nor_the_marts_hold_up_a_drain(prefect_platform: Platform) -> None:
    """Each has its own queue; the queues of long runs have a limit below the worker's."""
    queues = prefect_platform.call("/work_pools/local/queues/filter", {})
    limits = {queue["name"]: queue["concurrency_limit"] for queue in queues}
    assert limits | {"default": None} == {
        "default": None,
        "drain": None,
        "analysis": 2,
        "redrive": 2,
    }
    found = {name: d["work_queue_name"] for name, d in prefect_platform.deployments().items()}
    assert found == {
        "drain-dlq": "drain",
        "alert": "drain",
        "build-marts": "analysis",
        "maintain-lake": "analysis",
        "verify": "analysis",
        "report": "analysis",
        "doctor": "analysis",
        "redrive-transient": "redrive",
        "redrive-group": "redrive",
        "redrive": "redrive",
        "dry-run": "redrive",
        "replay": "redrive",
        "watch-runs": "drain",
    }


def test_automations_watch_over_the_runs(prefect_platform: Platform) -> None:
    found = {a["name"]: a for a in prefect_platform.call("/automations/filter", {})}
    assert set(found) == {
        "dlq: a crashed drain is started again, once",
        "dlq: alerts are evaluated when groups escalate or a redrive stops itself",
        "dlq: marts are built after a drain that brought something",
        "dlq: test a new version of a service immediately",
    }
    again = found["dlq: a crashed drain is started again, once"]
    guard = {"prefect.resource.id": "prefect.tag.auto-scheduled"}
    assert guard in again["trigger"]["match_related"]  # what it starts is not scheduled: no loop


def test_the_schedules_make_runs(prefect_platform: Platform) -> None:
    """With the wrong version of SQLAlchemy, a deploy succeeds but no run is ever scheduled."""
    wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    until(lambda: prefect_platform.call("/flow_runs/count", wanted) >= 3 or None, "runs")


def test_a_crashed_drain_is_started_again_but_not_in_a_loop(prefect_platform: Platform) -> None:
    """Two scheduled runs crash, and the first one that was started instead: that makes two."""
    platform = prefect_platform
    scheduled = until(lambda: _scheduled(platform, 2), "scheduled drains")
    _crash(platform, scheduled[0])
    first = until(lambda: _started(platform, 1), "the drain in the place of the crashed one")
    _crash(platform, first[0])
    _crash(platform, scheduled[1])
    both = until(lambda: _started(platform, 2), "the drain in the place of the other one")
    assert len(both) == 2
    for run_id in both:
        platform.call(f"/flow_runs/{run_id}", method="DELETE")


def test_the_forms_explain_their_fields_and_offer_no_none(prefect_platform: Platform) -> None:
    found = prefect_platform.deployments()
    forms = {
        name: found[name]["parameter_openapi_schema"]
        for name in ("redrive-group", "redrive", "dry-run", "replay")
    }
    assert set(forms["redrive-group"]["properties"]) == {"group", "reason", "your_name"}
    assert {name: set(form.get("required", ())) for name, form in forms.items()} == {
        "redrive-group": {"group", "reason", "your_name"},
        "redrive": {"reason", "your_name"},
        "dry-run": set(),
        "replay": {"consumer", "reason", "your_name"},
    }
    for form in forms.values():
        assert all(field["description"] for field in form["properties"].values())
        assert '"null"' not in json.dumps(form)  # Prefect says of such a field "type is None"


def test_a_late_drain_works_unless_a_run_since_has_done_so(
    platform_with_worker: Platform, drained: Drained
) -> None:
    """After a downtime the first late run drains everything, and the later ones end at once."""
    first = platform_with_worker.ended(drained.run)
    assert re.fullmatch(r"Drained 3 messages in [\d.]+ s", first["state"]["message"])
    assert first["name"] == "drain-dlq: 3 messages"
    behind = until(lambda: _skipped(platform_with_worker), "a late drain that is skipped")
    assert behind["message"] == "Late: a run since has drained all of it"


def test_a_drain_leaves_its_numbers_and_its_progress(
    platform_with_worker: Platform, drained: Drained
) -> None:
    shown = platform_with_worker.artifacts(drained.run)
    assert json.loads(shown["drain"]["data"])[0]["drained"] == 3
    assert shown[""]["data"] == 100.0


def test_the_stages_of_a_drain_are_tasks_and_our_lines_are_in_its_log(
    platform_with_worker: Platform, drained: Drained
) -> None:
    assert platform_with_worker.tasks(drained.run) == {
        "Bring in what others gave up": "Nothing new",
        "Drain the log": platform_with_worker.ended(drained.run)["state"]["message"],
        "Compare the sinks": "postgres, lake dead_letters, lake case_events hold the log up to"
        " sequence 3",
    }
    said = platform_with_worker.log(drained.run)
    assert (20, "sahool_dlq.drain.run", "Stored 3 messages, up to sequence 3 of 3") in said
    page = f"{platform_with_worker.server.ui_url}/artifacts/key/dead-letters"
    assert (20, "sahool_dlq.orchestration.stages", f"The failure groups: {page}") in said


def test_a_drain_that_finds_nothing_compares_nothing(
    platform_with_worker: Platform, drained: Drained
) -> None:
    run = platform_with_worker.ran("drain-dlq")
    assert run["state"]["message"].startswith("Drained 0 messages in ")
    assert set(platform_with_worker.tasks(run["id"])) == {
        "Bring in what others gave up",
        "Drain the log",
    }


def test_marts_are_built_after_a_drain_and_their_page_leads_to_the_redrive(
    platform_with_worker: Platform, drained: Drained
) -> None:
    platform = platform_with_worker
    built = platform.ended(drained.built)
    assert built["created_by"]["type"] == "AUTOMATION"
    assert re.match(r"Built [1-9]\d* marts, .*; 1 group", built["state"]["message"])
    assert set(platform.tasks(built["id"])) == {"Build the marts", "Write the pages"}
    artifacts = platform.artifacts(built["id"])
    page = artifacts["dead-letters"]["data"]
    forms = {
        name: f"../../deployments/deployment/{deployment['id']}/run?parameters="
        for name, deployment in platform.deployments().items()
    }
    group = artifacts[f"group-value-error-{drained.group_id[:8]}"]
    filled_in = f"%7B%22group%22%3A%22{drained.group_id}%22%7D"
    assert f"[redrive]({forms['redrive-group']}{filled_in})" in page
    assert f"[page](../artifact/{group['id']})" in page
    assert f"[Redrive]({forms['redrive-group']}{filled_in})" in group["data"]
    assert f"({forms['dry-run']}%7B%22failures%22%3A{filled_in}%7D)" in group["data"]
    for text in (page, group["data"]):
        assert r"\[x\](javascript:x)" in text  # what a message says is text
    assert group["description"].startswith("3 open, ongoing: ValueError: ")
    with database(platform.settings.postgres_dsn.get_secret_value()) as connection:
        assert connection.execute("SELECT count(*) FROM failed_events").fetchone() == (3,)


def test_a_page_that_says_nothing_new_is_not_written_again(
    platform_with_worker: Platform, drained: Drained
) -> None:
    run = platform_with_worker.ran("build-marts")
    assert set(platform_with_worker.artifacts(run["id"])) == {"marts", "dead-letters", "incidents"}
    page = platform_with_worker.artifacts(run["id"])["dead-letters"]["data"]
    first = platform_with_worker.artifacts(drained.built)
    group = first[f"group-value-error-{drained.group_id[:8]}"]
    assert f"[page](../artifact/{group['id']})" in page


def test_the_report_is_a_page_and_an_artifact(
    platform_with_worker: Platform, drained: Drained
) -> None:
    run = platform_with_worker.ran("report")
    page = platform_with_worker.settings.home / "report.html"
    assert run["state"]["message"].startswith(f"Wrote {page}: failures a minute ")
    assert "What this report cannot know" in page.read_text()
    assert "report" in platform_with_worker.artifacts(run["id"])


def test_the_stores_are_verified_gently_and_nothing_is_repaired(
    platform_with_worker: Platform, drained: Drained
) -> None:
    platform = platform_with_worker
    run = platform.ran("verify")
    said = r"Read [1-9]\d* files, [\d.]+ MB, in [\d.]+ s: nothing wrong"
    assert re.fullmatch(said, run["state"]["message"])
    (file,) = (platform.settings.home / "lake" / "dead_letters").rglob("part-*.parquet")
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        damaged = file.read_bytes()
        run = platform.ran("verify")
        assert run["name"] == "verify: 2 wrong"  # the file, and the messages that were in it
        assert file.read_bytes() == damaged
        rows = json.loads(platform.artifacts(run["id"])["verification"]["data"])
        assert [row["kind"] for row in rows] == [r"damaged\_file", r"missing\_in\_lake"]
    finally:
        file.write_bytes(whole)
    with database(platform.settings.postgres_dsn.get_secret_value()) as connection:
        kept = last_verifications(connection, 2)
    assert kept["wrong_count"].to_list() == [2, 0]
    assert file.name in kept["wrong"][0][0]


def test_alerts_are_evaluated(platform_with_worker: Platform, drained: Drained) -> None:
    with database(platform_with_worker.settings.postgres_dsn.get_secret_value()) as connection:
        connection.execute(
            "INSERT INTO alerts (rule, scope, subject, state, severity, value, above, since,"
            " detail, started_at, seen_at) VALUES ('service_failing', 'all', '[x](javascript:x)',"
            " 'firing', 'critical', 0.9, 0.5, now(), '', now(), now() + interval '1 hour')"
        )
    run = platform_with_worker.ran("alert")
    assert re.match(r"[1-9]\d* firing", run["state"]["message"])
    told = platform_with_worker.artifacts(run["id"])["alerts"]["data"]
    assert r"A service fails all its messages: \[x\](javascript:x)" in [
        row["firing"] for row in json.loads(told)
    ]


def test_the_doctor_leaves_a_page(platform_with_worker: Platform) -> None:
    run = platform_with_worker.ran("doctor")
    page = platform_with_worker.settings.home / "doctor.html"
    assert run["state"]["message"].startswith(f"Wrote {page.absolute()}. ")
    assert re.search(r"\d+ streams, \d+ durable consumers?: ", run["state"]["message"])
    assert "What happens to failures" in page.read_text()
    shown = platform_with_worker.artifacts(run["id"])["doctor"]["data"]
    assert "## What happens to an event that always fails" in shown


def test_the_living_are_left_alone(platform_with_worker: Platform) -> None:
    """tests/flows/test_watch_runs.py has the dead."""
    run = platform_with_worker.ran("watch-runs")
    assert run["state"]["message"] == "All live"


def test_the_scheduled_redrive_finds_nothing(platform_with_worker: Platform) -> None:
    run = platform_with_worker.ran("redrive-transient")
    assert run["state"]["message"] == "Nothing to redrive"


def test_no_secret_is_anywhere_in_prefect(platform_with_worker: Platform, drained: Drained) -> None:
    """The worker knows the database from a block only, and has used it."""
    platform = platform_with_worker
    assert "DLQ_POSTGRES_DSN" not in platform.environment
    told = {
        kind: platform.call(f"/{kind}/filter", {})
        for kind in (
            "flow_runs", "logs", "artifacts", "deployments", "work_pools", "events",
            "block_documents", "automations",
        )
    }  # fmt: skip
    assert len(told["logs"]) > 20
    assert "dlq-postgres-dsn" in [block["name"] for block in told["block_documents"]]
    assert [kind for kind, found in told.items() if SECRET in json.dumps(found)] == []
    assert SECRET not in (platform.settings.home / "worker.log").read_text()
    with psycopg.connect(platform.prefect_dsn) as connection:
        data = connection.execute("SELECT data::text FROM block_document").fetchall()
    assert data
    assert SECRET not in str(data)  # encrypted


def _skipped(platform: Platform) -> dict[str, Any] | None:
    """How a late drain ended; None where the limit cancelled it, since two others ran."""
    late = make_late(platform)
    state: dict[str, Any] = platform.ended(late)["state"] if late else {"name": "none"}
    return state if state["name"] == "Skipped" else None


def _crash(platform: Platform, run_id: str) -> None:
    """As if long scheduled: news that follow a state of the last minutes wait for news of that
    state, and there are none where a schedule made it."""
    with psycopg.connect(platform.prefect_dsn) as connection:
        connection.execute(
            "UPDATE flow_run_state SET timestamp = timestamp - INTERVAL '1 hour'"
            " WHERE id = (SELECT state_id FROM flow_run WHERE id = %s)",
            [run_id],
        )
    state = {"type": "CRASHED", "name": "Crashed"}
    platform.call(f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})


def _scheduled(platform: Platform, count: int) -> list[str] | None:
    """The last so many, for others are about to run."""
    ids = [run["id"] for run in platform.runs("drain-dlq") if run["state_type"] == "SCHEDULED"]
    return ids[:count] if len(ids) > count else None


def _started(platform: Platform, count: int) -> list[str] | None:
    """The drains that an automation started, once there are so many."""
    ids = [
        run["id"]
        for run in platform.runs("drain-dlq")
        if (run["created_by"] or {}).get("type") == "AUTOMATION"
    ]
    return ids if len(ids) >= count else None
