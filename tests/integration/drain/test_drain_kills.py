"""A drain may die or stop at any point: nothing is lost or stored twice, the next one continues."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.errors import FencedError
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.postgres.database import migrate
from sahool_dlq.stores.postgres.failed_events import FailedEvents
from support.platform_log import (
    InjectedError,
    check_exact,
    execute,
    failures,
    in_lake,
    letter,
    publish,
    query,
    run_drain,
    start_drain,
    state_of,
    told,
)
from support.seed import SEED

_NOW = datetime(2026, 2, 3, tzinfo=UTC)


@pytest.fixture
def chance() -> random.Random:
    """Random numbers whose seed is printed when the test fails; set it by DLQ_TEST_SEED."""
    print(f"DLQ_TEST_SEED={SEED}")
    return random.Random(SEED)


@pytest.fixture
def slow_start() -> float:
    """Seconds that a `dlq drain` needs to start on this machine."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import sahool_dlq.cli.drain"], check=True)
    return time.monotonic() - started


# -- killed between the sinks


@pytest.mark.parametrize("at_batch", [1, 3])
@pytest.mark.parametrize("sink", ["lake", "postgres"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_death_around_either_commit_loses_and_doubles_nothing(
    settings: Settings,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    sink: str,
    moment: str,
    at_batch: int,
) -> None:
    stored = await publish(client, settings, map(letter, range(100)))
    batches = settings.model_copy(update={"drain_batch_messages": 25})
    owner, name = {"lake": (LakeTable, "append"), "postgres": (FailedEvents, "store")}[sink]
    commit, calls = getattr(owner, name), 0

    def dying(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == at_batch and moment == "before":
            raise InjectedError
        commit(*arguments)
        if calls == at_batch:
            raise InjectedError

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dying)
        with pytest.raises(InjectedError):
            await drain_log(batches)
    # Other batch boundaries than before.
    report = await drain_log(settings.model_copy(update={"drain_batch_messages": 33}))
    assert report.last_sequence == 100
    check_exact(settings, stored)
    assert (await drain_log(settings)).drained == 0


# -- killed at random


async def test_drains_killed_at_random_leave_stream_lake_and_database_the_same(
    settings: Settings, client: Client, chance: random.Random, slow_start: float
) -> None:
    """SIGKILL at random moments, sometimes two drains at once, while messages still arrive."""
    number, stored, decisions = 0, {}, {}
    kills = in_work = 0
    for round_ in range(7):
        count = chance.randrange(100, 400)
        stored |= await publish(client, settings, map(letter, range(number, number + count)))
        number += count
        for row in query(settings, "SELECT id::text FROM failed_events LIMIT 3 OFFSET %s", round_):
            body = encode_case_event(
                failure_id=row["id"], at=_NOW, actor="ann", reason=f"round {round_}"
            )
            decisions |= await publish(client, settings, [body], "triage.alerted")
        before = _reached(settings)
        drains = [
            start_drain(settings, DLQ_DRAIN_BATCH_MESSAGES=str(chance.randrange(3, 12)))
            for _ in range(1 + round_ % 3 // 2)
        ]
        for process in drains:
            if round_ % 2:  # as it works
                await _wait_until(
                    lambda p=process, b=before: p.poll() is not None or _reached(settings) != b
                )
                await asyncio.sleep(chance.uniform(0, 0.2))
            else:  # as it starts, or later
                await asyncio.sleep(chance.uniform(0.5, 1.5) * slow_start)
            process.kill()
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        in_work += _reached(settings) > before
    print(f"{kills} killed, {in_work} of them had begun, {number} messages")
    assert kills >= 4
    assert in_work >= 2
    status, output, errors = await run_drain(settings)
    assert status == 0, errors
    assert json.loads(output)["last_sequence"] == max(stored | decisions)
    check_exact(settings, stored)
    assert in_lake(settings, "case_events")["dlq_sequence"].to_list() == sorted(decisions)
    alerted = [row for row in failures(settings) if row["alert_sent"]]
    told = {json.loads(body)["failure_id"] for body in decisions.values()}
    assert {str(row["id"]) for row in alerted} == told
    before = state_of(settings)
    assert (await drain_log(settings)).drained == 0
    assert state_of(settings) == before


async def test_kills_do_not_keep_a_drain_of_one_kind_of_message_from_progress(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no case event at all: the watermark of the empty table must not decide where the
    next drain begins.
    """
    stored = await publish(client, settings, map(letter, range(80)))
    batches = settings.model_copy(update={"drain_batch_messages": 2})
    store, calls = FailedEvents.store, 0

    def dying(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 25:
            raise InjectedError
        store(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(FailedEvents, "store", dying)
        with pytest.raises(InjectedError):
            await drain_log(batches)
    (epoch,) = query(settings, "SELECT epoch FROM drain_checkpoints")
    assert Lake(settings.lake).watermark("case_events", epoch["epoch"]) == 40
    await drain_log(batches)
    check_exact(settings, stored)


# -- two at once, and a paused one


async def test_two_drains_at_once_share_the_work(settings: Settings, client: Client) -> None:
    stored = await publish(client, settings, map(letter, range(600)))
    results = await asyncio.gather(
        *(run_drain(settings, DLQ_DRAIN_BATCH_MESSAGES="20") for _ in range(2))
    )
    assert [status for status, _, _ in results] == [0, 0], results
    assert sum(json.loads(output)["drained"] for _, output, _ in results) == 600
    check_exact(settings, stored)


async def test_writers_from_the_same_snapshot_are_fenced_even_without_the_lock(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock only saves work; the checkpoint and the lake's transaction protect the data."""
    stored = await publish(client, settings, map(letter, range(300)))
    monkeypatch.setattr("sahool_dlq.drain.run.alone", _no_lock)
    await drain_log(settings.model_copy(update={"drain_batch_messages": 200}))
    stored |= await publish(client, settings, map(letter, range(300, 700)))
    results = await asyncio.gather(
        *(drain_log(settings.model_copy(update={"drain_batch_messages": n})) for n in (7, 11, 13)),
        return_exceptions=True,
    )
    assert all(not isinstance(r, BaseException) or isinstance(r, FencedError) for r in results)
    assert any(isinstance(result, FencedError) for result in results)
    await drain_log(settings)
    check_exact(settings, stored)


@pytest.mark.parametrize("moment", ["starting", "in the middle", "anywhere"])
async def test_a_stopped_drain_is_passed_and_fenced_when_it_wakes(
    settings: Settings, client: Client, chance: random.Random, slow_start: float, moment: str
) -> None:
    stored = await publish(client, settings, map(letter, range(1_500)))
    sleeper = start_drain(settings, DLQ_DRAIN_BATCH_MESSAGES="5")
    try:
        if moment == "anywhere":
            await asyncio.sleep(slow_start + chance.uniform(0, 1.5))
        else:
            await _wait_until(
                lambda: query(settings, _SESSIONS) if moment == "starting" else _has_begun(settings)
            )
        sleeper.send_signal(signal.SIGSTOP)
        held = query(settings, _SESSIONS)
        status, output, errors = await run_drain(settings, DLQ_DRAIN_LOCK_SECONDS="1")
        assert status == 0, (errors, held)
        assert json.loads(output)["last_sequence"] == 1_500
        check_exact(settings, stored)
        rows = failures(settings)
        sleeper.send_signal(signal.SIGCONT)
        _, errors = await asyncio.to_thread(sleeper.communicate, timeout=60)
        assert "Traceback" not in errors
        check_exact(settings, stored)
        assert failures(settings) == rows
        assert (await drain_log(settings)).drained == 0
    finally:
        sleeper.kill()
        sleeper.communicate()


async def test_a_drain_that_hangs_amid_a_transaction_is_passed(
    settings: Settings, client: Client
) -> None:
    """It holds a lock on the checkpoint's row too, in another session."""
    stored = await publish(client, settings, map(letter, range(30)))
    execute(
        settings,
        "CREATE TABLE public.hanging AS SELECT 1 AS n;"
        "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_sleep(600) FROM public.hanging; RETURN NULL; END $$;"
        "CREATE TRIGGER hang AFTER UPDATE ON drain_checkpoints FOR EACH ROW"
        " EXECUTE FUNCTION hang()",
    )
    hangs = start_drain(settings)
    try:
        sleeps = "SELECT FROM pg_stat_activity WHERE datname = current_database()"
        await _wait_until(lambda: query(settings, sleeps + " AND wait_event = 'PgSleep'"))
        execute(settings, "DELETE FROM public.hanging")
        status, output, errors = await run_drain(settings, DLQ_DRAIN_LOCK_SECONDS="1")
        assert (status, json.loads(output)["last_sequence"]) == (0, 30), errors
    finally:
        hangs.kill()
        hangs.communicate()
    check_exact(settings, stored)


async def test_a_drain_that_fills_only_the_lake_is_not_taken_for_stuck(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await publish(client, settings, map(letter, range(60)))
    await drain_log(settings)
    fresh = settings.model_copy(
        update={
            "lake_uri": str(settings.home / "fresh"),
            "drain_batch_messages": 5,
            "drain_lock_seconds": 4.0,
        }
    )
    append, has_begun = LakeTable.append, threading.Event()

    def slow(*arguments: Any) -> None:
        has_begun.set()
        time.sleep(0.4)  # twelve batches: longer than the lock holds, though each is shorter
        append(*arguments)

    monkeypatch.setattr(LakeTable, "append", slow)
    first = asyncio.create_task(drain_log(fresh))
    assert await asyncio.to_thread(has_begun.wait, 60)
    second = await drain_log(fresh)
    assert (await first).drained == 60
    assert second.drained == 0
    check_exact(fresh, stored)


# -- servers that stop


@pytest.fixture
def platform(
    nats_server_factory: Callable[..., NatsServer],
    postgres_server_factory: Callable[..., PostgresServer],
    settings: Settings,
) -> tuple[Settings, NatsServer, PostgresServer]:
    """A platform on separate servers, which may be killed."""
    server, postgres = nats_server_factory(), postgres_server_factory()
    migrate(postgres.dsn)
    changes = {
        "nats_url": SecretStr(server.url),
        "postgres_dsn": type(settings.postgres_dsn)(postgres.dsn),
    }
    changes |= {"drain_batch_messages": 20}
    return settings.model_copy(update=changes), server, postgres


Platform = tuple[Settings, NatsServer, PostgresServer]


async def _fill(settings: Settings, count: int) -> dict[int, bytes]:
    async with await nats.connect(settings.nats_url.get_secret_value()) as client:
        await ensure_streams(client.jetstream(), settings.stream_names)
        return await publish(client, settings, map(letter, range(count)))


@pytest.mark.parametrize("which", ["nats", "postgres"])
async def test_a_server_that_is_killed_and_comes_back_is_waited_for(
    platform: Platform, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sahool_dlq.drain.run._PAUSES_SECONDS", [1.0] * 60)  # the start may be slow
    settings, server, postgres = platform
    stored = await _fill(settings, 2_000)
    killed: NatsServer | PostgresServer = server if which == "nats" else postgres
    running = asyncio.create_task(drain_log(settings))
    await _wait_until(lambda: _has_begun(settings))
    await asyncio.to_thread(killed.kill)
    await asyncio.to_thread(killed.start)
    assert (await running).last_sequence == 2_000
    check_exact(settings, stored)


@pytest.mark.parametrize("which", ["nats", "postgres"])
async def test_a_server_that_stays_away_is_one_sentence_and_the_next_run_continues(
    platform: Platform, which: str
) -> None:
    settings, server, postgres = platform
    stored = await _fill(settings, 2_000)
    killed: NatsServer | PostgresServer = server if which == "nats" else postgres
    process = start_drain(settings, DLQ_DRAIN_BATCH_MESSAGES="5")
    await _wait_until(lambda: _has_begun(settings))
    await asyncio.to_thread(killed.kill)
    output, errors = await asyncio.to_thread(process.communicate, timeout=90)
    assert (process.returncode, output) == (1, "")
    assert "Traceback" not in errors
    assert told(errors)
    await asyncio.to_thread(killed.start)
    report = await drain_log(settings)
    assert 0 < report.drained < 2_000
    check_exact(settings, stored)


async def test_backends_killed_in_mid_copy_are_retried(
    settings: Settings, client: Client, chance: random.Random
) -> None:
    stored = await publish(client, settings, map(letter, range(700)))
    running = asyncio.create_task(
        drain_log(settings.model_copy(update={"drain_batch_messages": 10}))
    )
    for _ in range(2):
        before = _reached(settings)
        await _wait_until(lambda before=before: running.done() or _reached(settings) != before)
        await asyncio.sleep(chance.uniform(0, 0.05))
        query(settings, f"SELECT pg_terminate_backend(pid) FROM ({_SESSIONS}) AS s")
    assert (await running).last_sequence == 700
    check_exact(settings, stored)


# -- helpers

_SESSIONS = (
    "SELECT pid, state, query FROM pg_stat_activity"
    " WHERE datname = current_database() AND starts_with(application_name, 'dlq')"
)


class _no_lock:  # noqa: N801  (used like a function)
    def __init__(self, *_: Any) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


def _reached(settings: Settings) -> int:
    rows = query(settings, "SELECT last_sequence FROM drain_checkpoints")
    return rows[0]["last_sequence"] if rows else 0


def _has_begun(settings: Settings) -> bool:
    return _reached(settings) > 0


async def _wait_until(condition: Callable[[], Any], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.02)
