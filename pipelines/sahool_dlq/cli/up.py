"""`dlq up`."""

import asyncio
import contextlib
import json
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click
from pydantic import SecretStr

from sahool_dlq.cli.failing import CHECKOUT_ONLY, checkout_only
from sahool_dlq.cli.output import console, errors, safe
from sahool_dlq.cli.verb import tell, verb
from sahool_dlq.embedded import NatsServer, PostgresServer, PrefectServer
from sahool_dlq.embedded.private import write_private
from sahool_dlq.embedded.worker import WORKER_LOG, deploy, worker
from sahool_dlq.errors import MissingPackageError
from sahool_dlq.jetstream.address import Server, revealed, shown, split_servers
from sahool_dlq.jobs.drain import migrate_all
from sahool_dlq.lazy import is_installed
from sahool_dlq.settings import (
    ENDPOINTS_FILE,
    Settings,
    environment_of,
    is_given,
    nats_settings,
)
from sahool_dlq.stores.postgres.refusals import where

_WATCH_SECONDS = 1.0


class _Running(Protocol):
    @property
    def is_running(self) -> bool: ...


@dataclass(slots=True)
class _Parts:
    """What was started, and is to be running until Ctrl-C: each with its log."""

    running: dict[str, tuple[_Running, Path]] = field(default_factory=dict)

    async def watch(self) -> None:
        """Say of each part that ends that it did."""
        while self.running:
            for title, (part, log) in list(self.running.items()):
                if not part.is_running:
                    del self.running[title]
                    _warn(f"{title} ended: see {log}. To restart it: Ctrl-C, then dlq up")
            await asyncio.sleep(_WATCH_SECONDS)


@verb
@click.option(
    "--fleet/--no-fleet",
    "has_fleet",
    default=None,
    help="run six services that fail now and then [only in a checkout, on servers of its own]",
)
def command(settings: Settings, has_fleet: bool | None) -> None:
    """Run NATS, PostgreSQL, Prefect with its UI, and the scheduled flows, until Ctrl-C.

    Data stay in DLQ_HOME. A server that DLQ_NATS_URL or DLQ_POSTGRES_DSN names is used instead of
    an embedded one, and nothing is made to fail on it unless --fleet says so. Other `dlq` commands
    in this folder find the servers by themselves.
    """
    is_checkout = is_installed(*CHECKOUT_ONLY)
    if has_fleet and not is_checkout:
        raise MissingPackageError(checkout_only("dlq up --fleet"))
    if has_fleet is None:
        is_elsewhere = is_given(settings, "nats_url") or is_given(settings, "postgres_dsn")
        has_fleet = is_checkout and not is_elsewhere
    asyncio.run(_up(settings, has_fleet))


async def _up(given: Settings, has_fleet: bool) -> None:
    home = given.home.absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    parts = _Parts()
    with contextlib.ExitStack() as stack:
        nats_url, dsn, prefect_dsn, farm_dsn = _servers(given, home, stack, parts)
        addresses = {"nats_url": SecretStr(revealed(nats_url)), "postgres_dsn": SecretStr(dsn)}
        settings = given.model_copy(update={"home": home, "lake_uri": given.lake, **addresses})
        await migrate_all(settings)
        _say("Starting Prefect (the first time takes half a minute)")
        prefect = stack.enter_context(PrefectServer(home, database_dsn=prefect_dsn))
        parts.running["Prefect"] = prefect, prefect.log
        environment = environment_of(settings) | prefect.environment
        _say("Deploying the flows")
        await asyncio.to_thread(deploy, environment)
        runner = stack.enter_context(worker(home, environment))
        parts.running["Prefect's worker"] = runner, home / WORKER_LOG
        places = {
            "nats_url": shown(split_servers(nats_url)),
            "postgres": where(dsn).removeprefix("PostgreSQL at "),
            "lake_uri": settings.lake,
            "prefect_ui": prefect.ui_url,
            "prefect_login": str(prefect.password_file),
            "dead_letters": f"{prefect.ui_url}/artifacts/key/dead-letters",
        }
        logins = {**nats_settings(settings), "postgres_dsn": dsn}
        _remember(home, places | logins, stack)
        tell(places, lambda _: _print(places, given.home, has_fleet))
        work = [parts.watch()]
        if has_fleet:
            from sahool_dlq.demo.live import live  # not in a wheel

            started = time.monotonic()

            def told(text: str) -> None:
                minutes, seconds = divmod(int(time.monotonic() - started), 60)
                _say(f"{minutes:3}:{seconds:02}  {text}")

            work.append(live(home, settings, farm_dsn, told, prefect.start_run))
        await _until(stop, work)
        _say("Stopping")


