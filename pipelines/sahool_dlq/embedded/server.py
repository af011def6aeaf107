"""The common part of embedded servers: a home folder with one owner, a fixed port, a log."""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from sahool_dlq.embedded.private import make_private, remembered_password
from sahool_dlq.embedded.process import Account, GuardedProcess
from sahool_dlq.errors import ServerUnavailableError

HOST = "127.0.0.1"
USER = "dlq"
# Below the range from which systems take the ports of outgoing connections: a client that keeps
# reconnecting to a killed server's port in that range can end up connected to itself.
PORTS = range(20_000, 32_000)
POLL_SECONDS = 0.02
LOG_LIMIT_BYTES = 20_000_000  # a longer log is set aside at the next start
TAIL_LINES = 12


class EmbeddedServer(ABC):
    """A server on loopback whose data are in `home` and survive a restart.

    It requires a login, because every user of the machine can reach a port: the password is created
    at the first start and stored in `home`, which nobody else may read. `has_login=False` is for
    tests.

    Use it in a `with` statement, or call `start` and `stop`. The server ends with this process,
    however that ends. Every failure is a `ServerUnavailableError` with the end of the log.
    """

    title: ClassVar[str]  # for people
    folder: ClassVar[str]  # name of the data folder, log, lock and port files in home
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    grace_seconds: ClassVar[float] = 10.0  # to stop in an orderly way
    ready_seconds: ClassVar[float] = 30.0  # to become ready

    def __init__(self, home: Path, port: int | None = None, *, has_login: bool = True) -> None:
        self.home = Path(home).absolute()
        self._has_login = has_login
        self.data = self.home / self.folder  # where the data really are, once started
        self._port = port
        self._lock: int | None = None
        self._process: GuardedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The given, remembered or chosen port; known after the start."""
        if self._port is None:
            raise ServerUnavailableError(f"{self.title} has no port yet: start it first")
        return self._port

    @property
    def pid(self) -> int:
        """The server's own process id."""
        if self._process is None or not self._process.is_running:
            raise ServerUnavailableError(f"{self.title} is not running: start it first")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.is_running

    @property
    def password_file(self) -> Path:
        """The file of the password."""
        return self.home / f"{self.folder}.password"

    @property
    def _login(self) -> str:
        """`user:password@`; empty if the server requires no login."""
        return f"{USER}:{remembered_password(self.password_file)}@" if self._has_login else ""

    @property
    def log(self) -> Path:
        return self.home / f"{self.folder}.log"

    def start(self) -> None:
        """Start and wait until it is ready: the same port and data as before, if there were any."""
        if self.is_running:
            return
        if self._process is not None:
            self._process.stop()  # it crashed: close its pipes
        try:
            if self._has_login:
                make_private(self.home, self.home / f"{self.folder}.lock")
            self.home.mkdir(parents=True, exist_ok=True)
            if self._lock is None:
                self._lock = lock_home(self.home / f"{self.folder}.lock", self.title)
            self._port = self._choose_port()
            self._prepare()
            self._launch(self._lock)
        except OSError as error:
            self.stop()
            raise ServerUnavailableError(
                f"{self.title} cannot start in {self.home}, check the folder and its owner: {error}"
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop in an orderly way; harmless if it does not run."""
        process, self._process = self._process, None
        try:
            if process is not None:
                process.stop()
        finally:
            lock, self._lock = self._lock, None
            if lock is not None:
                os.close(lock)

    def kill(self) -> None:
        """SIGKILL, like a crash; `start` then continues from the data on disk."""
        if self._process is not None:
            self._process.kill()

    def remove(self) -> None:
        """Stop and delete the data, which may be outside of `home`."""
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    @abstractmethod
    def _command(self) -> Sequence[str | Path]:
        """The server's command line, in the foreground."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether exactly this server (not another one on its port) accepts work."""

    def _prepare(self) -> None:
        """Whatever must exist before the server starts."""
        self.data.mkdir(exist_ok=True)

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def _account(self) -> Account | None:
        """The user to run as, if not the present one."""
        return None

    def _choose_port(self) -> int:
        if self._port is not None:
            require_free(self._port, self.title)
            return self._port
        memory = self.home / f"{self.folder}.port"
        with contextlib.suppress(OSError, ValueError, ServerUnavailableError):
            remembered = int(memory.read_text())
            require_free(remembered, self.title)
            return remembered
        chosen = free_port(self.title)
        memory.write_text(f"{chosen}\n")
        return chosen

    def _launch(self, lock: int) -> None:
        """Start the process and wait until it is ready."""
        log = self.log
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.old"))
        begin = log.stat().st_size if log.exists() else 0
        deadline = time.monotonic() + self.ready_seconds
        process = self._process = GuardedProcess(
            self._command(),
            log=log,
            env=self._environment(),
            cwd=self.data,
            stop_signal=self.stop_signal,
            grace_seconds=self.grace_seconds,
            account=self._account(),
            keep_open=[lock],  # the home stays locked until the server is really gone
        )
        while not self._is_ready():
            if not process.is_running:
                what = "stopped while starting"
            elif time.monotonic() > deadline:
                what = f"was not ready after {self.ready_seconds:.0f} seconds"
            else:
                time.sleep(POLL_SECONDS)
                continue
            raise ServerUnavailableError(
                f"{self.title} {what}: correct what the end of its log {log} says\n"
                f"{tail(log, begin)}"
            )


def lock_home(path: Path, title: str) -> int:
    """Lock a home for one server; returns the descriptor whose closing unlocks it.

    The guard has a copy, so after the owner is killed, the lock lasts as long as its server: that
    is waited for. A living owner is an error at once.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = os.pread(lock, 20, 0).decode().strip()
                if is_alive(owner) or time.monotonic() > deadline:
                    raise ServerUnavailableError(
                        f"{title} already runs in {path.parent}, started by process "
                        f"{owner or 'unknown'}: stop that one or choose another folder"
                    ) from None
                time.sleep(POLL_SECONDS)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(lock)
        raise
    return lock


def is_alive(pid: str) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def require_free(port: int, title: str) -> None:
    """Raise unless a server can listen on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ServerUnavailableError(
                f"{title} cannot listen on {HOST}:{port}, stop what uses that port or choose "
                f"another one: {error.strerror}"
            ) from error


def free_port(title: str) -> int:
    """A port on which nothing listens."""
    for port in random.sample(PORTS, 50):
        with contextlib.suppress(ServerUnavailableError):
            require_free(port, title)
            return port
    raise ServerUnavailableError(f"{title} found no free port: give one")


def tail(log: Path, begin: int) -> str:
    """The last lines written to a log after an offset."""
    with log.open("rb") as text:
        text.seek(begin)
        lines = text.read().decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-TAIL_LINES:])
