"""A handler in a separate process: called with one event after the other, and ended if it hangs.

If the process ends, crashes or blocks, that is the outcome of the event, and the next one gets a
new process.
"""

import os
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self

from sahool_dlq.errors import TrialError
from sahool_dlq.events.cause import late_handler
from sahool_dlq.events.trial import HANG_GRACE_SECONDS, receive, send

__all__ = ["Called", "Worker"]

_START_SECONDS = 60.0  # for the handler's module to be loaded
_KILL_GRACE_SECONDS = 1.0
_DEATH_SECONDS = 5.0  # between the end of its answers and its exit
_OURS = ("DLQ_", "NATS_")  # variables that hold logins of the platform
_STDERR = 2  # separates the handler's output from that of `dlq`
_HUNG_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.M)


class Called(NamedTuple):
    """The handler's result for an event."""

    result: str  # success | raised | retry | dead_letter | died
    seconds: float
    error_type: str = ""
    error_message: str = ""
    stack_trace: str | None = None
    is_late: bool = False  # its time was over


class Worker:
    """Calls the handler `module:name` of the code in `folder`.

    `python` is the interpreter of the service's environment, which must have sahool-dlq. Without
    `seconds` a call has no time limit; `is_debugged` opens pdb at an exception.
    """

    def __init__(
        self,
        handler: str,
        folder: Path,
        *,
        seconds: float | None,
        python: str = sys.executable,
        is_debugged: bool = False,
    ) -> None:
        self.name = ""  # of the function, once it was loaded
        self._target = handler
        self._folder = folder.absolute()
        self._seconds = None if is_debugged else seconds
        # A path is one from here, whatever folder the handler runs in.
        self._python = str(Path(python).absolute()) if os.sep in python else python
        self._is_debugged = is_debugged
        self._process: subprocess.Popen[bytes] | None = None
        self._inbox: Connection | None = None
        self._outbox: Connection | None = None
        self._trace_folder = tempfile.TemporaryDirectory(prefix="dlq-try-")

    def __enter__(self) -> Self:
        """Load the handler; raises TrialError if that fails."""
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._trace_folder.cleanup()

    def call(self, message: dict[str, Any]) -> Called:
        """One event, in the form of `as_message` of `events.trial`."""
        if self._process is None or self._process.poll() is not None:  # since its last event
            self._stop()
            self._start()
        assert self._inbox is not None
        assert self._outbox is not None
        try:
            send(self._outbox, message)
            patience = self._seconds and self._seconds + HANG_GRACE_SECONDS + _KILL_GRACE_SECONDS
            if self._inbox.poll(patience):
                return Called(**receive(self._inbox))
        except (EOFError, OSError):
            return self._died()
        self._stop()
        said = late_handler(self._seconds or 0)
        trace = f"{self._hung_trace()}TimeoutError: {said}\n"
        return Called("raised", self._seconds or 0, "TimeoutError", said, trace, is_late=True)

    def _start(self) -> None:
        ours, theirs = os.pipe(), os.pipe()  # what it reads, what it writes
        try:
            self._process = subprocess.Popen(
                [self._python, "-m", "sahool_dlq.events.trial", str(ours[0]), str(theirs[1])],
                cwd=self._folder,
                env=_environment(),
                pass_fds=(ours[0], theirs[1]),
                stdin=None if self._is_debugged else subprocess.DEVNULL,
                stdout=None if self._is_debugged else _STDERR,
            )
        except OSError as error:
            raise TrialError(f"{self._python} cannot be run: {error.strerror}.") from error
        finally:
            os.close(ours[0])
            os.close(theirs[1])
            self._outbox = Connection(ours[1], readable=False)
            self._inbox = Connection(theirs[0], writable=False)
        wanted = {
            "handler": self._target,
            "folder": str(self._folder),
            "seconds": self._seconds,
            "is_debugged": self._is_debugged,
            "trace_file": str(self._trace_file),
        }
        answer: dict[str, Any] = {}
        with suppress(EOFError, OSError):
            send(self._outbox, wanted)
            if self._inbox.poll(_START_SECONDS):
                answer = receive(self._inbox)
        if "handler" not in answer:
            self._stop()
            said = answer.get("error") or (
                f"{self._python} did not start; it needs sahool-dlq in its environment"
            )
            raise TrialError(
                f"The handler {self._target} cannot be loaded in {self._folder}: {said}. Write"
                " module:function, and name the service's own Python with --python."
            )
        self.name = answer["handler"]

    @property
    def _trace_file(self) -> Path:
        return Path(self._trace_folder.name) / "hung"

    def _hung_trace(self) -> str:
        """Where it hung, as a traceback that the process wrote itself."""
        said = self._trace_file.read_text() if self._trace_file.exists() else ""
        main = said.rpartition("Thread ")[2] or said  # of several threads the main one is the last
        frames = _HUNG_FRAME.findall(main)[::-1]
        inside = [f for f in frames if not re.search(r"events[/\\]trial\.py$|lib/python3", f[0])]
        lines = [f'  File "{file}", line {line}, in {name}\n' for file, line, name in inside]
        return "".join(["Traceback (most recent call last):\n", *lines])

    def _died(self) -> Called:
        """It ended: by a signal, by `os._exit`, or because memory ran out."""
        process = self._process
        assert process is not None
        try:
            status = process.wait(_DEATH_SECONDS)
        except subprocess.TimeoutExpired:  # it has only closed its answer pipe
            process.kill()
            status = process.wait()
        self._stop()
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return Called("died", 0, "ProcessDied", f"The handler ended its process: {how}.")

    def _stop(self) -> None:
        process, self._process = self._process, None
        for connection in (self._inbox, self._outbox):
            if connection is not None and not connection.closed:
                connection.close()
        if process is not None:
            try:
                process.wait(timeout=0.5)  # it ends where nobody sends any more
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment() -> dict[str, str]:
    """The environment of a handler's process: without the platform's logins."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
