"""A Prefect server with the deployments of prefect.yaml and a worker, shared by these tests."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import nats
import pytest
from prefect_api import ENDED, SECRET, Drained, Platform, letter_of, make_late, until

from sahool_dlq.embedded import NatsServer, PostgresServer, PrefectServer
from sahool_dlq.embedded.worker import deploy, worker
from sahool_dlq.jobs.drain import migrate_all
from sahool_dlq.orchestration.deploy import RETIRED
from sahool_dlq.settings import Settings, environment_of
from sahool_dlq.stores.postgres.database import database

_running = ExitStack()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the platform after the last of these tests: its schedules start a run every few seconds,
    and a session lasts much longer.
    """
    if nextitem is None or nextitem.path.parent != item.path.parent:
        _running.close()


@pytest.fixture(scope="session")
def prefect_platform(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Platform:
    """Settings, server, and the environment of a worker; everything is deployed.

    It has its own NATS server, because the drain would also store failures of other tests'
    consumers. The password of the database is `SECRET`, which the worker reads only from blocks.
    """
    home = tmp_path_factory.mktemp("prefect")
    dsn = postgres_server.create_database("flows").replace("@", f":{SECRET}@")
    own = postgres_server.create_database("prefect")
    nats_server = _running.enter_context(NatsServer(home, has_login=False))
    server = _running.enter_context(PrefectServer(home, database_dsn=own, has_login=False))
    settings = Settings(
        home=home, nats_url=nats_server.url, postgres_dsn=dsn, lake_uri=str(home / "lake")
    )
    environment = os.environ | environment_of(settings) | server.environment
    environment |= {
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DLQ_REDRIVE_TIMEOUT_SECONDS": "2",
        "DLQ_REDRIVE_APPROVAL_COUNT": "2",
        "DLQ_REDRIVE_SUBJECTS": '["odd.>"]',  # which no stream captures: an outcome at once
    }
    platform = Platform(settings, server, environment, own)
    for name in RETIRED:
        platform.call("/automations/", _automation(name))
    deploy(environment, "--secrets")
    platform.pause("alert", "watch-runs", "redrive-transient")  # tests start these themselves
    del environment["DLQ_POSTGRES_DSN"]
    return platform


def _automation(name: str) -> dict[str, Any]:
    """An automation that never does anything."""
    trigger = {"type": "event", "posture": "Reactive", "expect": ["nothing"], "threshold": 1}
    return {"name": name, "trigger": trigger | {"within": 0}, "actions": [{"type": "do-nothing"}]}


@pytest.fixture(scope="session")
def platform_with_worker(prefect_platform: Platform) -> Platform:
    """The same platform with a running worker."""
    _running.enter_context(worker(prefect_platform.settings.home, prefect_platform.environment))
    return prefect_platform


@pytest.fixture(scope="session")
def drained(platform_with_worker: Platform) -> Drained:
    """Dead letters, drained by a late run. They are new, so the marts are built too."""
    platform = platform_with_worker
    with ThreadPoolExecutor(1) as other:  # if a browser runs, this thread has a loop already
        other.submit(lambda: asyncio.run(_dead_letters(platform.settings))).result()
    run = until(lambda: _run_that_drained(platform, make_late(platform)), "the drain", 600)
    built = until(lambda: _by_automation(platform), "marts after a drain")["id"]
    platform.ended(built)
    with database(platform.settings.postgres_dsn.get_secret_value()) as connection:
        row = connection.execute("SELECT DISTINCT group_id FROM failed_events").fetchone()
    assert row
    return Drained(run, built, row[0])


async def _dead_letters(settings: Settings) -> None:
    """Three dead letters of one group, for a subject that no stream captures."""
    await migrate_all(settings)
    connection = await nats.connect(settings.nats_url.get_secret_value())
    for number in range(3):
        letter = letter_of(number, original_subject="odd.ndvi", error_message="[x](javascript:x)")
        await connection.jetstream().publish("sahool.dlq.odd", letter)
    await connection.close()


def _run_that_drained(platform: Platform, late: str | None) -> str | None:
    """The id of the late run, or of a scheduled run that was faster."""
    if late is not None:
        platform.in_state(late, *ENDED)
    for run in platform.runs("drain-dlq"):
        if run["name"] == "drain-dlq: 3 messages":
            return str(run["id"])
    return None


def _by_automation(platform: Platform) -> dict[str, Any] | None:
    """The run that built the marts because a drain had stored new failures."""
    for run in platform.runs("build-marts"):
        if (run["created_by"] or {}).get("type") == "AUTOMATION":
            return run
    return None
