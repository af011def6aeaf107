"""The cost of the marts: `make bench-marts`; a tenth of the rows with ARGS="--letters 1000000".

The lakes are made once (`history`) and kept below `.dlq`; each run works on a copy.
"""

import argparse
import re
import resource
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table

from history import NOW, drain_held_back, history, rows_of, working_copy
from measure import console, print_ratios, status
from plain import FACTS, GROUPS, plain_seconds
from sahool_dlq.analysis.marts.build import MARTS, build_summaries
from sahool_dlq.analysis.marts.incremental_build import daily_marts, write_marts
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect

_FOLDER = Path(__file__).parents[1] / ".dlq" / "bench-marts"
_DRAIN = 10_000
_CAP = 3
_MOST = 3.0  # times the plain GROUP BY
_MADE = re.compile(r"(?:TABLE|INTO|VIEW|TYPE) (?:IF EXISTS )?(?:temp\.)?(?:delta_|changed_)?(\w+)")


class Charged:
    """A connection that assigns the CPU time of all threads to the relations of its statements.

    The time that Python and Polars take before a statement counts for that statement: the rows of a
    mart are computed first, then stored.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._last = time.process_time()
        self.seconds: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *parameters: Any) -> Any:
        """Execute it, and assign the time since the last statement."""
        result = self._connection.execute(statement, *parameters)
        if made := _MADE.search(statement):
            now = time.process_time()
            self.seconds[made[1]] += now - self._last
            self._last = now
        return result


def update(lake: Lake) -> tuple[float, Counter[str]]:
    """Bring the marts up to date, as `update_marts` does; CPU seconds, and those by relation.

    CPU time, because other load on the machine changes it less than the elapsed time.
    """
    before = time.process_time()
    with connect(lake) as connection:
        charged: Any = Charged(connection)
        with daily_marts(charged, lake, _CAP):
            tables = build_summaries(charged, NOW)
    write_marts(lake, tables)
    return time.process_time() - before, charged.seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=10_000_000, help="of the large lake")
    arguments = parser.parse_args()
    small = history(_FOLDER, arguments.letters // 10, _DRAIN)
    large = history(_FOLDER, arguments.letters, _DRAIN)
    table = Table("", title="The marts, CPU seconds", title_justify="left", box=None)
    for column in ("dead letters", "rebuilt", f"after a drain of {_DRAIN:,}", "peak memory, GB"):
        table.add_column(column, justify="right")
    found = []
    for made in (small, large):
        lake = working_copy(made, _FOLDER / "work")
        with status(f"Building the marts of {rows_of(made):,} dead letters"):
            whole, by_relation = update(lake)
            by_relation["the rest"] = whole - by_relation.total()
            drain_held_back(made, lake)
            more, _ = update(lake)
        found.append((whole, more))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        table.add_row("", f"{rows_of(made):,}", f"{whole:.1f}", f"{more:.1f}", f"{peak:.1f}")
    with status("Grouping plainly"):
        plain = plain_seconds(lake, NOW)
    console.print(table)
    console.print()
    print_marts(by_relation, plain)
    (small_whole, _), (whole, more) = found
    print_ratios(
        [
            ("one run after a small drain ÷ a rebuild", more / whole, "≤ 0.1"),
            ("a rebuild of the large lake ÷ of the small", whole / small_whole, "≤ 10"),
        ]
    )


def print_marts(seconds: Counter[str], plain: dict[str, float]) -> None:
    """Print each mart of the rebuild next to a plain GROUP BY, after what all marts share."""
    table = Table("", title="The large lake's rebuild", title_justify="left", box=None)
    for column in ("CPU s", "plain GROUP BY", "ratio", "target"):
        table.add_column(column, justify="right")
    shared = {name: sum(seconds[part] for part in parts) for name, parts in FACTS.items()}
    for name, spent in (shared | {name: seconds[name] for name in MARTS}).items():
        ratio, target = f"{spent / plain[name]:.2f}", ""
        if name not in shared:
            colour = "green" if spent <= _MOST * plain[name] else "red"
            ratio, target = f"[{colour}]{ratio}[/{colour}]", f"≤ {_MOST:.0f}"
        table.add_row(name, f"{spent:.2f}", f"{plain[name]:.2f}", ratio, target)
    whole, bound = seconds.total(), sum(plain.values())
    table.add_row("all, and writing it", f"{whole:.2f}", f"{bound:.2f}", f"{whole / bound:.2f}", "")
    console.print(table)
    console.print()


assert set(GROUPS) == {*FACTS, *MARTS}

if __name__ == "__main__":
    main()
