"""`dlq erase`: nothing of a tenant is left, nothing of others is touched, and it stays so."""

import asyncio
import contextlib
import json
import os
import pty
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats
import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from nats.aio.client import Client
from nats.js.errors import NotFoundError, ServerError
from platform_log import (
    DLQ,
    ROOT,
    InjectedError,
    check_exact,
    environment,
    execute,
    in_lake,
    letter,
    publish,
    publish_raw,
    query,
    state_of,
    stop_sink,
)

from pipelines import jobs
from pipelines.analysis.unknowns import LOG_SQL
from pipelines.cli import _command
from pipelines.deadletter import ids
from pipelines.deadletter.envelope import encode_case_event
from pipelines.drain import erase as steps
from pipelines.drain.erase import ErasureReport, preview
from pipelines.embedded import NatsServer
from pipelines.errors import ErasureError, FencedError
from pipelines.events.outbox import _store_body
from pipelines.jetstream.streams import ensure_streams
from pipelines.jobs import build_all_marts, drain_log, erase_tenant, maintain_lake, verify_stores
from pipelines.settings import Settings
from pipelines.stores.database import migrate
from pipelines.stores.lake import Lake

_NOW = datetime(2026, 2, 3, tzinfo=UTC)
_ORIGIN = ("original_stream", "original_sequence", "original_timestamp_ns", "consumer_name")


