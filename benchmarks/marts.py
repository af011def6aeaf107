"""What the marts cost: `make bench-marts`; a tenth of the rows with ARGS="--letters 1000000".

The lakes are made once (`history`) and kept below `.dlq`; each run works on a copy of theirs.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from history import NOW, drain_held_back, history, rows_of, working_copy
from measure import console, print_ratios, status
from rich.table import Table

from pipelines.analysis.kept import update_marts

_FOLDER = Path(__file__).parents[1] / ".dlq" / "bench-marts"
_DRAIN = 10_000
_CAP = 3


def timed(work: Callable[[], object]) -> float:
    """Seconds of CPU, all threads: other people's load hardly changes them."""
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=10_000_000, help="of the large lake")
    arguments = parser.parse_args()
    small = history(_FOLDER, arguments.letters // 10, _DRAIN)
    large = history(_FOLDER, arguments.letters, _DRAIN)
    table = Table("", title="The marts, CPU seconds", title_justify="left", box=None)
    for column in ("dead letters", "rebuilt", f"after a drain of {_DRAIN:,}"):
        table.add_column(column, justify="right")
    found = []
    for made in (small, large):
        lake = working_copy(made, _FOLDER / "work")
        with status(f"Building the marts of {rows_of(made):,} dead letters"):
            whole = timed(lambda: update_marts(lake, NOW, _CAP))  # noqa: B023
            drain_held_back(made, lake)
            more = timed(lambda: update_marts(lake, NOW, _CAP))  # noqa: B023
        found.append((whole, more))
        table.add_row("", f"{rows_of(made):,}", f"{whole:.1f}", f"{more:.1f}")
    console.print(table)
    (small_whole, _), (whole, more) = found
    print_ratios(
        [
            ("one run after a small drain ÷ a rebuild", more / whole, "≤ 0.1"),
            ("a rebuild of the large lake ÷ of the small", whole / small_whole, "≤ 10"),
        ]
    )


if __name__ == "__main__":
    main()
