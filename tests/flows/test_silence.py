"""A run whose process is gone, and one that Prefect's server could not hear while it was away."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from prefect_api import Platform, until

pytestmark = pytest.mark.xdist_group("prefect")  # one Prefect server is enough

AWAY_SECONDS = 150  # longer than any silence that is allowed
LONG_FLOW = """
import pathlib, sys, time
from prefect import flow, tags

@flow(name=sys.argv[1], flow_run_name=sys.argv[1])
def long():
    while not pathlib.Path(sys.argv[2]).exists():
        time.sleep(0.2)

with tags("dlq"):
    long()
"""


@contextmanager
def long_run(platform: Platform, folder: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A flow in a process of its own, until the file `stop` is there."""
    script = folder / "long.py"
    script.write_text(LONG_FLOW)
    process = subprocess.Popen(
        [sys.executable, script, name, folder / "stop"],
        env=platform.environment | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def heard(platform: Platform, name: str) -> str | None:
    """The id of the run of this name once the server has looked at a heartbeat of it."""
    wanted = {"flow_runs": {"name": {"any_": [name]}}}
    for run in platform.call("/flow_runs/filter", wanted):
        with psycopg.connect(platform.prefect_dsn) as connection:
            about = f"%{run['id']}%"
            found = "SELECT 1 FROM automation_bucket WHERE bucketing_key::text LIKE %s"
            if connection.execute(found, [about]).fetchone():
                return str(run["id"])
    return None


def test_only_what_the_server_could_have_heard_counts_as_silence(
    platform_with_worker: Platform, tmp_path: Path
) -> None:
    platform = platform_with_worker
    with (
        long_run(platform, tmp_path, "healthy") as healthy_process,
        long_run(platform, tmp_path, "dead") as dead_process,
    ):
        healthy, dead = (
            until(lambda name=name: heard(platform, name), f"a heartbeat of {name}")
            for name in ("healthy", "dead")
        )
        platform.server.kill()
        dead_process.kill()
        time.sleep(AWAY_SECONDS)  # the outage itself
        platform.server.start()
        gone = platform.in_state(dead, "CRASHED")
        assert gone["state"]["message"].startswith("Its process is silent, though")
        assert platform.call(f"/flow_runs/{healthy}")["state_type"] == "RUNNING"
        (tmp_path / "stop").touch()
        assert healthy_process.wait(60) == 0
        platform.in_state(healthy, "COMPLETED")
