"""docs/tutorial.md runs as it is: its files, commands and terminals, on real servers.

Only the forecast's port and the group's id are replaced.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sahool_dlq.embedded import PostgresServer
from sahool_dlq.embedded.server import free_port
from support import ROOT

PORT = "8099"
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
LIMIT_SECONDS = 600.0


class Terminal:
    """A shell that keeps its variables, fed block by block; its output goes to a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._log = folder / f"{name}.log"
        bin_folder = str(Path(sys.executable).parent)
        ours = ("DLQ_", "PREFECT_", "NATS_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        with self._log.open("w") as log:
            self._shell = subprocess.Popen(
                ["bash", "-e"],
                cwd=folder,
                env={
                    **kept,
                    "PATH": f"{bin_folder}:{os.environ['PATH']}",
                    "COLUMNS": "120",
                    "DLQ_REDRIVE_DELAY_SECONDS": "86400",  # the schedule leaves the failures alone
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._blocks = 0

    @property
    def printed(self) -> str:
        return self._log.read_text()

    def start(self, block: str, until: Callable[[str], bool] | None = None) -> None:
        """Type a block; wait until it has ended, or the output of its last command contains
        `until`.
        """
        assert self._shell.stdin is not None
        self._blocks += 1
        end = f"end of block {self._blocks}"
        self._shell.stdin.write(f"{block}echo '{end}'\n")
        self._shell.stdin.flush()
        deadline = time.monotonic() + LIMIT_SECONDS
        while not (until(self.printed) if until else end in self.printed):
            assert self._shell.poll() is None, self.printed
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.1)

    def end(self) -> None:
        """Ctrl-C, and wait."""
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGINT)
        self._shell.communicate(timeout=120)


def masked(line: str) -> str:
    """A line of output without the parts that differ from run to run."""
    line = re.sub(r"[\d.]+ (s|min) ago", "N ago", line.strip())
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16}|[\d.]+", "N", line)


def test_every_step_does_what_the_page_says(tmp_path: Path) -> None:
    port = str(free_port("The forecast service"))
    page = (ROOT / "docs/tutorial.md").read_text()
    assert PORT in page
    # What continues to run, and when the reader continues.
    running: dict[str, Callable[[str], bool]] = {
        "dlq up": lambda printed: "Ctrl-C stops everything." in printed,
        "python irrigation.py": lambda printed: printed.count("Dead letter: ") == 20,
        "python -m http.server": lambda _: answers(int(port)),
    }
    terminals: dict[str, Terminal] = {}
    shown = ""
    try:
        for language, title, block in FENCE.findall(page.replace(PORT, port)):
            if language == "python":
                (tmp_path / title).write_text(block)
            elif language == "sh" and title:
                if title not in terminals:
                    terminals[title] = Terminal(tmp_path, title)
                until = next((when for what, when in running.items() if what in block), None)
                # The id that a reader copies from what `dlq groups` printed.
                [*_, group] = ["GROUP", *re.findall(r"ValueError: .*\n +([0-9a-f]{16}) ", shown)]
                terminals[title].start(block.replace("GROUP", group), until)
                shown = terminals[title].printed
            elif language == "text":
                lines = [line for line in block.splitlines() if line.strip(" …")]
                printed = {masked(line) for line in shown.splitlines()}
                assert [line for line in lines if masked(line) not in printed] == [], shown
        assert dlq(tmp_path, "status")["failures"] == {"resolved": 20}
        watered = re.findall(r"^(field-\d+): (\d) mm", terminals["Terminal 2"].printed, re.M)
        assert dict(watered) == {f"field-{n}": "5" if n == 7 else "8" for n in range(1, 21)}
        assert "<svg" in (tmp_path / "report.html").read_text()
    finally:
        for name in sorted(terminals, reverse=True):  # the servers last
            terminals[name].end()
        with PostgresServer(tmp_path / ".dlq") as postgres:
            postgres.remove()  # as root the data are outside the temporary folder


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/rain.json", timeout=5) as answer:
            return bool(json.load(answer)["rain_mm"] == 4)
    except OSError:
        return False


def dlq(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "sahool_dlq.cli", *arguments, "--json", "--home", ".dlq"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    value: dict[str, Any] = json.loads(done.stdout)
    return value
