"""Three services, two redrivers, a drain and a person, while NATS and PostgreSQL are killed.

Every call of every handler is written down, and all that a person did; `history.faults` says at
the end what is wrong. `make soak` runs it after the others.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import nats.errors
import psycopg
from nats.aio.client import Client
from pydantic import SecretStr

from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.errors import RedriveError
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.batches import list_batches, reject, resume
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import redrive
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.redrive.batches import unfinished_batches
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database, migrate
from support import history
from support import soak_parts as parts
from support.lasting import lasting_client
from support.soak_history import history_of
from support.soak_services import KINDS, Service
from support.soak_work import again_and_again, bring_back, decide_something, drain, note

REDRIVERS, CAP = 2, 2
NOBODY = Selection(service="nobody")


@dataclass
class RedriveSoak:
    """One run: its operations, their results, and what is wrong at the end."""

    home: Path
    seconds: float
    seed: int
    least_kills: int = 0  # on a slow machine it takes longer, rather than do less
    least_successes: int = 0
    nats_server: Callable[..., NatsServer] = NatsServer
    done: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    async def run(self) -> list[str]:
        """Run it; return what is wrong."""
        self._nats = self.nats_server(self.home / "nats")
        self._postgres = PostgresServer(self.home / "postgres", durable=False)
        with self._nats, self._postgres:
            try:
                await self._soak()
            finally:
                self._postgres.remove()
        return self.problems

    async def _soak(self) -> None:
        migrate(self._postgres.dsn)
        self._settings = settings = Settings(
            home=self.home,
            nats_url=self._nats.url,
            postgres_dsn=SecretStr(self._postgres.dsn),
            lake_uri=str(self.home / "lake"),
            drain_lock_seconds=2,
            redrive_cap=CAP,
            redrive_timeout_seconds=4,
            redrive_delay_seconds=0,
            redrive_floor_per_second=1_000,
            redrive_approval_count=8,
        )
        self._chance = random.Random(self.seed)
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(
            ["sahool_dlq.jobs.batches", "sahool_dlq.jobs.decisions", "sahool_dlq.jobs.redrive"]
        )
        self._services = [
            Service("ndvi", "analysis.*", 0),
            Service("healthy", "analysis.*", 0, is_healthy=True),
            Service("rescue", "actions.*", 1),
        ]
        async with await lasting_client(self._nats.url) as client:
            await ensure_streams(client.jetstream(timeout=60), settings.stream_names)
            config = (await client.jetstream().stream_info(settings.events_stream)).config
            config.duplicate_window = 1
            await client.jetstream().update_stream(config)
            consumers = [await service.serve(settings) for service in self._services]
            try:
                await self._live(client)
                await self._settle(client)
                async with asyncio.timeout(120):
                    await self._end_batches()
                await self._settle(client)
                await drain_log(settings)
                await self._check(client)
            finally:
                for consumer in consumers:
                    await consumer.close()

    async def _live(self, client: Client) -> None:
        """Run everything with faults, then without, until enough redrives succeeded."""
        works = [drain, *[bring_back] * REDRIVERS, decide_something]
        self._works = [(work, self._start(work)) for work in works]
        self._is_producing = True
        producing = asyncio.create_task(self._produce(client, random.Random(self.seed + 1)))
        try:
            await self._succeeded(1)
            until = time.monotonic() + self.seconds
            while time.monotonic() < until or self.kills < self.least_kills:
                await asyncio.sleep(self._chance.uniform(0.5, 2.5))
                await self._harm()
            await self._succeeded(self.least_successes)
            self._is_producing = False
            await producing
        finally:
            producing.cancel()
            for _, process in self._works:
                self._end(process)

    async def _succeeded(self, count: int) -> None:
        """Wait until this number of redrives succeeded."""
        async with asyncio.timeout(180):
            while self.success_count < count:
                await asyncio.sleep(0.1)

    @property
    def kills(self) -> int:
        """How many processes, servers and sessions were killed."""
        return sum(count for what, count in self.done.items() if "killed" in what)

    @property
    def success_count(self) -> int:
        """The number of redrives that a handler accepted."""
        calls = (call for service in self._services for call in service.calls)
        return len({call.redrive_id for call in calls if call.outcome == "success"} - {None})

    async def _produce(self, client: Client, chance: random.Random) -> None:
        """Publish events of both subjects, a few at a time."""
        while self._is_producing:
            for _ in range(chance.randrange(1, 4)):
                self.done["events"] += 1
                number = self.done["events"]
                kind = chance.choices(list(KINDS), weights=list(KINDS.values()))[0]
                body = {"event_id": f"e{number}", "n": number, "kind": kind, "unit": "acre"}
                subject = chance.choice(["analysis.ndvi", "analysis.soil", "actions.rescue"])
                where = f"{self._settings.subject_prefix}.{subject}"
                await parts.publish(client, where, json.dumps(body).encode(), f"e{number}")
            await asyncio.sleep(chance.uniform(0.1, 0.9))

    # -- faults of running processes

    async def _harm(self) -> None:
        """Cause one fault as it happens in real life."""
        chosen = self._chance.choices(
            ("killed", "stopped for a while", "NATS killed", "PostgreSQL killed", "lock killed"),
            weights=(5, 2, 2, 2, 1),
        )[0]
        which, pause = self._chance.randrange(len(self._works)), self._chance.uniform(0, 1)
        work, process = self._works[which]
        if chosen == "killed":
            self._end(process)
            self._works[which] = work, self._start(work)
            chosen = f"{work.__name__} killed"
        elif chosen == "stopped for a while" and process.is_alive():
            await parts.stop_for(process, 4 * pause)
        elif chosen == "lock killed":
            await asyncio.to_thread(self._end_locks)
        elif chosen.endswith("killed"):
            await parts.kill_for(self._nats if chosen.startswith("NATS") else self._postgres, pause)
        self.done[chosen] += 1

    def _end_locks(self) -> None:
        with psycopg.connect(self._postgres.dsn) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE granted"
                " AND relation IN ('dlq.lock_drain'::regclass, 'dlq.lock_redrive'::regclass)"
                " AND mode <> 'AccessShareLock' AND pid <> pg_backend_pid()"
            )

    def _start(self, work: Callable[..., Any]) -> BaseProcess:
        seed = self._chance.randrange(1 << 30)
        arguments = (work, self._settings, self.home / "work.log", seed)
        process = self._processes.Process(target=again_and_again, args=arguments, daemon=True)
        process.start()
        return process

    def _end(self, process: BaseProcess) -> None:
        parts.end(process, self.problems, "process")

    # -- the end

    async def _settle(self, client: Client) -> None:
        """Wait until each service has answered every event."""
        async with asyncio.timeout(180):
            for service in self._services:
                while True:
                    with contextlib.suppress(nats.errors.Error):
                        info = await client.jetstream().consumer_info(
                            self._settings.events_stream, service.name
                        )
                        if (info.num_pending, info.num_ack_pending) == (0, 0):
                            break
                    await asyncio.sleep(0.1)

    async def _end_batches(self) -> None:
        """End batches that wait for an approval, and wait for outcomes of published redrives."""
        settings = self._settings
        for batch in list_batches(settings, 10_000):
            if batch.state == "paused":
                note(settings, "resumed", [batch.id], time.time())
                resume(settings, batch.id, by="ana")
            elif batch.state == "awaiting_approval":
                reject(settings, batch.id, by="ana")
        while True:
            try:
                await redrive(
                    settings, NOBODY, trigger="manual", requested_by="ana", reason="the end"
                )
            except RedriveError:  # PostgreSQL has yet to see that the last redriver is dead
                await asyncio.sleep(0.2)
                continue
            with database(settings.postgres_dsn.get_secret_value()) as connection:
                if not unfinished_batches(connection):
                    return

    async def _check(self, client: Client) -> None:
        log = (self.home / "work.log").read_text()
        self.done["errors that people were told"] = log.count("dlq: ")
        self.problems += parts.traceback_in(log)
        found = await history_of(self._settings, client, self._services, CAP)
        self.done |= Counter(f"redrives: {each.state}" for each in found.redrives)
        self.done |= Counter(f"batches: {each.state}" for each in found.batches.values())
        self.done |= Counter(f"cases: {each.status}" for each in found.cases.values())
        self.done |= Counter(f"a person: {each.did}" for each in found.deeds)
        self.done["calls"], self.done["redrives published"] = len(found.calls), len(found.out)
        self.problems += history.faults(found)
        verified = await verify_stores(self._settings)
        self.problems += [f"dlq verify: {finding}" for finding in verified.findings]


def main() -> int:
    """Run for the given time, and print what was done and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    given = parts.read_options(parser)
    home = Path(tempfile.mkdtemp(prefix="dlq-soak-"))
    soak, started = RedriveSoak(home, given.seconds, given.seed), time.monotonic()
    problems = asyncio.run(soak.run())
    parts.say(soak.done, started, problems)
    print("not sound" if problems else "sound")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
