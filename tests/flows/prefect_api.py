"""The platform and Prefect's API, shared by these tests, the screenshots and the faults."""

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from sahool_dlq.embedded import NatsServer, PostgresServer, PrefectServer
from sahool_dlq.embedded.worker import deploy
from sahool_dlq.jobs.drain import migrate_all
from sahool_dlq.settings import Settings, environment_of

SECRET = "planted-9f2c7d1e"  # the password of the database: must not appear anywhere in Prefect
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_LAST_WORDS = (
    "Finished in state",
    "Waiting for approval",
)  # of the run itself; tasks use the first too


class Platform(NamedTuple):
    """Servers with everything deployed."""

    settings: Settings
    server: PrefectServer
    environment: dict[str, str]  # of a worker
    prefect_dsn: str  # Prefect's own database

    def call(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        """One request to Prefect's API; its answer, parsed."""
        request = urllib.request.Request(
            f"{self.server.api_url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def deployments(self) -> dict[str, dict[str, Any]]:
        """All of them by name."""
        return {found["name"]: found for found in self.call("/deployments/filter", {})}

    def pause(self, *names: str, is_paused: bool = True) -> None:
        """Pause the schedules of deployments that nobody waits for: each run is a process."""
        found = self.deployments()
        for name in names:
            self.call(f"/deployments/{found[name]['id']}", {"paused": is_paused}, "PATCH")

    def start(self, name: str, **parameters: Any) -> str:
        """A run of a deployment, now; its id."""
        wanted = f"/deployments/{self.deployments()[name]['id']}/create_flow_run"
        run_id: str = self.call(wanted, {"parameters": parameters})["id"]
        return run_id

    def runs(self, name: str) -> list[dict[str, Any]]:
        """The runs of a deployment, the newest first."""
        wanted = {"deployments": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_DESC"}
        found: list[dict[str, Any]] = self.call("/flow_runs/filter", wanted)
        return found

    def ran(self, name: str) -> dict[str, Any]:
        """Start a run of a deployment now, and wait until it has ended."""

        def try_it() -> dict[str, Any] | None:
            run = self.ended(self.start(name))
            return run if run["state_type"] != "CANCELLED" else None

        return until(try_it, f"a run of {name} that no other keeps out")

    def ended(self, run_id: str) -> dict[str, Any]:
        """A run once it has ended."""
        return self.in_state(run_id, *ENDED)

    def in_state(self, run_id: str, *types: str) -> dict[str, Any]:
        """Wait until the state of a run is of one of these types."""

        def look() -> dict[str, Any] | None:
            run: dict[str, Any] = self.call(f"/flow_runs/{run_id}")
            if run["state_type"] in ENDED and run["state_type"] not in types:
                raise AssertionError(f"the run ended as {run['state']}, not as {types}")
            return run if run["state_type"] in types else None

        return until(look, f"run {run_id} in {types}")

    def artifacts(self, run_id: str) -> dict[str, dict[str, Any]]:
        """A run's artifacts by key; the key of its progress is ''."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}}}
        return {a["key"] or "": a for a in self.call("/artifacts/filter", wanted)}

    def task_runs(self, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a run, in the order of their start."""
        wanted = {"flow_runs": {"id": {"any_": [run_id]}}}
        found: list[dict[str, Any]] = self.call("/task_runs/filter", wanted)
        return sorted(found, key=lambda task: task["start_time"] or "")

    def tasks(self, run_id: str) -> dict[str, str | None]:
        """The result of each task of a run by its name, after all have ended."""

        def look() -> dict[str, str | None] | None:
            found = self.task_runs(run_id)
            is_over = found and all(task["state_type"] in ENDED for task in found)
            return {task["name"]: task["state"]["message"] for task in found} if is_over else None

        return until(look, f"the tasks of run {run_id}")  # they come as events, a little later

    def log(self, run_id: str) -> list[tuple[int, str, str]]:
        """Level, logger and text of a run's log lines, after the last line has arrived."""

        def look() -> list[tuple[int, str, str]] | None:
            wanted = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
            found = [
                (x["level"], x["name"], x["message"]) for x in self.call("/logs/filter", wanted)
            ]
            own = [said for _, logger, said in found if logger == "prefect.flow_runs"]
            return found if own and own[-1].startswith(_LAST_WORDS) else None

        return until(look, f"the log of run {run_id}")


@contextmanager
def started(home: Path, **environment: str) -> Iterator[tuple[Platform, PostgresServer]]:
    """Separate servers below `home`, with everything deployed, for use outside of tests."""
    with ExitStack() as stack:
        nats_server = stack.enter_context(NatsServer(home, has_login=False))
        postgres = stack.enter_context(PostgresServer(home, has_login=False))
        stack.callback(postgres.remove)
        own = postgres.create_database("prefect")
        settings = Settings(
            home=home,
            nats_url=nats_server.url,
            postgres_dsn=postgres.create_database("flows"),
            lake_uri=str(home / "lake"),
        )
        asyncio.run(migrate_all(settings))
        server = stack.enter_context(PrefectServer(home, database_dsn=own, has_login=False))
        full = os.environ | environment_of(settings) | server.environment | environment
        deploy(full)
        yield Platform(settings, server, full, own), postgres


def make_late(platform: Platform, minutes: float = 10) -> str | None:
    """Make a scheduled drain due in the past; its id, or None if none is scheduled."""
    ids = [run["id"] for run in platform.runs("drain-dlq") if run["state_type"] == "SCHEDULED"]
    if not ids:
        return None
    values = {"at": (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat(), "id": ids[0]}
    with psycopg.connect(platform.prefect_dsn) as connection:
        connection.execute(
            "UPDATE flow_run_state SET state_details ="
            " jsonb_set(state_details, '{scheduled_time}', to_jsonb(%(at)s::text))"
            " WHERE id = (SELECT state_id FROM flow_run WHERE id = %(id)s)",
            values,
        )
        connection.execute(
            "UPDATE flow_run SET expected_start_time = %(at)s::timestamptz,"
            " next_scheduled_start_time = %(at)s::timestamptz WHERE id = %(id)s",
            values,
        )
    return str(ids[0])


def letter_of(number: int, **changes: Any) -> bytes:
    """A dead letter as the older services send it."""
    value = {
        "event_id": f"event-{number}",
        "original_subject": "sahool.analysis.ndvi_computed",
        "event_type": "ndvi_computed",
        "source_service": "ndvi",
        "tenant_id": "tenant-1",
        "error_type": "ValueError",
        "error_message": f"cloud cover of field {number} is unknown",
        "stack_trace": None,
        "retry_count": 3,
        "max_retries": 3,
        "first_attempt_at": "2026-01-02T03:04:05Z",
        "last_attempt_at": "2026-01-02T03:04:06Z",
        "dlq_timestamp": "2026-01-02T03:04:07Z",
        "original_data": {"number": number},
        "original_headers": {},
        "dlq_reason": "max_retries_exceeded",
    }
    return json.dumps({**value, **changes}).encode()


class Drained(NamedTuple):
    """The result of the fixture `drained`: ids of the runs, and the group of the dead letters."""

    run: str
    built: str
    group_id: str


def until(look: Callable[[], Any], what: str, within_seconds: float = 480) -> Any:
    """The result of `look` as soon as it is not empty."""
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.3)
    raise AssertionError(f"waited {within_seconds:.0f} s in vain for {what}")
