"""The servers for tests, in the versions that the environment asks for.

`DLQ_TEST_NATS_BIN` and `DLQ_TEST_POSTGRES_BIN` name bin folders to use instead of the wheels';
`DLQ_TEST_NATS_CONFIG` is added to the configuration of every NATS.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.embedded.nats import nats_server_binary
from support import ROOT

SHIPPED = ROOT / "deploy/nats.conf"
NEW_ACKS = "feature_flags: { js_ack_fc_v2: true }"  # nats-server 2.14 and newer


def _bin_dir(name: str) -> Path | None:
    named = os.environ.get(name)
    return Path(named).absolute() if named else None


NATS_BIN = _bin_dir("DLQ_TEST_NATS_BIN")
NATS_CONFIG = os.environ.get("DLQ_TEST_NATS_CONFIG", "")
POSTGRES_BIN = _bin_dir("DLQ_TEST_POSTGRES_BIN")


def needs_nats(major: int, minor: int, why: str) -> pytest.MarkDecorator:
    """Skips a test on older servers."""
    said = subprocess.check_output([nats_server_binary(NATS_BIN), "--version"], text=True)
    found = tuple(map(int, re.findall(r"\d+", said)[:2]))
    reason = f"nats-server {major}.{minor} or newer, and this is {found[0]}.{found[1]}: {why}"
    return pytest.mark.skipif(found < (major, minor), reason=reason)


def nats(home: Path, config: str = "", **options: Any) -> NatsServer:
    """A NATS for tests, without logins."""
    config = f"{config}\n{NATS_CONFIG}"
    return NatsServer(home, config=config, bin_dir=NATS_BIN, has_login=False, **options)


def postgres(home: Path, **options: Any) -> PostgresServer:
    """A PostgreSQL for tests: not durable, and without passwords."""
    defaults = {"durable": False, "bin_dir": POSTGRES_BIN, "has_login": False}
    return PostgresServer(home, **defaults | options)


def pause(pid: int) -> None:
    """Stop a process, and wait until all its threads are stopped; SIGCONT continues it.

    The signal alone returns earlier: on a busy machine the server still answers for a while.
    """
    os.kill(pid, signal.SIGSTOP)
    while any(_thread_state(each) not in "TX" for each in Path(f"/proc/{pid}/task").iterdir()):
        time.sleep(0.001)


def _thread_state(thread: Path) -> str:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"  # it ended


def shipped_users() -> str:
    """deploy/nats.conf from `max_payload` on; the password of each user is `secret`."""
    text = SHIPPED.read_text()
    return re.sub(r"\$NATS_[A-Z]+_PASSWORD", "secret", text[text.index("max_payload:") :])
