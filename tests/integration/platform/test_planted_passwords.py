"""Passwords in every kind of address do not appear in anything that others can read."""

import asyncio
import io
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.cli import _command
from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import SettingsError
from sahool_dlq.events import (
    DLQConsumerConfig,
    NATSConfig,
    NATSConsumerConfig,
    NATSPublisher,
    start_consumer,
    start_dlq_consumer,
)
from sahool_dlq.jobs.drain import drain_log, migrate_all
from sahool_dlq.jobs.status import platform_status
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.refusals import read_dsn, where
from support.servers import nats

PLANTED = ("hunt3r", "pl4nted")
PASSWORDS = (
    *("hunt3r-pl4nted", "hunt3r%40pl4nted", "hunt3r/pl4nted", "hunt3r@pl4nted", "hunt3r?pl4nted"),
    *("hunt3r#pl4nted", "hunt3r:pl4nted", "4222/hunt3r", "5432?pl4nted", "1#hunt3r@pl4nted/x"),
)
VERBS = ("bridge --once", "drain", "status", "migrate", "verify", "erase t --reason x --yes")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server that requires another password."""
    config = 'authorization { users: [{ user: "u", password: "another" }] }'
    with nats(tmp_path_factory.mktemp("guarded"), config) as server:
        yield server


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """Every line that is logged, with its traceback."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def assert_nothing_in(text: str) -> None:
    assert not [part for part in PLANTED if part in text], text


def texts_below(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.read_text(errors="replace")


async def said_by(job: Callable[[], Awaitable[Any]]) -> str:
    """The error as a log would have it, with its causes."""
    try:
        value = await job()
    except Exception as error:
        return "".join(traceback.format_exception(error)) + repr(error)
    return f"{value!r}"


def starts(server: str) -> list[Callable[[], Awaitable[Any]]]:
    """The first steps of a service that uses the library."""
    seconds = {"connect_timeout_seconds": 0.5}
    return [
        lambda: start_consumer(_handle, NATSConsumerConfig(servers=[server], **seconds)),
        lambda: start_dlq_consumer(None, DLQConsumerConfig(servers=[server], **seconds)),
        NATSPublisher(NATSConfig(servers=[server], **seconds)).connect,
    ]


async def _handle(*_: object) -> None: ...


@pytest.mark.parametrize(
    ("password", "is_up"), [*((each, True) for each in PASSWORDS), (PASSWORDS[0], False)]
)
async def test_no_error_or_log_of_nats_holds_a_part_of_its_password(
    password: str,
    is_up: bool,
    settings: Settings,
    guarded: NatsServer,
    heard: io.StringIO,
) -> None:
    host = guarded.url.removeprefix("nats://") if is_up else "127.0.0.1:1"
    url = f"nats://u:{password}@{host}"
    planted = Settings(**settings.model_dump() | {"nats_url": url})
    jobs = (drain_log, bridge_pending, platform_status, migrate_all, verify_stores, evaluate_alerts)
    chosen = jobs if password == PASSWORDS[0] and is_up else jobs[2:3]
    for job in (*(partial(job, planted) for job in chosen), *starts(url)):
        said = await said_by(job)
        assert_nothing_in(said)
        assert "127.0.0.1" in said or said == "False" or "AlertsReport" in said
    assert_nothing_in(heard.getvalue())
    assert_nothing_in(f"{planted!r} {planted.model_dump()} {planted.model_dump_json()}")


@pytest.mark.parametrize("password", PASSWORDS)
async def test_no_error_or_log_of_postgres_holds_a_part_of_its_password(
    password: str, settings: Settings, heard: io.StringIO
) -> None:
    for place in ("127.0.0.1:1/d", "127.0.0.1:x/d", "127.0.0.1:1/d?nonsense=1"):
        dsn = f"postgresql://u:{password}@{place}"
        planted = Settings(**settings.model_dump() | {"postgres_dsn": dsn})
        for job in (drain_log, platform_status, evaluate_alerts, migrate_all):
            said = await said_by(partial(job, planted))
            assert_nothing_in(said)
            assert "Error" in said
        assert_nothing_in(where(dsn))
    assert_nothing_in(heard.getvalue())


@pytest.mark.parametrize("verb", VERBS)
async def test_no_verb_prints_a_part_of_a_password(
    verb: str, tmp_path: Path, guarded: NatsServer
) -> None:
    for password in PASSWORDS[3:4]:
        environment = {
            "DLQ_HOME": str(tmp_path),
            "DLQ_NATS_URL": f"nats://u:{password}@{guarded.url.removeprefix('nats://')}",
            "DLQ_POSTGRES_DSN": f"postgresql://u:{password}@127.0.0.1:1/d",
        }
        done = await asyncio.to_thread(CliRunner(env=environment).invoke, _command(), verb.split())
        assert done.exit_code
        assert_nothing_in(done.output + done.stderr)
    assert_nothing_in("".join(texts_below(tmp_path)))


def test_what_is_no_connection_string_is_said_without_it() -> None:
    for text in (
        "postgresql://u:hunt3r@pl4nted@h/d",
        "postgresql://u:hunt3r/pl4nted@h/d",
        "postgresql://u:1/pl4nted@h/d",
        "host=h password=hunt3r pl4nted",
        "postgres://u:p#hunt3r@h/d",
    ):
        with pytest.raises(SettingsError, match=r"is not valid.*%40 for @") as refused:
            read_dsn(text)
        said = "".join(traceback.format_exception(refused.value))
        assert "ProgrammingError" not in said
        assert where(text) == "PostgreSQL"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("postgresql://u:p%40ss@h:1/d", "h:1/d"),
        ("postgres://h", "h:5432/"),
        ("postgresql://u@a:1,b:2/d?target_session_attrs=read-write", "a,b:1,2/d"),
        ("postgresql://[::1]:7/d", "::1:7/d"),
        ("postgresql:///d?host=/run/postgresql", "/run/postgresql:5432/d"),
        ("postgresql://%2Frun%2Fpostgresql/d", "/run/postgresql:5432/d"),
        ("host=h port=7 dbname=d password='hunt3r pl4nted'", "h:7/d"),
        ("", "localhost:5432/"),
    ],
)
def test_what_is_a_connection_string_is_read_as_before(text: str, place: str) -> None:
    assert where(text) == f"PostgreSQL at {place}"