def _servers(
    given: Settings, home: Path, stack: contextlib.ExitStack, parts: _Parts
) -> tuple[Server, str, str | None, str]:
    """Addresses of NATS and PostgreSQL, of Prefect's database, and of the fleet's own."""
    nats_url: Server = given.nats_url
    dsn = given.postgres_dsn.get_secret_value()
    if given.nats_context and not is_given(given, "nats_url"):
        nats_url = ",".join(map(revealed, given.access.servers))
    elif not is_given(given, "nats_url"):
        _say("Starting NATS")
        nats = stack.enter_context(NatsServer(home))
        nats_url, parts.running["NATS"] = nats.url, (nats, nats.log)
    if is_given(given, "postgres_dsn"):
        return nats_url, dsn, None, dsn
    _say("Starting PostgreSQL")
    postgres = stack.enter_context(PostgresServer(home))
    parts.running["PostgreSQL"] = postgres, postgres.log
    databases = [postgres.create_database(name) for name in ("prefect", "farm")]
    return nats_url, postgres.dsn, databases[0], databases[1]


def _remember(home: Path, places: dict[str, str], stack: contextlib.ExitStack) -> None:
    """Let other commands find the servers as long as they run."""
    file = home / ENDPOINTS_FILE
    write_private(file, json.dumps(places))
    stack.callback(file.unlink, missing_ok=True)


async def _until(stop: asyncio.Event, work: list[Coroutine[Any, Any, None]]) -> None:
    """Wait for Ctrl-C; work that ends by an error ends the wait with it."""
    stopping = asyncio.create_task(stop.wait())
    tasks = [asyncio.create_task(each) for each in work]
    waiting: set[asyncio.Task[Any]] = {stopping, *tasks}
    while waiting and not stopping.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(task.exception() for task in done):
            break
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for task in (stopping, *tasks):
        if not task.cancelled() and (error := task.exception()):
            raise error


def _print(places: dict[str, str], home: Path, has_fleet: bool) -> None:
    console.print()
    for name, place in places.items():
        console.print(f"  [cyan]{name.replace('_', ' '):<14}[/cyan] {safe(place)}", soft_wrap=True)
    if has_fleet:
        console.print(
            "\nSix small services run, and something that they need is broken on purpose. The"
            " first failures come within seconds, their groups and the page dead letters within"
            " two minutes, the first automatic cure within three. Later there is an outage every"
            " ten minutes that ends by itself. --no-fleet starts none of this."
        )
    console.print(
        "\nThe flows run as scheduled; the UI shows and starts them. It asks once for"
        f" dlq:PASSWORD, which `cat {safe(shlex.quote(places['prefect_login']))}` prints. Try in"
        " another terminal, from this folder:\n",
        soft_wrap=True,
    )
    for arguments in ("status", "groups", "redrive --transient --dry-run"):
        console.print(f"  {safe(f'{_program()} {arguments}{_home(home)}')}", soft_wrap=True)
    console.print("\nCtrl-C stops everything.")


def _program() -> str:
    """How this program was called, so that it can be called so again."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m sahool_dlq.cli"
    found = shutil.which(called.name)
    is_on_path = found is not None and Path(found).absolute() == called.absolute()
    return called.name if is_on_path else shlex.quote(str(called))


def _home(home: Path) -> str:
    is_default = home == Settings.model_fields["home"].default
    return "" if is_default else f" --home {shlex.quote(str(home))}"


def _say(text: str) -> None:
    errors.print(f"[dim]{safe(text)}[/dim]", soft_wrap=True)


def _warn(text: str) -> None:
    errors.print(f"[red]{safe(text)}[/red]", soft_wrap=True)
