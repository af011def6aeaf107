"""`make try-faults`: the scheduled flows while workers, servers and the database die.

Dead letters arrive all the time, and drains run every 20 seconds, on servers that this command
starts. In turn, a worker is killed in the middle of a drain, Prefect's server is killed and started
again, the database is down for a minute, and ten late runs start at once. After each fault it
measures how long it takes until the next run completes, and checks that nothing is lost or stored
twice.
"""

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import nats
import psycopg
from prefect_api import Platform, letter_of, make_late, started, until

from sahool_dlq.embedded import PostgresServer
from sahool_dlq.embedded.worker import start_worker
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake

EVERY_SECONDS = 20
PER_SECOND = 20
PATIENCE_SECONDS = 900  # for a machine with other load


class Services:
    """Publishes dead letters until it is stopped, and records which ones NATS acknowledged."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self.acknowledged: list[str] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._publish()))

    def __enter__(self) -> "Services":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    async def _publish(self) -> None:
        connection = await nats.connect(self._settings.nats_url.get_secret_value())
        number = 0
        while not self._stop.is_set():
            number += 1
            await connection.jetstream().publish("sahool.dlq.ndvi", letter_of(number))
            self.acknowledged.append(f"event-{number}")
            await asyncio.sleep(1 / PER_SECOND)
        await connection.close()


class Trial:
    """The platform, its worker, and the faults to try."""

    def __init__(self, platform: Platform, postgres: PostgresServer, services: Services) -> None:
        self.platform = platform
        self.postgres = postgres
        self.services = services
        self.worker = start_worker(platform.settings.home, platform.environment)

    def stored(self) -> int:
        """The number of dead letters in PostgreSQL; 0 while it does not answer."""
        try:
            with psycopg.connect(self.platform.settings.postgres_dsn.get_secret_value()) as one:
                row = one.execute("SELECT count(*) FROM failed_events").fetchone()
        except psycopg.OperationalError:
            return 0
        return int(row[0]) if row else 0

    def caught_up(self) -> float:
        """Seconds until everything that has arrived by now is stored."""
        wanted, started = len(self.services.acknowledged), time.monotonic()
        until(lambda: self.stored() >= wanted or None, "the drain", PATIENCE_SECONDS)
        return time.monotonic() - started

    def in_a_drain(self) -> str:
        """The id of a run that is storing dead letters at this moment."""
        before = self.stored()
        until(lambda: self.stored() > before or None, "a drain at work", PATIENCE_SECONDS)
        running = [r["id"] for r in self.platform.runs("drain-dlq") if r["state_type"] == "RUNNING"]
        return str(running[0]) if running else self.in_a_drain()

    def start_worker(self) -> None:
        self.worker = start_worker(self.platform.settings.home, self.platform.environment)

    def worker_killed(self) -> str:
        run = self.in_a_drain()
        self.worker.kill()
        self.start_worker()
        seconds, killed = self.caught_up(), time.monotonic()
        ended = until(
            lambda: (
                found
                if (found := self.platform.call(f"/flow_runs/{run}"))["state_type"] == "CRASHED"
                else None
            ),
            "the run that finds the dead one",
            PATIENCE_SECONDS,
        )
        after = seconds + time.monotonic() - killed
        again = until(self._restarted, "the drain that the crash starts", PATIENCE_SECONDS)
        return (
            f"caught up after {seconds:.0f} s; the dead run was found after {after:.0f} s:"
            f" {ended['state']['message']!r}, and {again} drain was started in its place"
        )

    def _restarted(self) -> int | None:
        made = [r["created_by"] or {} for r in self.platform.runs("drain-dlq")]
        return sum(by.get("type") == "AUTOMATION" for by in made) or None

    def server_killed(self) -> str:
        run = self.in_a_drain()
        self.platform.server.kill()
        time.sleep(10)  # it is not started for a while
        self.platform.server.start()
        seconds = self.caught_up()
        state = self.platform.call(f"/flow_runs/{run}")["state"]
        return f"caught up after {seconds:.0f} s; the run of that time: {state['name']}"

    def database_away(self) -> str:
        run = self.in_a_drain()
        self.postgres.kill()
        time.sleep(60)
        self.postgres.start()
        seconds = self.caught_up()
        state = self.platform.call(f"/flow_runs/{run}")["state"]
        return f"caught up after {seconds:.0f} s; the run of that time: {state['name']}"

    def late_runs(self) -> str:
        self.worker.stop()
        until(self._scheduled, "ten scheduled drains", PATIENCE_SECONDS)
        ids = [str(make_late(self.platform, (10 - place) / 3)) for place in range(10)]
        self.start_worker()
        seconds = self.caught_up()
        states = Counter(self.platform.ended(run_id)["state"]["name"] for run_id in ids)
        said = ", ".join(f"{count} {state}" for state, count in states.most_common())
        return f"caught up after {seconds:.0f} s; the ten: {said}"

    def _scheduled(self) -> bool | None:
        runs = self.platform.runs("drain-dlq")
        return sum(run["state_type"] == "SCHEDULED" for run in runs) > 10 or None

    async def problems(self) -> list[str]:
        """What is lost or stored twice once everything is drained."""
        settings = self.platform.settings
        await drain_log(settings)
        found = [str(finding) for finding in (await verify_stores(settings)).findings]
        wanted = Counter(self.services.acknowledged)
        with psycopg.connect(settings.postgres_dsn.get_secret_value()) as connection:
            rows = connection.execute("SELECT event_id FROM failed_events").fetchall()
        if Counter(event_id for (event_id,) in rows) != wanted:
            found.append("Postgres does not hold each dead letter once")
        lake = Lake(settings.lake).read("dead_letters")
        if Counter(lake["event_id"].to_list()) != wanted:
            found.append("the lake does not hold each dead letter once")
        return found


def quicken(platform: Platform) -> None:
    """Run drains more often, and pause all other schedules."""
    platform.pause("build-marts", "redrive-transient")
    drain = platform.deployments()["drain-dlq"]
    platform.call(
        f"/deployments/{drain['id']}/schedules/{drain['schedules'][0]['id']}",
        {"schedule": {"interval": EVERY_SECONDS}},
        "PATCH",
    )
    until(lambda: len(platform.runs("drain-dlq")) > 10 or None, "scheduled drains")
    with psycopg.connect(platform.prefect_dsn) as connection:
        # As if long scheduled: news of a run wait up to 15 minutes for those of a state less than
        # 5 minutes older, and where a schedule made that state there are none.
        connection.execute("UPDATE flow_run_state SET timestamp = timestamp - INTERVAL '1 hour'")


def main() -> int:
    """Try all faults, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = ("worker_killed", "server_killed", "database_away", "late_runs")
    parser.add_argument("faults", nargs="*", default=names, help=", ".join(names))
    chosen = parser.parse_args().faults
    with (
        tempfile.TemporaryDirectory(prefix="dlq-faults-") as folder,
        started(Path(folder), DLQ_DRAIN_BATCH_MESSAGES="5") as (made, postgres),
        Services(made.settings) as services,
    ):
        quicken(made)
        trial = Trial(made, postgres, services)
        try:
            for name in chosen:
                print(f"{name.replace('_', ' ')}: {getattr(trial, name)()}", flush=True)
        finally:
            trial.worker.stop()
        services.stop()
        problems = asyncio.run(trial.problems())
    print(f"{len(services.acknowledged):,} dead letters, each once in the lake and in Postgres:")
    print("\n".join(problems) if problems else "yes")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
