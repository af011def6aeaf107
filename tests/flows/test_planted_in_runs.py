"""Failed logins of runs: no password in Prefect's data, in a log or below DLQ_HOME."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from prefect_api import Platform
from psycopg import sql

from sahool_dlq.settings import environment_of
from support import ROOT
from support.servers import nats

pytestmark = pytest.mark.xdist_group("prefect")  # one Prefect server is enough

PLANTED = ("hunt3r", "pl4nted")
PASSWORD = "hunt3r/pl4nted"
RUNS = """
import asyncio
from flows.alert import alert
from flows.build_marts import build_marts
from flows.drain_dlq import drain_dlq
from flows.redrive import redrive_selected, redrive_transient
from flows.verify import verify

given = {"reason": "a test", "your_name": "ana", "failures": {"error_type": "ValueError"}}
for flow, parameters in (
    (drain_dlq, {}), (alert, {}), (build_marts, {}), (verify, {}), (redrive_transient, {}),
    (redrive_selected, given),
):
    try:
        ran = flow(**parameters)
        asyncio.run(ran) if asyncio.iscoroutine(ran) else None
    except Exception as error:
        print(type(error).__name__, error, flush=True)
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a NATS server that requires another password."""
    config = 'authorization { users: [{ user: "u", password: "another" }] }'
    with nats(tmp_path_factory.mktemp("guarded"), config) as server:
        yield server.url.removeprefix("nats://")


@pytest.mark.parametrize("refuses", ["nats", "postgres"])
def test_no_state_log_or_file_of_a_run_holds_a_password(
    prefect_platform: Platform, guarded: str, tmp_path: Path, refuses: str
) -> None:
    platform, home = prefect_platform, tmp_path / "home"
    planted = {
        "nats": {"DLQ_NATS_URL": f"nats://u:{PASSWORD}@{guarded}"},
        "postgres": {
            "DLQ_POSTGRES_DSN": f"postgresql://u:{PASSWORD.replace('/', '%2F')}@127.0.0.1:1/d"
        },
    }[refuses]
    environment = os.environ | environment_of(platform.settings) | platform.server.environment
    environment |= {"DLQ_HOME": str(home), "PREFECT_LOGGING_EXTRA_LOGGERS": "nats"}
    done = subprocess.run(
        [sys.executable, "-c", RUNS],
        env=environment | planted,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert not done.returncode, done.stderr
    said = [line for line in done.stdout.splitlines() if "127.0.0.1" in line]
    # Who asks NATS depends on what other tests left to do.
    assert len(said) >= (6 if refuses == "postgres" else 3), done.stdout + done.stderr
    kept = dict(_rows(platform.prefect_dsn))
    assert "127.0.0.1" in kept["flow_run_state"]
    assert "127.0.0.1" in kept["log"]
    texts = kept | {"output": done.stdout + done.stderr}
    texts |= {str(f): f.read_text(errors="replace") for f in home.rglob("*") if f.is_file()}
    assert [name for name, text in texts.items() if any(part in text for part in PLANTED)] == []


def _rows(dsn: str) -> Iterator[tuple[str, str]]:
    """Every table of a database, as text."""
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        for (table,) in tables:
            rows = connection.execute(
                sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))
            ).fetchall()
            yield table, "\n".join(row for (row,) in rows)