class World:
    """A platform with the failures of two tenants, one of which goes."""

    def __init__(self, settings: Settings, client: Client) -> None:
        self.settings = settings.model_copy(
            update={"keep_payloads": True, "drain_batch_messages": 10}
        )
        self.client = client
        self.tenant = f"acme-{uuid.uuid4()}"
        self.kept: dict[int, bytes] = {}
        self.body = f"{self.tenant} {'x' * 300_000}".encode()

    def letter(self, number: int, **changes: Any) -> bytes:
        message = f"nothing for {self.tenant}"
        data = {"tenant": self.tenant}
        texts = {"tenant_id": self.tenant, "error_message": message, "original_data": data}
        return letter(number, **(texts | changes))

    async def publish(self, *bodies: bytes, is_kept: bool = False) -> dict[int, bytes]:
        stored = await publish(self.client, self.settings, bodies)
        if is_kept:
            self.kept |= stored
        return stored

    async def fill(self) -> None:
        """Dead letters of every kind, with redrives, alerts and marts; some are not drained yet."""
        origin = ("EVENTS", 7, 1_700_000_000_000_000_000, "ndvi")
        self.large = ids.failure_id(*origin)
        pointer = await _store_body(self.client, self.large, self.body)
        second = {
            "metadata": {"original_subject": "sahool.a.b", "failure_reason": "no"},
            "original_message": json.dumps({"tenant_id": self.tenant}),
        }
        await self.publish(
            self.letter(0),
            json.dumps(second).encode(),
            self.letter(
                2,
                failure_id=self.large,
                payload_encoding="object",
                original_data={"object": pointer},
                **dict(zip(_ORIGIN, origin, strict=True)),
            ),
        )
        await self.publish(*map(letter, range(10, 22)), is_kept=True)
        await self.publish(*map(self.letter, range(30, 34)))
        await drain_log(self.settings)
        [kept] = query(
            self.settings,
            "SELECT id::text FROM failed_events WHERE tenant_id <> %s LIMIT 1",
            self.tenant,
        )
        for failure, reason in ((self.large, f"of {self.tenant}"), (kept["id"], "of others")):
            body = encode_case_event(failure_id=failure, at=_NOW, actor="ann", reason=reason)
            await publish(self.client, self.settings, [body], "triage.parked")
        await drain_log(self.settings)
        self._redrive_and_alert(kept["id"])
        build_all_marts(self.settings)
        maintain_lake(self.settings)  # files that left the log stay for days
        self._leave_behind()
        await self.publish(self.letter(40), self.letter(41))
        await self.publish(*map(letter, range(50, 53)), is_kept=True)
        await self.publish(self.letter(60))

    def _leave_behind(self) -> None:
        """A file that a killed drain never committed."""
        [day] = Path(self.settings.lake, "dead_letters").glob("dlq_date=*")
        (day / "part-of-a-killed-drain.parquet").write_text(self.tenant)

    def _redrive_and_alert(self, kept: str) -> None:
        for batch, failures in enumerate(([self.large], [self.large, kept])):
            selection = json.dumps({"where": f"tenant_id = '{self.tenant}'"})
            execute(
                self.settings,
                "WITH b AS (INSERT INTO redrive_batches (id, trigger, requested_by, reason, state,"
                " planned, selection, ended_at) VALUES (gen_random_uuid(), 'manual', 'ann', 'x',"
                " 'done', 1, %s::jsonb, now()) RETURNING id) INSERT INTO redrives (id, failure_id,"
                " attempt, batch_id, subject, state) SELECT gen_random_uuid(), f, %s, id, 's',"
                " 'cancelled' FROM b, unnest(%s::uuid[]) AS f",
                selection,
                batch,
                failures,
            )
        execute(
            self.settings,
            "INSERT INTO alert_messages (kind, alert_ids, channel, title, body, created_at)"
            " VALUES ('firing', '{}', 'c', 't', %s, now()), ('firing', '{}', 'c', %s, 'b', now()),"
            " ('firing', '{}', 'c', 'others', 'others', now())",
            f"Sample: nothing for {self.tenant}\nNext: dlq show {self.large}",
            f"FIRING: unresolved (tenant {self.tenant})",
        )

    async def erase(self) -> ErasureReport:
        return await erase_tenant(self.settings, self.tenant, actor="ann", reason="they left")

    def held(self) -> dict[str, set[int]]:
        """The tenant's sequences in each sink."""
        is_tenants = "WHERE tenant_id = %s"
        rows = query(
            self.settings, f"SELECT dlq_sequence FROM failed_events {is_tenants}", self.tenant
        )
        lake = in_lake(self.settings).filter(pl.col("tenant_id") == self.tenant)
        return {"postgres": {row["dlq_sequence"] for row in rows}, "lake": {*lake["dlq_sequence"]}}

    def places(self, server: NatsServer) -> set[str]:
        """Where any byte still names the tenant: files of lake and stream, and tables."""
        found = {
            str(file.relative_to(folder))
            for folder in (Path(self.settings.lake), server.data)
            for file in folder.rglob("*")
            if file.is_file() and self._is_in(file)
        }
        tables = query(self.settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for table in (row["tablename"] for row in tables):
            rows = query(self.settings, f"SELECT t::text AS row FROM {table} t")
            hexed = self.tenant.encode().hex()
            if any(self.tenant in row["row"] or hexed in row["row"] for row in rows):
                found.add(table)
        return found

    def _is_in(self, file: Path) -> bool:
        content = file.read_bytes()
        if content.startswith(b"PAR1"):
            content += str(pq.ParquetFile(file).read().to_pylist()).encode()
        return self.tenant.encode() in content


@pytest.fixture
async def world(settings: Settings, client: Client) -> World:
    world = World(settings, client)
    await world.fill()
    return world


async def check_erased(world: World, server: NatsServer) -> None:
    """It is gone for good, and others' are as they were."""
    settings = world.settings
    assert world.places(server) == set()
    report = await drain_log(settings)
    assert (report.gaps, report.notes) == (0, ())
    check_exact(settings, world.kept)
    assert in_lake(settings, "case_events")["reason"].to_list() == ["of others"]
    assert query(settings, "SELECT count(*) AS n FROM failed_payloads") == [{"n": len(world.kept)}]
    assert (await verify_stores(settings)).findings == ()
    assert jobs.query(settings, LOG_SQL)["missing_count"].item() == 0
    assert (await drain_log(settings)).drained == 0
    assert world.places(server) == set()


async def test_nothing_is_left_of_a_tenant_and_all_of_the_others(
    world: World, nats_server: NatsServer
) -> None:
    settings = world.settings
    before = world.places(nats_server)
    assert {"failed_events", "failed_payloads", "redrive_batches", "alert_messages"} <= before
    assert any("mart_" in place for place in before)
    assert any(place.startswith("marts/") and "_delta_log" in place for place in before)
    assert any(place.endswith(".blk") for place in before)
    seen = await preview(settings, world.tenant)
    assert world.places(nats_server) == before
    report = await world.erase()
    for told in (seen, report):
        assert (told.stream_dead_letters, told.stream_case_events) == (10, 1)
        assert (told.lake_dead_letters, told.lake_case_events, told.payloads) == (7, 1, 7)
        assert told.failures == {"pending": 6, "parked": 1}
        assert (told.object_bodies, told.redrives, told.batches) == (1, 2, 1)
        assert (told.alert_messages, told.audit_mentions, told.left) == (2, 0, None)
    await check_erased(world, nats_server)
    assert (await preview(settings, world.tenant)).is_empty
    [batch] = query(settings, "SELECT selection FROM redrive_batches")
    assert batch["selection"] == {"tenant_id": "[erased]"}
    [said] = query(settings, "SELECT * FROM audit_log")
    assert query(settings, "SELECT title, body FROM alert_messages ORDER BY id DESC LIMIT 1") == [
        {"title": "others", "body": "others"}
    ]
    assert (said["actor"], said["action"], said["reason"]) == ("ann", "erase", "they left")
    assert said["detail"]["failures"] == {"pending": 6, "parked": 1}
    [erasure] = query(settings, "SELECT * FROM erasures")
    assert erasure["tenant_hash"] == said["detail"]["tenant_hash"] == report.tenant_hash
    assert erasure["finished_at"]
    assert not build_all_marts(settings).is_rebuilt  # what was drained since
    counted = Lake(settings.lake).read("marts/tenants_daily")
    build_all_marts(settings, is_rebuild=True)
    assert Lake(settings.lake).read("marts/tenants_daily").equals(counted)


async def test_what_the_tenant_fails_on_later_is_stored(world: World) -> None:
    await world.erase()
    later = await world.publish(world.letter(70), is_kept=True)
    assert (await drain_log(world.settings)).drained == 3 + 1
    check_exact(world.settings, world.kept)
    assert set(later) <= set(in_lake(world.settings)["dlq_sequence"])
    assert (await verify_stores(world.settings)).findings == ()


STEPS: list[tuple[Any, str, int]] = [
    (steps, "remember", 1),
    (steps, "erase_objects", 1),
    (steps, "copy_to_lake", 1),
    (steps, "erase_rows", 1),
    (steps, "erase_rows", 2),
    (steps, "erase_marts", 1),
    (steps, "delete_rows", 1),
    (jobs, "build_all_marts", 1),
    (steps, "erase_messages", 1),
]


async def test_an_erasure_that_dies_after_any_step_brings_nothing_back_and_a_rerun_finishes_it(
    world: World, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run dies one step later than the one before; drains and repairs come in between."""
    left = world.places(nats_server)
    for owner, name, call in STEPS:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, dying(getattr(owner, name), call))
            with pytest.raises(InjectedError):
                await world.erase()
        report = await drain_log(world.settings)
        assert (report.gaps, report.notes) == (0, ())
        found = (await verify_stores(world.settings)).findings
        assert {finding.kind for finding in found} <= {"erased"}
        if name in ("erase_messages", "delete_rows"):
            await verify_stores(world.settings, is_repair=True)
        now = world.places(nats_server)
        assert {place for place in now if place.endswith(".blk")} <= left
        left = now
        assert set(in_lake(world.settings)["dlq_sequence"]) & {*world.kept} == {*world.kept}
    assert (await preview(world.settings, world.tenant)).is_unfinished
    await world.erase()
    await check_erased(world, nats_server)
    assert len(query(world.settings, "SELECT FROM erasures WHERE finished_at IS NOT NULL")) == 1


def dying(step: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The step, after which the process dies when it was called so often."""
    calls = 0

    def died(result: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise InjectedError
        return result

    async def later(*arguments: Any, **keywords: Any) -> Any:
        return died(await step(*arguments, **keywords))

    def now(*arguments: Any, **keywords: Any) -> Any:
        return died(step(*arguments, **keywords))

    return later if asyncio.iscoroutinefunction(step) else now


async def test_who_works_on_an_older_snapshot_of_the_lake_brings_nothing_back(
    settings: Settings, client: Client
) -> None:
    """Nothing goes from these tables: their files in flight would be deleted all the same."""
    world = World(settings, client)
    await world.publish(letter(1), is_kept=True)
    await drain_log(world.settings)
    await world.publish(world.letter(2))
    drain, compaction = (Lake(settings.lake).table("dead_letters") for _ in range(2))
    await world.erase()
    [epoch] = query(settings, "SELECT epoch FROM drain_checkpoints")
    with pytest.raises(FencedError):
        drain.append(drain.empty_frame(), epoch["epoch"], 2)
    rows = map(compaction.read, compaction.files)
    with pytest.raises(FencedError):
        compaction.replace(compaction.files, rows, _NOW, is_data_change=False, is_compaction=True)
    await drain_log(world.settings)
    check_exact(world.settings, world.kept)


# -- what NATS does not permit


@pytest.mark.parametrize("how", ["deny_delete", "permission"])
async def test_what_nats_does_not_permit_is_said_and_a_rerun_completes_it(
    settings: Settings, nats_server_factory: Callable[..., NatsServer], how: str
) -> None:
    users = """
    authorization: { users: [ { user: all, password: x }, { user: some, password: x,
      permissions: { publish: { deny: "$JS.API.STREAM.MSG.DELETE.>" } } } ] }
    """
    server = nats_server_factory(config=users)
    urls = {name: server.url.replace("://", f"://{name}:x@") for name in ("all", "some")}
    open_ = settings.model_copy(update={"nats_url": urls["all"]})
    async with await nats.connect(urls["all"]) as client:
        js = client.jetstream()
        await ensure_streams(js, settings.stream_names)
        if how == "deny_delete":
            config = (await js.stream_info(settings.dlq_stream)).config
            await js.delete_stream(settings.dlq_stream)
            await js.add_stream(config.evolve(deny_delete=True))
            urls["some"] = urls["all"]
        world = World(open_, client)
        await world.publish(world.letter(1), letter(2), world.letter(3))
        world.kept = {2: letter(2)}
        world.settings = open_.model_copy(update={"nats_url": urls["some"]})
        report = await world.erase()
        assert report.left is not None
        stream = settings.dlq_stream
        wanted = {
            "deny_delete": f"{stream} refuses it: message delete not permitted",
            "permission": "NATS does not permit some to publish to"
            f" $JS.API.STREAM.MSG.DELETE.{stream}",
        }
        assert report.left.startswith(f"NATS keeps some of 2 messages ({wanted[how]}")
        drained = await drain_log(world.settings)
        assert (drained.drained, drained.gaps) == (1, 0)
        check_exact(world.settings, world.kept)
        [finding] = (await verify_stores(world.settings)).findings
        assert (finding.kind, finding.where, finding.count) == ("erased", "the stream", 2)
        await verify_stores(world.settings, is_repair=True)
        check_exact(world.settings, world.kept)
        assert (await preview(world.settings, "another")).is_empty
        if how == "deny_delete":
            return  # until they age out
        world.settings = open_
        assert (await world.erase()).left is None
        assert world.places(server) == set()
        assert (await verify_stores(world.settings)).findings == ()


# -- stores that were lost, or lag behind


@pytest.mark.parametrize(("step", "call"), [("remember", 1), ("erase_rows", 2)])
@pytest.mark.parametrize("sink", ["lake", "postgres"])
async def test_a_sink_that_lags_behind_takes_nothing_erased_from_the_other(
    settings: Settings,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    sink: str,
    step: str,
    call: int,
) -> None:
    world = World(settings, client)
    for number in range(0, 40, 2):
        await world.publish(world.letter(number))
        await world.publish(letter(number + 1), is_kept=True)
        if number == 0:
            await drain_log(world.settings)
    with monkeypatch.context() as patched:
        stop_sink(patched, sink, 12)
        with pytest.raises(InjectedError):
            await drain_log(world.settings)
    with monkeypatch.context() as patched:  # some rows still are there, beside the tombstones
        patched.setattr(steps, step, dying(getattr(steps, step), call))
        with pytest.raises(InjectedError):
            await world.erase()
    js = client.jetstream()
    for sequence in range(1, 23):  # so that one must come from the other
        with contextlib.suppress(ServerError):  # it is erased already
            await js.delete_msg(settings.dlq_stream, sequence)
    before = world.held()
    report = await drain_log(world.settings)
    assert report.gaps == 0, report.notes
    assert world.held() == before
    await world.erase()
    check_exact(world.settings, world.kept)
    assert (await drain_log(world.settings)).gaps == 0


async def test_a_lost_database_learns_from_the_lake_what_was_erased(
    world: World, database_dsn: str, client: Client
) -> None:
    settings = world.settings
    with pytest.MonkeyPatch.context() as patched:  # NATS keeps it all
        patched.setattr(steps, "erase_messages", keeps)
        assert (await world.erase()).left == "NATS keeps some of 11 messages (kept)"
    execute(settings, "DROP SCHEMA public CASCADE")
    execute(settings, "CREATE SCHEMA public")
    migrate(database_dsn)
    assert (await drain_log(settings)).gaps == 0
    check_exact(settings, world.kept)


async def keeps(*_: Any) -> str:
    return "kept"


async def test_a_repair_tells_an_erased_message_from_another_of_the_same_failure(
    settings: Settings, client: Client
) -> None:
    origin = dict(zip(_ORIGIN, ("EVENTS", 7, 1_700_000_000_000_000_000, "ndvi"), strict=True))
    same = {**origin, "failure_id": ids.failure_id(*origin.values())}
    await publish(client, settings, [letter(1, **same), letter(2, **same)])
    await drain_log(settings)
    rows = in_lake(settings)
    life = rows["epoch"][1].rpartition("#")[0]
    execute(
        settings, "INSERT INTO erased_messages VALUES (%s, 2, %s)", life, rows["published_at"][1]
    )
    execute(settings, "DELETE FROM failed_events")
    report = await verify_stores(settings, is_repair=True)
    left = {finding.where: finding.count for finding in report.findings if finding.kind == "erased"}
    assert left == {"dead_letters": 1, "the stream": 1}
    [row] = query(settings, "SELECT seen_count, error_message FROM failed_events")
    assert (row["seen_count"], row["error_message"]) == (1, "no connection to host 1")


async def test_the_head_of_an_undrained_stream_is_no_gap_once_erased_and_what_others_lost_is(
    settings: Settings, client: Client
) -> None:
    world = World(settings, client)
    await world.publish(world.letter(1), world.letter(2), letter(3), world.letter(4))
    await world.publish(letter(5), is_kept=True)
    await client.jetstream().delete_msg(settings.dlq_stream, 3)
    await world.erase()
    report = await drain_log(world.settings)
    gaps = query(world.settings, "SELECT first_sequence, last_sequence FROM stream_gaps")
    assert gaps == [{"first_sequence": 3, "last_sequence": 3}]
    assert report.gaps == 1
    check_exact(world.settings, world.kept)


async def test_another_message_at_an_erased_place_is_kept(
    settings: Settings, client: Client
) -> None:
    """After a rewind the stream gives a sequence anew: its tombstone is not of that message."""
    world = World(settings, client)
    await world.publish(world.letter(1), letter(2), is_kept=True)
    await drain_log(world.settings)
    [epoch] = query(settings, "SELECT epoch FROM drain_checkpoints")
    execute(
        settings,
        "INSERT INTO erased_messages VALUES (%s, 2, now() - interval '1 day')",
        epoch["epoch"].rpartition("#")[0],
    )
    await world.erase()
    assert [m.data async for m in _stored(client, settings)] == [letter(2)]
    assert in_lake(settings)["dlq_sequence"].to_list() == [2]
    assert (await verify_stores(world.settings)).findings == ()


async def _stored(client: Client, settings: Settings) -> AsyncIterator[Any]:
    js = client.jetstream()
    last = (await js.stream_info(settings.dlq_stream)).state.last_seq
    for sequence in range(1, last + 1):
        with contextlib.suppress(NotFoundError):
            yield await js.get_msg(settings.dlq_stream, sequence)


async def test_a_message_that_no_client_can_parse_does_not_stop_an_erasure(
    settings: Settings, client: Client
) -> None:
    world = World(settings, client)
    subject = f"{settings.subject_prefix}.dlq.x".encode()
    publish_raw(settings, subject, b"NATS/1.0", world.letter(0))
    await world.publish(world.letter(1))
    assert (await world.erase()).stream_dead_letters == 2
    assert [m.data async for m in _stored(client, settings)] == []


# -- the command


async def run(world: World, *arguments: str) -> Result:
    """The verb, where nobody can be asked."""
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
    assert "Nobody is there to be asked" in unasked.stderr
    named = await run(world, "--yes", "--reason", f"{world.tenant} left")
    assert (named.exit_code, named.stderr.count("\n")) == (1, 1)
    assert (await run(world, "--yes")).exit_code == 2
    refused = await asyncio.to_thread(answer_no, world)
    assert "Nothing was changed" in refused
    assert "rows of failed_events (1 pending)" in refused
    assert "since it is only added to: 1." in refused
    assert state_of(settings) == before
    done = await run(world, "--yes", "--reason", "left")
    assert done.exit_code == 0, done.stderr
    assert "rows of failed_events (1 pending)" in done.stdout
    again = await run(world, "--yes", "--reason", "left")
    assert again.stdout.startswith("There is nothing of acme-")


def answer_no(world: World) -> str:
    """What the verb prints where a person at a terminal does not agree."""
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


@pytest.mark.parametrize("tenant", ["", "  "])
async def test_nobody_is_no_tenant(settings: Settings, client: Client, tenant: str) -> None:
    with pytest.raises(ErasureError, match="nobody"):
        await preview(settings, tenant)
