"""Each command of deploy/kubernetes does its work with the rights of its secret, and no others."""

import asyncio
import contextlib
import re
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sahool_dlq.embedded.server import HOST, free_port
from support import ROOT
from support.consumer_log import until
from support.kubernetes import pods, secret_of
from support.platform_log import environment
from support.roles import LOGINS, Roles, service

pytestmark = pytest.mark.xdist_group("roles")

# Secret: user of NATS, login of PostgreSQL.
SECRETS = {
    "dlq-operator": ("operator", "postgres"),
    "dlq-drain": ("drain", "drain"),
    "dlq-bridge": ("bridge", "analyst"),
    "dlq-analyst": ("drain", "analyst"),
    "dlq-alerts": ("drain", "alerts"),
    "dlq-redriver": ("redriver", "redriver"),
}
# What lasts, and the stream whose consumer it pulls from.
LASTING = {"dlq-monitor": "SAHOOL_DLQ", "dlq-bridge": "SAHOOL_ADVISORIES", "dlq-exporter": None}
WORKLOADS = dict(pods("cronjobs"))


@contextlib.asynccontextmanager
async def started(
    roles: Roles, name: str, *, listen: str | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command of a workload; what it says is in the file `name` of the platform's home."""
    pod = WORKLOADS[name]
    program, *arguments = pod["containers"][0]["command"]
    assert program == "dlq"
    settings = roles.settings(*SECRETS[secret_of(pod)])
    if listen is not None:
        arguments = [listen if each.startswith("0.0.0.0:") else each for each in arguments]
    home = Path(settings.home)
    with (home / name).open("w") as said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sahool_dlq.cli"),
            *(each.replace("/data", str(home)) for each in arguments),
            env=environment(settings, HOME=str(home), DLQ_REDRIVE_DELAY_SECONDS="0"),
            stdout=said,
            stderr=said,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("name", sorted(WORKLOADS.keys() - set(LASTING)))
async def test_a_job_ends_well(roles: Roles, name: str) -> None:
    async with service(roles), started(roles, name) as process, asyncio.timeout(120):
        status = await process.wait()
    assert status == 0, (roles.home / name).read_text()
    if name == "dlq-redrive":
        done = "SELECT state, count(*) FROM redrives GROUP BY 1"
        assert roles.rows("analyst", done) == [("succeeded", 2)]


@pytest.mark.parametrize("name", LASTING)
async def test_what_lasts_works_until_it_is_told_to_end(roles: Roles, name: str) -> None:
    listen = f"{HOST}:{free_port('exporter')}"
    said = roles.home / name

    async def works() -> bool:
        if (stream := LASTING[name]) is None:
            with contextlib.suppress(OSError):
                return b"dlq_" in await asyncio.to_thread(_read, f"http://{listen}/metrics")
            return False
        consumers = await operator.jetstream().consumers_info(stream)
        return any(each.num_waiting for each in consumers)

    async with (
        roles.client("operator") as operator,
        started(roles, name, listen=listen) as process,
        asyncio.timeout(120),
    ):
        await until(works, 60)
        process.send_signal(signal.SIGTERM)
        status = await process.wait()
    assert status == 0, said.read_text()
    assert "does not permit" not in said.read_text()


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return bytes(answer.read())


def test_the_document_names_the_rights_of_each_secret() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    for secret, (user, login) in SECRETS.items():
        roles_of_login = LOGINS.get(login, "owner of the tables")
        assert f"| `{secret}` | `{user}` | {roles_of_login} |" in re.sub(
            "`(dlq_[a-z]+)`", r"\1", text
        )
