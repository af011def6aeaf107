"""`dlq up` as a person runs it: addresses, other commands that find it, Ctrl-C, data that stay."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
from test_demo import processes_below

from pipelines.embedded import PostgresServer

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("DLQ_", "PREFECT_"))}
DLQ = [sys.executable, "-m", "pipelines.cli"]


@contextmanager
def up(home: Path) -> Iterator[dict[str, str]]:
    """`dlq up` until it has printed its addresses; Ctrl-C at the end."""
    process = subprocess.Popen(
        [*DLQ, "up", "--json", "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def dlq(home: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [*DLQ, *arguments, "--json", "--home", str(home)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


async def _publish(url: str) -> None:
    connection = await nats.connect(url)
    await connection.jetstream().publish("sahool.dlq.odd", b"not a dead letter")
    await connection.close()


def automations(prefect_ui: str, password: str) -> list[str]:
    login = base64.b64encode(f"dlq:{password}".encode()).decode()
    request = urllib.request.Request(
        f"{prefect_ui}/api/automations/filter",
        data=b"{}",
        headers={"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [automation["name"] for automation in json.load(answer)]


def test_other_commands_find_it_and_data_survive_a_restart(tmp_path: Path) -> None:
    with up(tmp_path) as places:
        assert set(places) == {"nats_url", "postgres", "lake_uri", "prefect_ui", "prefect_login"}
        file = tmp_path / "endpoints.json"
        assert file.stat().st_mode & 0o777 == 0o600
        asyncio.run(_publish(json.loads(file.read_text())["nats_url"]))
        dlq(tmp_path, "drain")
        assert dlq(tmp_path, "status")["failures"] == {"pending": 1}
    assert processes_below(tmp_path) == []
    assert not (tmp_path / "endpoints.json").exists()
    with up(tmp_path) as places:
        status = dlq(tmp_path, "status")
        names = automations(places["prefect_ui"], Path(places["prefect_login"]).read_text().strip())
    assert sorted(names) == sorted(set(names))  # the second deploy added none
    assert len(names) >= 3
    with PostgresServer(tmp_path) as postgres:
        postgres.remove()  # as root the data are outside the temporary folder
    assert status["messages"] == 1
    assert status["failures"] == {"pending": 1}
    assert status["sinks"] == {"postgres": 1, "lake dead_letters": 1, "lake case_events": 1}
