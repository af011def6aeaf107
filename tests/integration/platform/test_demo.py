"""`dlq demo`, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from support import ROOT

DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def demo(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sahool_dlq.cli", "demo", "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith(("DLQ_", "PREFECT_"))},
    )


@pytest.mark.parametrize("how", [[], ["--secured"]], ids=["plain", "secured"])
def test_the_demo_is_sound_and_leaves_no_process(how: list[str], tmp_path: Path) -> None:
    done = demo(tmp_path, "--events", "600", "--json", *how)
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout)
    assert story["published"] == 600
    assert [check for check in story["checks"] if not check["is_met"]] == []
    assert len(story["checks"]) == (9 if how else 7)
    scheduled = {each["name"] for each in DEPLOYMENTS if each.get("schedules")}
    # `report` reads the lake only; the worker's user may not hear all that `doctor` would.
    assert not how or scheduled - {"report", "doctor"} <= story["flows"].keys()
    assert story["flows"]["drain-dlq"].startswith("Drained ")
    groups = {group["error_class"] for group in story["report"]["failure_groups"]}
    assert groups == {
        "TimeoutError",
        "ConnectionRefusedError",
        "UniqueViolation",
        "ValidationError",
        "ZeroDivisionError",
    }
    red, green = story["trials"]
    assert (red["passed"], green["passed"]) == (0, green["tried"]) != (0, 0)
    [group] = [each["group_id"] for each in red["groups"]]
    assert [(each["version"], each["brought"], each["cured"]) for each in story["deploys"]] == [
        ("1.4.3", [], [group]),
        ("1.4.2", [group], []),
    ]
    page = Path(story["places"]["report"])
    assert "<h1>Dead letters</h1>" in page.read_text()
    assert page.with_suffix(".md").read_text().startswith("# Dead letters")
    assert processes_below(tmp_path) == []


def test_the_demo_never_empties_a_folder_of_somebody_else(tmp_path: Path) -> None:
    precious = tmp_path / "demo" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    done = demo(tmp_path)
    assert done.returncode == 1
    assert "holds something else than a demo" in done.stderr
    assert precious.read_text() == "mine"


def processes_below(home: Path) -> list[str]:
    """Command lines of processes that name a file below `home`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in line:
            found.append(line)
    return found
