"""prefect.yaml against a real server: schedules make runs, a worker runs them, runs tell."""

import asyncio
import json
import re
import time
import urllib.request
from typing import Any

import nats
import pytest

from pipelines.embedded import PrefectServer
from pipelines.embedded.worker import worker
from pipelines.jobs import migrate_all
from pipelines.settings import Settings
from pipelines.stores.database import database

pytestmark = pytest.mark.xdist_group("prefect")  # one Prefect server is enough

Platform = tuple[Settings, PrefectServer, dict[str, str]]


def call(server: PrefectServer, path: str, body: dict[str, Any] | None = None) -> Any:
    """One request to Prefect's API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"{server.api_url}{path}", data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def deployments(server: PrefectServer) -> dict[str, dict[str, Any]]:
    return {d["name"]: d for d in call(server, "/deployments/filter", {})}


def finished(server: PrefectServer, run_id: str, within_seconds: float = 120) -> dict[str, Any]:
    """The run once it has ended."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        run: dict[str, Any] = call(server, f"/flow_runs/{run_id}")
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run
        time.sleep(0.5)
    raise AssertionError(f"run {run_id} did not end: {run['state']}")


def test_every_deployment_is_there_with_its_description(prefect_platform: Platform) -> None:
    found = deployments(prefect_platform[1])
    assert set(found) == {
        "drain-dlq",
        "build-marts",
        "maintain-lake",
        "alert",
        "redrive-transient",
        "redrive",
        "report",
    }
    assert all(deployment["description"] for deployment in found.values())


def test_the_schedules_make_runs(prefect_platform: Platform) -> None:
    """With the wrong SQLAlchemy a deploy looks fine and no run is ever scheduled."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        wanted = {"state": {"type": {"any_": ["SCHEDULED"]}}}
        if call(prefect_platform[1], "/flow_runs/count", {"flow_runs": wanted}) >= 3:
            return
        time.sleep(0.5)
    raise AssertionError("no run was scheduled")


def test_the_redrive_form_explains_its_fields(prefect_platform: Platform) -> None:
    schema = deployments(prefect_platform[1])["redrive"]["parameter_openapi_schema"]
    assert schema["properties"]["reason"]["description"] == "Why; kept with the batch."
    assert set(schema["required"]) == {"reason", "requested_by"}


def test_a_worker_drains_builds_and_finds_nothing_to_redrive(prefect_platform: Platform) -> None:
    settings, server, environment = prefect_platform
    asyncio.run(_one_dead_letter(settings))
    with worker(settings.home, environment):
        found = deployments(server)
        messages = {}
        for name in ("drain-dlq", "build-marts", "report", "alert", "redrive-transient"):
            run = call(server, f"/deployments/{found[name]['id']}/create_flow_run", {})
            messages[name] = finished(server, run["id"])["state"]
    # A scheduled drain may have come first and taken the message.
    assert messages["drain-dlq"]["message"].startswith("Drained ")
    assert re.match(r"Built [1-9]\d* marts, [1-9]", messages["build-marts"]["message"])
    page = settings.home / "report.html"
    assert messages["report"]["message"].startswith(f"Wrote {page}: dead letters a minute ")
    assert "What this report can not know" in page.read_text()
    assert re.match(r"\d+ firing", messages["alert"]["message"])
    assert messages["redrive-transient"]["message"] == "Nothing to redrive"
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        assert connection.execute("SELECT count(*) FROM failed_events").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM mart_failure_groups").fetchone() == (1,)
    artifacts = {a["key"] for a in call(server, "/artifacts/filter", {}) if a["key"]}
    assert {"drain", "marts", "report"} <= artifacts


async def _one_dead_letter(settings: Settings) -> None:
    await migrate_all(settings)
    connection = await nats.connect(settings.nats_url)
    await connection.jetstream().publish("sahool.dlq.odd", b"not a dead letter")
    await connection.close()
