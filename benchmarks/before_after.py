"""This tree beside the build of an earlier commit: `make bench-before-after BASE=<commit>`.

Both builds read the same log on the same servers in turn, each through its own `dlq` command, its
own database and its own lake. The ratio of the CPU of all processes (`dlq`, PostgreSQL, NATS) says
what a change is worth; it depends little on the machine and its load.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from rich.table import Table

from letters import letters, strange_letters
from measure import Run, Stopwatch, console, interleaved, print_rates, status
from servers import Platform, fill, servers

_VERBS = (("drain", "--json"), ("status",), ("groups",), ("sql", "SELECT 1"))
_QUICK_LETTERS = 2_000  # in the lake that the verbs look at


@dataclass(frozen=True)
class Build:
    """The `dlq` command of a tree, with a database and a lake of its own."""

    name: str
    dlq: Path
    platform: Platform

    @property
    def _home(self) -> Path:
        return self.platform.settings.home / self.name

    def run(self, *verb: str) -> str:
        """Run a verb; its output."""
        settings = self.platform.settings
        environment = os.environ | {
            "DLQ_HOME": str(self._home),
            "DLQ_LAKE_URI": str(self._home / "lake"),
            "DLQ_NATS_URL": settings.nats_url.get_secret_value(),
            "DLQ_POSTGRES_DSN": psycopg.conninfo.make_conninfo(self.platform.dsn, dbname=self.name),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as for users
        done = subprocess.run(
            [self.dlq, *verb], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{self.name}: dlq {' '.join(verb)}: {done.stderr}")
        return done.stdout

    def empty(self) -> None:
        """An empty database and no lake."""
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir()
        with psycopg.connect(self.platform.dsn, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {self.name}")
        self.run("migrate")
        with psycopg.connect(self.platform.dsn, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def drain(self, count: int) -> Run:
        """Drain the whole log into empty sinks; check what it stored."""
        self.empty()
        watch = self._watch()
        report: dict[str, Any] = json.loads(self.run("drain", "--json"))
        run = watch.run(count)
        assert report["drained"] == count, report
        return Run(count, report["seconds"], run.cpu_seconds)

    def row_bytes(self, count: int) -> float:
        """Space of one of `count` stored failures in PostgreSQL, with its part of the indexes."""
        with psycopg.connect(self.platform.dsn, dbname=self.name) as connection:
            found = connection.execute(
                "SELECT pg_total_relation_size(oid) FROM pg_class WHERE relname = 'failed_events'"
            ).fetchone()
        assert found is not None
        return float(found[0]) / count

    def verb(self, *words: str) -> Run:
        """One run of a verb; the CPU is that of a run."""
        watch = self._watch()
        self.run(*words)
        return watch.run(1)

    def _watch(self) -> Stopwatch:
        return Stopwatch({"postgres": self.platform.postgres.pid, "nats": self.platform.nats.pid})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path, help="the other build's folder, with its environment")
    parser.add_argument("--messages", type=int, default=60_000, help="in each log")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a row's name")
    arguments = parser.parse_args()
    commands = {"base": arguments.base / ".venv" / "bin", "here": Path(sys.executable).parent}
    logs = {
        "drain, few traces": letters,
        "drain, every trace another": partial(letters, is_diverse=True),
        "drain, half of other clients": strange_letters,
    }
    ratios = []
    for name, made in logs.items():
        if arguments.only in name:
            with _builds(commands, made(arguments.messages), name) as builds:
                whole = {build.name: partial(build.drain, arguments.messages) for build in builds}
                runs = interleaved(whole, arguments.repetitions)
                space = ", ".join(
                    f"{each.name} {each.row_bytes(arguments.messages):,.0f}" for each in builds
                )
            print_rates(name, runs)
            console.print(f"Space of a row of failed_events, bytes: {space}\n")
            ratios.append((name, *_medians(runs)))
    if arguments.only in "verbs":
        with _builds(commands, letters(_QUICK_LETTERS), "the verbs' log") as builds:
            for build in builds:
                build.empty()
                build.run("drain")
            for words in _VERBS:
                each = {build.name: partial(build.verb, *words) for build in builds}
                runs = interleaved(each, 3 * arguments.repetitions)
                ratios.append((f"dlq {' '.join(words)}", *_medians(runs)))
    _print(ratios)


@contextmanager
def _builds(
    commands: Mapping[str, Path], dead_letters: Iterable[tuple[str, bytes]], name: str
) -> Iterator[list[Build]]:
    """Servers with a full log, and what reads it."""
    with servers() as platform:
        with status(f"Publishing {name}"):
            asyncio.run(fill(platform, dead_letters))
        yield [Build(each, folder / "dlq", platform) for each, folder in commands.items()]


def _medians(runs: Mapping[str, Sequence[Run]]) -> tuple[float, float]:
    """The median CPU seconds per row of all processes: base, here."""
    base, here = (
        statistics.median(sum(run.cpu_seconds.values()) / run.rows for run in found)
        for found in runs.values()
    )
    return base, here


def _print(rows: Sequence[tuple[str, float, float]]) -> None:
    table = Table("CPU of all processes", "base, ms", "here, ms", "ratio", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, base, here in rows:
        table.add_row(name, f"{1e3 * base:,.3f}", f"{1e3 * here:,.3f}", f"{here / base:.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
