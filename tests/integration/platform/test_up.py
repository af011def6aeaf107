"""`dlq up`, as a user runs it: addresses, other commands that find it, Ctrl-C, data that stay."""

import asyncio
import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
from test_demo import processes_below

from sahool_dlq.embedded import PostgresServer
from support import ROOT

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("DLQ_", "PREFECT_"))}
DLQ = [sys.executable, "-m", "sahool_dlq.cli"]
LIMIT_SECONDS = 1800.0  # of a machine with much else to do; with little it takes two minutes


@contextmanager
def up(home: Path) -> Iterator[dict[str, str]]:
    """`dlq up` until it has printed its addresses; Ctrl-C at the end."""
    process = subprocess.Popen(
        [*DLQ, "up", "--json", "--no-fleet", "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def dlq(home: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [*DLQ, *arguments, "--json", "--home", str(home)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


async def _publish(url: str) -> None:
    connection = await nats.connect(url)
    await connection.jetstream().publish("sahool.dlq.odd", b"not a dead letter")
    await connection.close()


def automations(prefect_ui: str, password: str) -> list[str]:
    login = base64.b64encode(f"dlq:{password}".encode()).decode()
    request = urllib.request.Request(
        f"{prefect_ui}/api/automations/filter",
        data=b"{}",
        headers={"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [automation["name"] for automation in json.load(answer)]


def test_other_commands_find_it_and_data_survive_a_restart(tmp_path: Path) -> None:
    with up(tmp_path) as places:
        assert set(places) == {
            *("nats_url", "postgres", "lake_uri"),
            *("prefect_ui", "prefect_login", "dead_letters"),
        }
        file = tmp_path / "endpoints.json"
        assert file.stat().st_mode & 0o777 == 0o600
        asyncio.run(_publish(json.loads(file.read_text())["nats_url"]))
        dlq(tmp_path, "drain")
        assert dlq(tmp_path, "status")["failures"] == {"pending": 1}
    assert processes_below(tmp_path) == []
    assert not (tmp_path / "endpoints.json").exists()
    with up(tmp_path) as places:
        status = dlq(tmp_path, "status")
        names = automations(places["prefect_ui"], Path(places["prefect_login"]).read_text().strip())
    assert sorted(names) == sorted(set(names))  # the second deploy added none
    assert len(names) >= 3
    with PostgresServer(tmp_path) as postgres:
        postgres.remove()  # as root the data are outside the temporary folder
    assert status["messages"] == 1
    assert status["failures"] == {"pending": 1}
    assert status["sinks"] == {"postgres": 1, "lake dead_letters": 1, "lake case_events": 1}


def test_the_first_hour_goes_as_readme_says(tmp_path: Path) -> None:
    """After `make up`: the commands that it prints work, and what it announces happens."""
    process = subprocess.Popen(
        [*DLQ, "up", "--home", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    told: list[str] = []
    limit = threading.Timer(LIMIT_SECONDS, process.kill)
    limit.start()
    try:
        printed = []
        for line in process.stdout:
            printed.append(line.strip())
            if line.startswith("Ctrl-C stops everything"):
                break
        for line in process.stderr:  # ends with the process, whatever becomes of it
            told.append(line)
            if "are cured by an automatic redrive" in line:
                break
        assert [words for words in FIRSTS if not any(words in line for line in told)] == [], told
        assert not any("password" in line and "@" in line for line in printed)
        commands = [line for line in printed if line.endswith(f" --home {tmp_path}")]
        assert len(commands) == 3
        for command in commands:
            done = subprocess.run(
                shlex.split(command), capture_output=True, text=True, env=ENVIRONMENT, check=False
            )
            assert done.returncode == 0, done.stderr
        play_the_first_hour(tmp_path)
        [page] = [line.split()[-1] for line in printed if line.startswith("dead letters")]
        assert page.endswith("/artifacts/key/dead-letters")
        assert artifacts(page.partition("/artifacts")[0], tmp_path) > 0
        os.kill(pid_of(tmp_path / "nats"), signal.SIGKILL)
        for line in process.stderr:
            if "NATS ended: see " in line:
                break
        else:
            raise AssertionError("its death was not said")
    finally:
        limit.cancel()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert processes_below(tmp_path) == []
    with PostgresServer(tmp_path) as postgres:
        postgres.remove()


FIRSTS = ("failures are in the lake and in PostgreSQL", "They are ", "failures are cured")


def play_the_first_hour(home: Path) -> None:
    """The commands of README's first hour, in its order, on a group that no redrive cures."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while (bug := repeated_bug(home)) is None:
        assert time.monotonic() < deadline, "no bug failed twice"
    said = {}
    for verb in first_hour(bug):
        done = subprocess.run(
            [*DLQ, *verb, "--home", str(home)],
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            check=False,
        )
        is_in_vain = verb == ["redrive", "--group", bug]
        assert (done.returncode, bool(done.stdout)) == (is_in_vain, True), (verb, done.stderr)
        said[" ".join(verb[:2])] = done.stdout + done.stderr
    assert "was aborted because a group was stopped" in said["redrive --group"]
    assert re.search(r"^Redrove 1 of \d+ ", said["redrive --group"])
    assert "failures are discarded now: 'test traffic'" in said["discard --group"]
    assert "aborted" in said["audit"]
    assert "<h1>Dead letters</h1>" in (home / "report.html").read_text()


def repeated_bug(home: Path) -> str | None:
    """The group of a bug with two open failures: a redrive tries one, and leaves the other."""
    for group in dlq(home, "groups")["groups"]:
        if group["error_class"] in BUGS and group["open_count"] > 1:
            return str(group["group_id"])
    return None


def first_hour(group: str) -> list[list[str]]:
    """The commands of README's first hour that read this group and decide about it, in its order.

    Without those for another lake or NATS, and those that repair, alert and verify, which have
    their own tests.
    """
    part = (ROOT / "README.md").read_text().partition("## The first hour")[2].partition("\n## ")[0]
    named = re.sub("GROUP_OR_ID|(?<=--group )GROUP", group, part)
    lines = [line for line in named.splitlines() if line.startswith("dlq ")]
    verbs = [shlex.split(line, comments=True)[1:] for line in lines]
    elsewhere = {"--lake-uri", "--to-context"}
    played = [v for v in verbs if v[0] in FIRST_HOUR and elsewhere.isdisjoint(v)]
    assert [v[0] for v in played] == FIRST_HOUR
    return played


BUGS = ("ZeroDivisionError", "ValidationError", "UniqueViolation")
FIRST_HOUR = [
    *("status", "groups", "show", "sql", "report"),
    *("redrive", "redrive", "policy", "discard", "audit", "erase"),
]


def artifacts(prefect_ui: str, home: Path) -> int:
    """How often the page dead-letters was written."""
    login = base64.b64encode(f"dlq:{(home / 'prefect.password').read_text().strip()}".encode())
    request = urllib.request.Request(
        f"{prefect_ui}/api/artifacts/filter",
        data=json.dumps({"artifacts": {"key": {"any_": ["dead-letters"]}}}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Basic {login.decode()}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return len(json.load(answer))


def pid_of(folder: Path) -> int:
    """The process id of the server with data in a folder, not of its guard."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"nats-server" in words[0] and any(str(folder).encode() in word for word in words):
            return int(entry.parent.name)
    raise AssertionError(f"nothing runs in {folder}")
