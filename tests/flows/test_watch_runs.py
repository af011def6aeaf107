"""Dead runs are found on a real Prefect server; live ones survive an outage of the server."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect_api import Platform, until

from sahool_dlq.embedded import PostgresServer, PrefectServer
from sahool_dlq.orchestration.silent import HEARTBEAT_SECONDS, heard_seconds
from sahool_dlq.settings import Settings
from support import ROOT

pytestmark = pytest.mark.xdist_group("prefect")  # one Prefect server is enough

SILENT_SECONDS, AWAY_SECONDS = 40, 50
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)


def after(*seconds: float) -> list[datetime]:
    return [BEGAN + timedelta(seconds=each) for each in seconds]


@pytest.mark.parametrize(
    ("received", "seconds"),
    [
        ([], 0),  # no process was heard from: nothing is known
        (after(-60, -30, 0), 0),
        (after(10, 20, 30, 40), 40),
        (after(40, 10, 30, 20), 40),  # in any order
        (after(30, 60, 90, 120), 120),
        (after(10, 3_610), 40),  # an hour in which the server was away
        (after(10, 3_610, 3_620, 7_220), 80),
    ],
)
def test_silence_counts_while_others_are_heard(received: list[datetime], seconds: float) -> None:
    assert HEARTBEAT_SECONDS == 30
    assert heard_seconds(received, BEGAN) == seconds


# Prefect allows heartbeats every 30 seconds at most, which is too slow for a test.
QUICK = """
import asyncio, time
import prefect.flow_engine
from prefect import flow, tags

prefect.flow_engine.MINIMUM_HEARTBEAT_INTERVAL = 1
prefect.flow_engine.BaseFlowRunEngine.heartbeat_seconds = property(lambda self: 3)
"""
RUN = """
@flow(name="{name}")
def work():
    time.sleep(3_600)

with tags("dlq"):
    work()
"""
WATCH = f"""
import sahool_dlq.orchestration.silent
from flows.watch_runs import watch_runs

sahool_dlq.orchestration.silent.HEARTBEAT_SECONDS = 3.0
while True:
    try:
        asyncio.run(watch_runs(silent_seconds={SILENT_SECONDS}))
    except Exception as error:  # the server is away
        print(repr(error), flush=True)
    time.sleep(1)
"""


@contextmanager
def python(code: str, environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs this code."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(QUICK + code)],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def run_of(platform: Platform, name: str) -> dict[str, Any] | None:
    """The latest run of a flow."""
    wanted = {"flows": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC", "limit": 1}
    found: list[dict[str, Any]] = platform.call("/flow_runs/filter", wanted)
    return found[0] if found else None


def last_heard(platform: Platform, run_id: str | None = None) -> datetime | None:
    """The time of the last heartbeat of a run, or of any run."""
    wanted: dict[str, Any] = {"event": {"name": ["prefect.flow-run.heartbeat"]}}
    if run_id is not None:
        wanted["resource"] = {"id": [f"prefect.flow-run.{run_id}"]}
    found = platform.call("/events/filter", {"filter": wanted, "limit": 1})["events"]
    return datetime.fromisoformat(found[0]["received"]) if found else None


def looked(platform: Platform, since: datetime) -> dict[str, Any] | None:
    """A run of watch-runs that began after this time, once it has ended."""
    wanted = {
        "flows": {"name": {"any_": ["watch-runs"]}},
        "flow_runs": {
            "start_time": {"after_": since.isoformat()},
            "state": {"type": {"any_": ["COMPLETED"]}},
        },
    }
    found: list[dict[str, Any]] = platform.call("/flow_runs/filter", wanted)
    return found[0] if found else None


def test_a_server_that_was_away_takes_no_living_run_for_dead(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    own = postgres_server.create_database("watched")
    with ExitStack() as stack:
        server = stack.enter_context(PrefectServer(tmp_path, database_dsn=own, has_login=False))
        environment = os.environ | server.environment
        platform = Platform(Settings(home=tmp_path), server, environment, own)
        alive, killed = (
            stack.enter_context(python(RUN.format(name=name), environment, tmp_path / name))
            for name in ("living", "dying")
        )
        stack.enter_context(python(WATCH, environment, tmp_path / "watch.log"))

        def heard(name: str, since: datetime = BEGAN) -> dict[str, Any] | None:
            run = run_of(platform, name)
            at = last_heard(platform, run["id"]) if run else None
            return run if at is not None and at > since else None

        def state(run: dict[str, Any]) -> str:
            return str(platform.call(f"/flow_runs/{run['id']}")["state_type"])

        living = until(lambda: heard("living"), "a living run")
        dying = until(lambda: heard("dying"), "another")
        until(lambda: looked(platform, BEGAN), "the one that watches")
        killed.kill()
        server.stop()
        time.sleep(AWAY_SECONDS)  # longer than the limit, on purpose
        alive.send_signal(signal.SIGSTOP)  # it takes its time to connect again
        back = datetime.now(UTC)
        server.start()
        until(lambda: (last_heard(platform) or BEGAN) > back or None, "the watcher's heartbeat")
        again = datetime.now(UTC)  # earlier runs saw no heartbeat after that, not even their own
        until(lambda: looked(platform, again), "a look that knows of it")
        assert state(living) == "RUNNING"
        alive.send_signal(signal.SIGCONT)
        until(lambda: heard("living", back), "a heartbeat since then")
        dead = platform.in_state(dying["id"], "CRASHED")
        said = f"Its process sent no heartbeat for {SILENT_SECONDS} s while others did."
        assert dead["state"]["message"] == said
        marked = {"flow_runs": {"name": {"any_": ["watch-runs: 1 dead"]}}}
        watched = until(lambda: platform.call("/flow_runs/filter", marked) or None, "its report")
        told = platform.ended(watched[0]["id"])["state"]["message"]
        assert told == f"Marked as crashed: {dying['name']}"
        now = datetime.now(UTC)
        until(lambda: looked(platform, now), "another look")
        assert state(living) == "RUNNING"
