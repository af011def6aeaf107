"""`make soak`: drains, NATS and PostgreSQL die at random while dead letters arrive.

At the end each dead letter that the server acknowledged is once in the lake and once in Postgres,
with its values, in the same status in both, and `dlq verify` finds nothing.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from pydantic import SecretStr

from sahool_dlq.analysis.marts.views import create_views
from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.errors import DLQError
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect
from sahool_dlq.stores.postgres.database import migrate
from support import soak_parts as parts
from support.lasting import lasting_client
from support.platform_log import failures, in_lake, letter, query

DRAINS = 2  # at work at once
DECISIONS = ("alerted", "resolved", "discarded", "parked")
_AT = datetime(2026, 2, 3, tzinfo=UTC)


def drain_again_and_again(settings: Settings, log: Path, seed: int) -> None:
    """A process that drains until it is killed; an unexpected error ends it and is logged."""
    with log.open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    chance = random.Random(seed)
    while True:
        batches = settings.model_copy(update={"drain_batch_messages": chance.randrange(5, 250)})
        try:
            report = asyncio.run(drain_log(batches))
            print(f"drained {report.drained} {report.notes}", flush=True)
        except DLQError as error:
            print(f"dlq: {error}", flush=True)
        except BaseException:
            traceback.print_exc()
            sys.exit(70)
        time.sleep(0.2)


@dataclass
class Soak:
    """One run: its operations, their results, and what is wrong at the end."""

    home: Path
    seconds: float
    seed: int
    least_kills: int = 0  # on a slow machine it takes longer, rather than do less
    acknowledged: dict[int, bytes] = field(default_factory=dict)  # dead letters by sequence
    decisions: set[int] = field(default_factory=set)  # sequences of case events
    done: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    async def run(self) -> list[str]:
        """Run it; return what is wrong."""
        self._nats, self._postgres = (
            NatsServer(self.home / "nats", has_login=False),
            PostgresServer(self.home / "postgres", durable=False, has_login=False),
        )
        with self._nats, self._postgres:
            try:
                await self._soak()
            finally:
                self._postgres.remove()
        return self.problems

    async def _soak(self) -> None:
        migrate(self._postgres.dsn)
        self._settings = Settings(
            home=self.home,
            nats_url=self._nats.url,
            postgres_dsn=SecretStr(self._postgres.dsn),
            lake_uri=str(self.home / "lake"),
            drain_lock_seconds=2,
        )
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["sahool_dlq.jobs.drain", "platform_log"])
        self._chance = random.Random(self.seed)
        async with await lasting_client(self._nats.url) as client:
            await ensure_streams(client.jetstream(), self._settings.stream_names)
            self._drains = [self._start() for _ in range(DRAINS)]
            self._until = float("inf")
            producing = asyncio.create_task(self._produce(client, random.Random(self.seed + 1)))
            try:
                await self._something_is_stored()
                self._until = time.monotonic() + self.seconds
                while self._goes_on():
                    await asyncio.sleep(self._chance.uniform(0.1, 1.2))
                    await self._harm()
                await producing
            finally:
                producing.cancel()
                for process in self._drains:
                    self._end(process)
        await self._check()

    async def _something_is_stored(self) -> None:
        """Wait: a slow machine takes long to start drains, and before that nothing can be lost."""
        stored = "SELECT last_sequence FROM drain_checkpoints WHERE last_sequence > 0"
        async with asyncio.timeout(180):
            while not await asyncio.to_thread(query, self._settings, stored):
                await asyncio.sleep(0.1)

    @property
    def kills(self) -> int:
        """How many processes and servers were killed."""
        return sum(count for what, count in self.done.items() if "killed" in what)

    def _goes_on(self) -> bool:
        return time.monotonic() < self._until or self.kills < self.least_kills

    # -- what is published

    async def _produce(self, client: Client, chance: random.Random) -> None:
        """Publish dead letters, decisions about them, and sometimes the same failure again."""
        number = 0
        while self._goes_on():
            fresh = range(number, number + chance.randrange(5, 40))
            number = fresh.stop
            bodies = [_letter(n) for n in fresh]
            bodies += [_letter(chance.randrange(number)) for _ in range(chance.random() < 0.3)]
            acks = await asyncio.gather(*(self._publish(client, "dlq.x", b) for b in bodies))
            self.acknowledged |= dict(zip(acks, bodies, strict=True))
            decided = chance.choice(DECISIONS)
            body = encode_case_event(
                failure_id=_failure_id(chance.randrange(number)), at=_AT, actor="soak"
            )
            self.decisions.add(await self._publish(client, f"triage.{decided}", body))
            await asyncio.sleep(chance.uniform(0, 0.1))

    async def _publish(self, client: Client, subject: str, body: bytes) -> int:
        """Publish until the server acknowledges it; its sequence."""
        self.done["published"] += 1
        where = f"{self._settings.subject_prefix}.{subject}"
        return await parts.publish(client, where, body, str(self.done["published"]))

    # -- faults of running processes

    async def _harm(self) -> None:
        """Cause one fault as it happens in real life."""
        chosen = self._chance.choices(
            ("drain killed", "drain stopped for a while", "NATS killed", "PostgreSQL killed"),
            weights=(6, 2, 1, 1),
        )[0]
        which, pause = self._chance.randrange(DRAINS), self._chance.uniform(0, 0.8)
        process = self._drains[which]
        if chosen == "drain killed":
            self._drains[which] = self._start(self._end(process))
        elif chosen == "drain stopped for a while" and process.is_alive():
            await parts.stop_for(process, 4 * pause)
        elif chosen.endswith("killed"):
            await parts.kill_for(self._nats if chosen.startswith("NATS") else self._postgres, pause)
        self.done[chosen] += 1

    def _start(self, _ended: None = None) -> BaseProcess:
        arguments = (self._settings, self.home / "drains.log", self._chance.randrange(1 << 30))
        process = self._processes.Process(target=drain_again_and_again, args=arguments, daemon=True)
        process.start()
        return process

    def _end(self, process: BaseProcess) -> None:
        parts.end(process, self.problems, "drain")

    # -- what must be true at the end

    async def _check(self) -> None:
        log = (self.home / "drains.log").read_text()
        self.done["drains that came to their end"] = log.count("drained ")
        self.done["drains that gave up"] = log.count("dlq: ")
        (stored,) = query(self._settings, "SELECT last_sequence FROM drain_checkpoints")
        self.done["stored before the last drain"] = stored["last_sequence"]
        self.problems += parts.traceback_in(log)
        report = await drain_log(self._settings)
        self._expect("epoch", [report.epoch.rpartition("#")[2]], ["0"])
        letters, rows = in_lake(self._settings), failures(self._settings)
        bodies = [json.loads(self.acknowledged[seq]) for seq in sorted(self.acknowledged)]
        self._expect("sequences in the lake", letters["dlq_sequence"], sorted(self.acknowledged))
        self._expect("events in the lake", letters["event_id"], [b["event_id"] for b in bodies])
        self._expect(
            "payloads in the lake",
            [json.loads(text) for text in letters["original_data"]],
            [body["original_data"] for body in bodies],
        )
        self._expect(
            "case events in the lake",
            in_lake(self._settings, "case_events")["dlq_sequence"],
            sorted(self.decisions),
        )
        seen = Counter(body["failure_id"] for body in bodies)
        self._expect(
            "failures in Postgres",
            sorted((str(row["id"]), row["seen_count"]) for row in rows),
            sorted(seen.items()),
        )
        self._expect(
            "statuses", sorted((str(row["id"]), row["status"]) for row in rows), self._cases()
        )
        verified = await verify_stores(self._settings)
        self._expect("findings of dlq verify", verified.findings, [])

    def _cases(self) -> list[tuple[str, str]]:
        with connect(Lake(self._settings.lake)) as lake:
            create_views(lake)
            return sorted(lake.execute("SELECT failure_id, status FROM cases").fetchall())

    def _expect(self, what: str, found: Any, wanted: list[Any]) -> None:
        found = list(found)
        if found != wanted:
            lacking = [item for item in wanted if item not in found][:5]
            strange = [item for item in found if item not in wanted][:5]
            self.problems.append(
                f"{what}: {len(found)} found, {len(wanted)} wanted; lacking {lacking},"
                f" not wanted {strange}"
            )


def _failure_id(number: int) -> str:
    return ids.failure_id("EVENTS", number, number, "soak")


def _letter(number: int) -> bytes:
    return letter(
        number,
        original_stream="EVENTS",
        original_sequence=number,
        original_timestamp_ns=number,
        consumer_name="soak",
        failure_id=_failure_id(number),
    )


def main() -> int:
    """Run for the given time, and print what was done and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    given = parts.read_options(parser)
    with tempfile.TemporaryDirectory(prefix="dlq-soak-") as home:
        soak = Soak(Path(home), given.seconds, given.seed)
        started = time.monotonic()
        problems = asyncio.run(soak.run())
        if problems:
            (Path(tempfile.gettempdir()) / f"dlq-soak-{given.seed}.log").write_text(
                (Path(home) / "drains.log").read_text()
            )
    parts.say(soak.done, started, problems)
    verdict = "not sound" if problems else "sound"
    print(f"{verdict}; again with: make soak SECONDS=… SEED={given.seed}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
