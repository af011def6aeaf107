"""Runs one server, and ends it on request or when the program that started it has ended.

A separate process, started as `python -I -S guard.py JSON` by `process.GuardedProcess`; it
imports nothing of the project. The kernel closes its standard input however the owner ends, even by
SIGKILL, and the guard then stops the server. Unlike a parent-death signal set from the owner this
does not depend on the thread that started the server, works on macOS, and stops servers in an
orderly way. On Linux the guard also becomes the parent of processes that the server leaves
(PostgreSQL's backends after a SIGKILL of the postmaster), and the kernel kills the server if the
guard itself is killed.

Orders on standard input: `s` or end of file: stop; `k`: SIGKILL. On standard output: one line,
the server's pid, or `!` and the reason why it did not start. Exit status: the server's.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIFELINE, LOG = 0, 2  # file descriptors
WATCH_SECONDS = 0.5  # interval of checks whether the owner is still our parent
CLEANUP_SECONDS = 10.0  # for processes that the server left behind
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def linux_prctl() -> Callable[[int, int], object]:
    """The C function prctl, or one that does nothing on other systems."""
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            prctl = ctypes.CDLL(None).prctl
            return lambda option, value: prctl(option, value, 0, 0, 0)
    return lambda *_: None


def start(spec: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """Start the server in a session of its own, so that a terminal's Ctrl-C does not reach it."""
    prctl = linux_prctl()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()

    def die_with_the_guard() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # it died before the line above
            os._exit(1)

    account = (
        {}
        if spec["user"] is None
        else {"user": spec["user"], "group": spec["group"], "extra_groups": ()}
    )
    # preexec_fn is safe here, because this process has one thread; it runs after the change of
    # user, which would have cleared the parent-death signal.
    return subprocess.Popen(
        spec["command"],
        stdin=subprocess.DEVNULL,
        stdout=LOG,
        stderr=LOG,
        start_new_session=True,
        preexec_fn=die_with_the_guard,
        **account,
    )


def reap(server: int) -> int | None:
    """Collect ended children; the server's exit code if it is among them."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == server:
                code = os.waitstatus_to_exitcode(ended[1])
    return code


def end_what_is_left(server: int) -> None:
    """Kill the server's process group and, on Linux, every process that it left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server, signal.SIGKILL)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    deadline = time.monotonic() + CLEANUP_SECONDS
    with contextlib.suppress(FileNotFoundError):
        while (left := children.read_text().split()) and time.monotonic() < deadline:
            for pid in left:
                os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.005)
            reap(server)


def watch(server: int, spec: dict[str, Any], wake: int) -> int:
    """Wait for the server's end and pass on orders; returns its exit code."""
    kill_at: float | None = None  # set once a stop was ordered
    while (code := reap(server)) is None:
        watched = [wake] if kill_at else [wake, LIFELINE]
        ready, _, _ = select.select(watched, [], [], WATCH_SECONDS)
        orphaned = os.getppid() != spec["owner"]
        order = os.read(LIFELINE, 1) if LIFELINE in ready else None
        terminated = wake in ready and signal.SIGTERM in os.read(wake, 64)
        if order == b"k" or (kill_at and time.monotonic() > kill_at):
            os.kill(server, signal.SIGKILL)
        elif not kill_at and (order is not None or orphaned or terminated):
            os.kill(server, spec["stop_signal"])
            kill_at = time.monotonic() + spec["grace_seconds"]
    return code


def main() -> int:
    spec = json.loads(sys.argv[1])
    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    # Handlers, since an ignored signal would stay ignored in the server.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        server = start(spec)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"!{error}", flush=True)
        return 1
    with contextlib.suppress(BrokenPipeError):
        print(server.pid, flush=True)
    code = watch(server.pid, spec, wake)
    server.returncode = code
    end_what_is_left(server.pid)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
