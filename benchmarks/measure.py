"""Measures contestants in turn, compares medians, and prints ratios.

The machine may be shared and its speed may change from minute to minute. So only ratios within one
run are meaningful, and the most stable figure is the CPU time per row.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

console = Console(highlight=False, width=120)
_PROCESSES = {"client": "client", "postgres": "PostgreSQL", "nats": "NATS"}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """One repetition: number of rows, time, and CPU time of each process."""

    rows: int
    seconds: float
    cpu_seconds: Mapping[str, float]  # by process: client, postgres, nats

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds

    def cpu(self, process: str) -> float:
        """CPU per row in µs."""
        return 1e6 * self.cpu_seconds.get(process, float("nan")) / self.rows


class Stopwatch:
    """Elapsed and CPU time of this process (and of children that have ended), and of servers.

    The servers' CPU time is read from /proc, and left out on systems without it.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._begin = time.monotonic(), self._cpu()

    def run(self, rows: int) -> Run:
        """The figures of `rows` rows since this stopwatch was created."""
        started, before = self._begin
        cpu = {name: value - before[name] for name, value in self._cpu().items()}
        return Run(rows, time.monotonic() - started, cpu)

    def _cpu(self) -> dict[str, float]:
        own = sum(os.times()[:4])
        return {"client": own} | {
            name: found
            for name, pid in self._pids.items()
            if (found := _cpu_of_tree(pid)) is not None
        }


def interleaved(
    contestants: Mapping[str, Callable[[], Run | None]], repetitions: int
) -> dict[str, list[Run]]:
    """Run the contestants in turn; the runs of each. One that returns None could not take part."""
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for turn in range(repetitions):
        for name, contestant in contestants.items():
            with console.status(f"{name}, {turn + 1} of {repetitions}"):
                if (run := contestant()) is not None:
                    runs[name].append(run)
    return runs


def rate(runs: Sequence[Run]) -> float:
    """The median rate, rows per second."""
    return statistics.median(run.rate for run in runs)


def cpu_each(runs: Sequence[Run], process: str = "client") -> float:
    """The median CPU per row, µs."""
    return statistics.median(run.cpu(process) for run in runs)


def print_rates(title: str, runs: Mapping[str, Sequence[Run]]) -> None:
    """Print rate and CPU per row of every contestant, and the number of busy cores."""
    table = Table(
        *("", "rows", "rows/s", "spread", "cores"),
        title=f"{title}; µs of CPU",
        title_justify="left",
        box=None,
    )
    measured = {name for found in runs.values() for run in found for name in run.cpu_seconds}
    processes = {key: name for key, name in _PROCESSES.items() if key in measured}
    for process in processes.values():
        table.add_column(f"{process} µs/row", justify="right")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, found in runs.items():
        if not found:
            table.add_row(name, "not installed")
            continue
        rates = [run.rate for run in found]
        cpu = [cpu_each(found, process) for process in processes]
        table.add_row(
            name,
            f"{found[0].rows:,}",
            f"{rate(found):,.0f}",
            f"{(max(rates) - min(rates)) / rate(found):.0%}",
            f"{sum(value for value in cpu if not math.isnan(value)) * rate(found) / 1e6:.2f}",
            *(f"{value:.1f}" for value in cpu),
        )
    console.print(table)
    console.print()


def print_ratios(rows: Sequence[tuple[str, float | None, str]]) -> None:
    """Print ratios and their targets (`≥ 0.6`); None if a figure could not be measured."""
    table = Table("ratio", "measured", "target", title_justify="left", box=None)
    for name, measured, target in rows:
        if measured is None:
            table.add_row(name, "not measured", target)
            continue
        sign, limit = target.split()
        is_met = measured >= float(limit) if sign == "≥" else measured <= float(limit)
        colour = "green" if is_met else "red"
        table.add_row(name, f"[{colour}]{measured:.2f}[/{colour}]", target)
    console.print(table)
    console.print()


@contextmanager
def status(text: str) -> Iterator[None]:
    """Print progress, if there is a terminal."""
    with console.status(text):
        yield


def _cpu_of_tree(pid: int) -> float | None:
    """CPU seconds of a process and its children, including those that have ended."""
    try:
        before = None
        while (now := sum(map(int, _stat(pid)[11:15]))) != before:  # a child may end meanwhile
            before, children = now, _cpu_of_children(pid)
    except OSError:
        return None
    return (now + children) / _TICKS


def _cpu_of_children(pid: int) -> int:
    ticks = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = _stat(int(entry.name))
            if int(fields[1]) == pid:
                ticks += int(fields[11]) + int(fields[12])
    return ticks


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name, which may contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
