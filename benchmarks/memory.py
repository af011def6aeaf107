"""The memory of the drain, whatever the backlog: `make bench-memory`.

Each drain is a separate process, `dlq drain`, so that its peak can be measured. The kernel reports
the peak of the resident set, which includes every thread and library.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass

from rich.table import Table

from letters import huge_letters, letters
from measure import console, print_ratios, status
from servers import Platform, fill, reset, servers

_HUGE_BYTES = 900_000


@dataclass(frozen=True)
class Peak:
    """One drain of a backlog."""

    name: str
    messages: int
    megabytes: float  # largest resident set
    seconds: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=100_000, help="messages of the small backlog")
    parser.add_argument("--large", type=int, default=1_000_000, help="messages of the large one")
    parser.add_argument("--huge", type=int, default=2_000, help="messages of 900 KB")
    arguments = parser.parse_args()
    with servers() as platform:
        with status(f"Publishing {arguments.small:,} dead letters"):
            asyncio.run(fill(platform, letters(arguments.small)))
        small = drained(platform, "small backlog", arguments.small)
        more = arguments.large - arguments.small
        with status(f"Publishing {more:,} more"):
            asyncio.run(fill(platform, letters(more, arguments.small)))
        large = drained(platform, "large backlog", arguments.large)
    with servers() as platform:
        with status(f"Publishing {arguments.huge:,} dead letters of 900 KB"):
            asyncio.run(fill(platform, huge_letters(arguments.huge, _HUGE_BYTES)))
        huge = drained(platform, "messages of 900 KB", arguments.huge)
    table = Table("", title="Peak memory of `dlq drain`", title_justify="left", box=None)
    for column in ("messages", "seconds", "peak MB"):
        table.add_column(column, justify="right")
    for peak in (small, large, huge):
        table.add_row(
            peak.name, f"{peak.messages:,}", f"{peak.seconds:,.0f}", f"{peak.megabytes:,.0f}"
        )
    console.print(table)
    console.print()
    print_ratios(
        [
            ("large backlog ÷ small backlog", large.megabytes / small.megabytes, "≤ 1.2"),
            ("large backlog, MB", large.megabytes, "≤ 700"),
            ("messages of 900 KB, MB", huge.megabytes, "≤ 700"),
        ]
    )


def drained(platform: Platform, name: str, count: int) -> Peak:
    """`dlq drain` into empty sinks, in a separate process, so that its own peak is measured."""
    reset(platform)
    settings = platform.settings
    command = [sys.executable, "-m", "sahool_dlq.cli", "drain", "--json"]
    environment = os.environ | {
        "DLQ_HOME": str(settings.home),
        "DLQ_NATS_URL": settings.nats_url.get_secret_value(),
        "DLQ_POSTGRES_DSN": platform.dsn,
        "DLQ_LAKE_URI": settings.lake,
    }
    with (
        status(f"Draining the {name}"),
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
        _, exit_status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(exit_status)
    assert process.returncode == 0, report
    assert report["drained"] == count, report
    assert report["quarantined"] == 0, report
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return Peak(name, count, usage.ru_maxrss * unit / 1e6, report["seconds"])


if __name__ == "__main__":
    main()
