"""A server process that cannot outlive the program that started it, and the users it can run as."""

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GUARD = Path(__file__).with_name("guard.py")
GUARD_MARGIN_SECONDS = 15.0  # what the guard may need beyond the server's own time to stop


@dataclass(frozen=True, slots=True)
class Account:
    """A system user to run a server as; only root can choose one."""

    uid: int
    gid: int

    @classmethod
    def nobody(cls) -> "Account":
        """The user without rights; KeyError on a system that has none."""
        entry = pwd.getpwnam("nobody")
        return cls(entry.pw_uid, entry.pw_gid)

    def can(self, *command: str | Path) -> bool:
        """Whether a short command of this user succeeds."""
        try:
            done = subprocess.run(
                command,
                user=self.uid,
                group=self.gid,
                extra_groups=(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=30,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0

    def can_write(self, folder: Path) -> bool:
        """Whether this user can enter the folder and write in it."""
        return self.can("/bin/sh", "-c", 'cd "$1" && test -w .', "sh", folder)


class GuardedProcess:
    """One server with its guard (see `guard.py`). Raises OSError if it cannot be executed."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,  # standard output and error are appended to it
        env: Mapping[str, str],
        cwd: Path,
        stop_signal: signal.Signals,
        grace_seconds: float,  # between the stop signal and SIGKILL
        account: Account | None = None,
        keep_open: Sequence[int] = (),  # descriptors that stay open as long as the server runs
    ) -> None:
        spec = {
            "command": [str(part) for part in command],
            "owner": os.getpid(),
            "stop_signal": int(stop_signal),
            "grace_seconds": grace_seconds,
            "user": account.uid if account else None,
            "group": account.gid if account else None,
        }
        self._limit_seconds = grace_seconds + GUARD_MARGIN_SECONDS
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
                pass_fds=tuple(keep_open),
            )
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._orders, self._answers = self._guard.stdin, self._guard.stdout
        try:
            answer = self._answers.readline().decode().strip()
            if not answer.isdigit():
                raise OSError(answer.removeprefix("!") or "its guard did not start")
            self.pid = int(answer)
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        return self._guard.poll() is None

    def stop(self) -> None:
        """End the server in an orderly way, by force if that takes too long."""
        self._order(b"s")

    def kill(self) -> None:
        """SIGKILL, and wait until the server and its children are gone."""
        self._order(b"k")

    def _order(self, order: bytes) -> None:
        # A broken pipe means that the guard, and so the server, is gone already.
        with contextlib.suppress(BrokenPipeError, ValueError):
            os.write(self._orders.fileno(), order)
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()
        try:
            self._guard.wait(self._limit_seconds)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        self._answers.close()
