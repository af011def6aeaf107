"""The code of README and docs runs as it is; only the addresses are replaced."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
from nats.js.errors import NotFoundError

from sahool_dlq.embedded import NatsServer
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.lake_views import write_views
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate
from support import ROOT


def snippets(page: str, containing: str) -> list[str]:
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    return [block for block in found if containing in block]


@pytest.mark.parametrize("page", ["README.md", "docs/services.md"])
async def test_a_service_handles_events_and_dead_letters_what_it_can_not(
    page: str, nats_server_factory: Callable[..., NatsServer], tmp_path: Path
) -> None:
    [snippet] = snippets(page, "asyncio.run(main())")
    file = tmp_path / "service.py"
    file.write_text(snippet)
    server = nats_server_factory()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", file),
        env={**os.environ, "NATS_URL": server.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with await nats.connect(server.url) as client, asyncio.timeout(120):
            js = client.jetstream(timeout=20)
            while not await is_subscribed(server):
                assert process.returncode is None, (await process.communicate())[1].decode()
                await asyncio.sleep(0.1)
            subject = "sahool.analysis.ndvi_computed"
            await js.publish(subject, json.dumps({"field_id": "field-7"}).encode())
            assert b"field-7" in await process.stdout.readline()
            await js.publish(subject, b"no JSON")  # its error is fatal: no retry
            while not (await js.stream_info("SAHOOL_DLQ")).state.messages:
                await asyncio.sleep(0.1)
        process.terminate()
        await asyncio.wait_for(process.communicate(), 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0


async def is_subscribed(server: NatsServer, stream: str = "SAHOOL_EVENTS") -> bool:
    async with await nats.connect(server.url) as client:
        with contextlib.suppress(NotFoundError):
            return bool(await client.jetstream(timeout=20).consumers_info(stream))
    return False


TASK = """
import asyncio
from service import broker, compute

async def main():
    await broker.startup()
    await compute.kiq("field-7")
    await broker.shutdown()

asyncio.run(main())
"""


@pytest.mark.parametrize("framework", ["with_dead_letters", "FastStream", "TaskiqJetStream"])
async def test_a_service_beside_a_framework_dead_letters_what_it_can_not_handle(
    framework: str, nats_server_factory: Callable[..., NatsServer], tmp_path: Path
) -> None:
    marks = {
        "with_dead_letters": "import nats\n",
        "FastStream": "from faststream",
        "TaskiqJetStream": "from taskiq_nats",
    }
    [snippet] = snippets("docs/services.md", marks[framework])
    (tmp_path / "service.py").write_text(snippet)
    is_task = framework == "TaskiqJetStream"
    program = ["service.py"]
    if is_task:
        program = ["-m", "taskiq", "worker", "service:broker", "--workers", "1"]
    subject, stream = (
        ("plant.tasks", "TASKS") if is_task else ("sahool.analysis.x", "SAHOOL_EVENTS")
    )
    server = nats_server_factory()
    env = {**os.environ, "NATS_URL": server.url, "PYTHONPATH": str(tmp_path)}
    async with await nats.connect(server.url) as client:
        await ensure_streams(client.jetstream(timeout=20), StreamNames())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", *program),
            cwd=tmp_path,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Taskiq worker starts its own processes
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(120):
                js = client.jetstream(timeout=20)
                while not await is_subscribed(server, stream):
                    assert process.returncode is None, (await process.communicate())[1].decode()
                    await asyncio.sleep(0.1)
                if is_task:
                    await asyncio.to_thread(run, TASK, tmp_path, env)
                else:
                    await js.publish(subject, json.dumps({"field_id": "field-7"}).encode())
                while b"computing field-7" not in (line := await process.stdout.readline()):
                    assert line
                await js.publish(subject, b"no JSON")  # its error is fatal: no retry
                while not (await js.stream_info("SAHOOL_DLQ")).state.messages:
                    await asyncio.sleep(0.1)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.wait_for(process.communicate(), 60)


def run(snippet: str, folder: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=folder,
        env=env or {k: v for k, v in os.environ.items() if not k.startswith("DLQ_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("page", "containing"),
    [("README.md", "polars"), ("docs/report.md", "charts.survival")],
)
def test_the_lake_is_read(page: str, containing: str, simulated: Settings, tmp_path: Path) -> None:
    write_views(simulated)
    (tmp_path / ".dlq").mkdir()
    (tmp_path / ".dlq/lake").symlink_to(simulated.lake)
    [snippet] = snippets(page, containing)
    run(snippet, tmp_path)


def test_the_database_is_read(database_dsn: str, tmp_path: Path) -> None:
    migrate(database_dsn)
    [snippet] = snippets("docs/services.md", "create_engine")
    where = "postgresql+psycopg://reader@db/dlq"
    assert where in snippet
    run(snippet.replace(where, database_dsn.replace("://", "+psycopg://")), tmp_path)
