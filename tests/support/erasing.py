"""Shared by the tests of `dlq erase`: a tenant to erase, and others to keep."""

import asyncio
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from nats.aio.client import Client

from sahool_dlq.analysis.report.unknowns import LOG_SQL
from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.embedded import NatsServer
from sahool_dlq.erasure.erase import ErasureReport
from sahool_dlq.events.outbox import _store_body
from sahool_dlq.jobs import lake_views
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.upkeep import erase_tenant, maintain_lake, verify_stores
from sahool_dlq.settings import Settings
from support.platform_log import (
    InjectedError,
    check_exact,
    execute,
    in_lake,
    letter,
    publish,
    query,
)

NOW = datetime(2026, 2, 3, tzinfo=UTC)
ORIGIN = ("original_stream", "original_sequence", "original_timestamp_ns", "consumer_name")


class World:
    """A platform with failures of two tenants, one of which is erased."""

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
        pointer = await _store_body(self.client, self.large, self.body, NOW.isoformat())
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
                **dict(zip(ORIGIN, origin, strict=True)),
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
            body = encode_case_event(failure_id=failure, at=NOW, actor="ann", reason=reason)
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
        """A file that a killed drain did not commit."""
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
        """Where bytes still contain the tenant: files of lake and stream, and tables."""
        found = {
            str(file.relative_to(folder))
            for folder in (Path(self.settings.lake), server.data)
            for file in folder.rglob("*")
            if file.is_file() and self._is_in(file)
        }
        tables = query(self.settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'dlq'")
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


async def check_erased(world: World, server: NatsServer) -> None:
    """Check that the tenant's data are gone, and those of others unchanged."""
    settings = world.settings
    assert world.places(server) == set()
    report = await drain_log(settings)
    assert (report.gaps, report.notes) == (0, ())
    check_exact(settings, world.kept)
    assert in_lake(settings, "case_events")["reason"].to_list() == ["of others"]
    assert query(settings, "SELECT count(*) AS n FROM failed_payloads") == [{"n": len(world.kept)}]
    assert (await verify_stores(settings)).findings == ()
    assert lake_views.query(settings, LOG_SQL)["missing_count"].item() == 0
    assert (await drain_log(settings)).drained == 0
    assert world.places(server) == set()


def dying(step: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The step, wrapped so that the process dies after so many calls of it."""
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


async def keeps(*_: Any) -> str:
    return "kept"
