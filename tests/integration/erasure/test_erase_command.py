"""The verb `dlq erase`."""

import asyncio
import json
import os
import pty
import subprocess

import pytest
from click.testing import CliRunner, Result
from nats.aio.client import Client

from sahool_dlq.cli import _command
from sahool_dlq.erasure.erase import preview
from sahool_dlq.errors import ErasureError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.erasing import World
from support.platform_log import (
    DLQ,
    ROOT,
    environment,
    execute,
    letter,
    query,
    state_of,
)


async def run(world: World, *arguments: str) -> Result:
    """Run the verb without a terminal."""
    runner = CliRunner(env={**environment(world.settings), "COLUMNS": "160"})
    return await asyncio.to_thread(
        runner.invoke, _command(), ["erase", "--tenant", world.tenant, *arguments]
    )


async def test_the_command_shows_asks_and_says(settings: Settings, client: Client) -> None:
    world = World(settings, client)
    await world.publish(world.letter(1), letter(2))
    await drain_log(world.settings)
    execute(
        settings,
        "INSERT INTO audit_log (actor, action, detail) VALUES ('ann', 'redrive.planned', %s)",
        json.dumps({"selection": {"tenant_id": world.tenant}}),
    )
    before = state_of(settings)
    told = await run(world, "--dry-run", "--json")
    assert json.loads(told.stdout)["failures"] == {"pending": 1}
    unasked = await run(world, "--reason", "left")
    assert unasked.exit_code == 1
    assert "nobody can confirm" in unasked.stderr
    named = await run(world, "--yes", "--reason", f"{world.tenant} left")
    assert (named.exit_code, named.stderr.count("\n")) == (1, 1)
    assert (await run(world, "--yes")).exit_code == 2
    refused = await asyncio.to_thread(answer_no, world)
    assert "Nothing was changed" in refused
    assert "rows of failed_events (1 pending)" in refused
    assert "because the audit is append-only: 1." in refused
    assert state_of(settings) == before
    done = await run(world, "--yes", "--reason", "left")
    assert done.exit_code == 0, done.stderr
    assert "rows of failed_events (1 pending)" in done.stdout
    audited = await asyncio.to_thread(
        CliRunner(env=environment(settings)).invoke, _command(), ["audit"], catch_exceptions=False
    )
    assert "erase  by " in audited.stdout
    assert "  1 failures\n    left" in audited.stdout
    again = await run(world, "--yes", "--reason", "left")
    assert again.stdout.startswith("There are no data of acme-")


def answer_no(world: World) -> str:
    """The output of the verb when a person at a terminal answers no."""
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    done = subprocess.run(
        [*DLQ, "erase", "--tenant", world.tenant, "--reason", "left"],
        cwd=ROOT,
        env=environment(world.settings, COLUMNS="160"),
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    os.close(theirs)
    os.close(ours)
    return done.stdout


async def test_unreadable_messages_are_reported(settings: Settings, client: Client) -> None:
    world = World(settings, client)
    await world.publish(b"no JSON", letter(1))
    nothing = await run(world, "--dry-run")
    assert nothing.stdout.startswith(f"There are no data of {world.tenant}.")
    said = "1 dead letter that cannot be read may hold data of the tenant, and stays."
    assert said in nothing.stdout
    await world.publish(world.letter(2), b"nor this")
    done = await run(world, "--yes", "--reason", "left", "--json")
    assert json.loads(done.stdout)["unread_dead_letters"] == 2
    [audited] = query(settings, "SELECT detail FROM audit_log")
    assert audited["detail"]["unread_dead_letters"] == 2
    again = await run(world, "--dry-run")
    assert (
        "2 dead letters that cannot be read may hold data of the tenant, and stay." in again.stdout
    )


@pytest.mark.parametrize("tenant", ["", "  "])
async def test_an_empty_tenant_is_refused(settings: Settings, client: Client, tenant: str) -> None:
    with pytest.raises(ErasureError, match="--tenant is empty"):
        await preview(settings, tenant)
