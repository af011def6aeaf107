"""`dlq up`."""

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from pipelines.cli.output import console, errors, print_json
from pipelines.cli.verb import verb
from pipelines.demo.live import live
from pipelines.embedded import NatsServer, PostgresServer, PrefectServer
from pipelines.embedded.private import write_private
from pipelines.embedded.worker import deploy, worker
from pipelines.jetstream.address import Server, revealed, shown, split_servers
from pipelines.jobs import migrate_all
from pipelines.settings import (
    ENDPOINTS_FILE,
    Settings,
    environment_of,
    is_given,
    nats_settings,
)
from pipelines.stores.refusals import where


@verb
@click.option("--fleet", "has_fleet", is_flag=True, help="run six services that fail now and then")
def command(settings: Settings, is_json: bool, has_fleet: bool) -> None:
    """Run NATS, PostgreSQL, Prefect with its UI, and the scheduled flows, until Ctrl-C.

    Data stay in DLQ_HOME. A server that DLQ_NATS_URL or DLQ_POSTGRES_DSN names is used instead of
    an embedded one. Other `dlq` commands in this folder find the servers by themselves.
    """
    asyncio.run(_up(settings, is_json, has_fleet))


async def _up(given: Settings, is_json: bool, has_fleet: bool) -> None:
    home = given.home.absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    stop = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    with contextlib.ExitStack() as stack:
        nats_url, dsn, prefect_dsn, farm_dsn = _servers(given, home, stack)
        addresses = {"nats_url": SecretStr(revealed(nats_url)), "postgres_dsn": SecretStr(dsn)}
        settings = given.model_copy(update={"home": home, "lake_uri": given.lake, **addresses})
        await migrate_all(settings)
        _say("Starting Prefect")
        prefect = stack.enter_context(PrefectServer(home, database_dsn=prefect_dsn))
        environment = environment_of(settings) | prefect.environment
        _say("Deploying the flows")
        await asyncio.to_thread(deploy, environment)
        stack.enter_context(worker(home, environment))
        places = {
            "nats_url": shown(split_servers(nats_url)),
            "postgres": where(dsn).removeprefix("PostgreSQL at "),
            "lake_uri": settings.lake,
            "prefect_ui": prefect.ui_url,
            "prefect_login": str(prefect.password_file),
        }
        logins = {**nats_settings(settings), "postgres_dsn": dsn}
        _remember(home, places | logins, stack)
        _print(places, is_json)
        await _until(stop, home, settings, farm_dsn if has_fleet else None)
        _say("Stopping")


def _servers(
    given: Settings, home: Path, stack: contextlib.ExitStack
) -> tuple[Server, str, str | None, str]:
    """Addresses of NATS and PostgreSQL, of Prefect's database, and of the fleet's own."""
    nats_url: Server = given.nats_url
    dsn = given.postgres_dsn.get_secret_value()
    if given.nats_context and not is_given(given, "nats_url"):
        nats_url = ",".join(map(revealed, given.access.servers))
    elif not is_given(given, "nats_url"):
        _say("Starting NATS")
        nats_url = stack.enter_context(NatsServer(home)).url
    if is_given(given, "postgres_dsn"):
        return nats_url, dsn, None, dsn
    _say("Starting PostgreSQL")
    postgres = stack.enter_context(PostgresServer(home))
    databases = [postgres.create_database(name) for name in ("prefect", "farm")]
    return nats_url, postgres.dsn, databases[0], databases[1]


def _remember(home: Path, places: dict[str, str], stack: contextlib.ExitStack) -> None:
    """Let other commands find the servers as long as they run."""
    file = home / ENDPOINTS_FILE
    write_private(file, json.dumps(places))
    stack.callback(file.unlink, missing_ok=True)


async def _until(stop: asyncio.Event, home: Path, settings: Settings, farm_dsn: str | None) -> None:
    """Wait for Ctrl-C; a fleet that dies ends the wait with its error."""
    waiting: set[asyncio.Task[Any]] = {asyncio.create_task(stop.wait())}
    if farm_dsn is not None:
        waiting.add(asyncio.create_task(live(home, settings, farm_dsn)))
    done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for task in done:
        task.result()


def _print(places: dict[str, str], is_json: bool) -> None:
    if is_json:
        print_json(places)
        return
    console.print()
    for name, place in places.items():
        console.print(f"  [cyan]{name.replace('_', ' '):<14}[/cyan] {place}", soft_wrap=True)
    console.print(
        "\nThe flows run as scheduled; the UI shows and starts them. In another terminal,"
        " from this folder: dlq status, dlq groups, dlq redrive … Ctrl-C stops everything."
    )


def _say(text: str) -> None:
    errors.print(f"[dim]{text}[/dim]")
