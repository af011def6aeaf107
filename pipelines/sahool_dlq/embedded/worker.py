"""A Prefect worker, and the deployments of prefect.yaml that it runs, as separate programs."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sahool_dlq.embedded.process import GuardedProcess
from sahool_dlq.errors import DLQError

_PACKAGE = Path(__file__).parents[1]

POOL = "local"
WORKER_LOG = "worker.log"


def deployments_folder() -> Path:
    """The folder of prefect.yaml and flows/: in a wheel's package, or at the top of a checkout."""
    packaged = _PACKAGE / "_deploy"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1]


def run_there(module: str, *arguments: str, environment: Mapping[str, str]) -> str | None:
    """Run `python -m module` in that folder; returns its last output if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=dict(environment),
        cwd=deployments_folder(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if not done.returncode:
        return None
    return " ".join((done.stderr or done.stdout).strip().splitlines()[-5:]) or "it said nothing"


def deploy(environment: Mapping[str, str], *options: str) -> None:
    """`dlq deploy` with these options, to the server in `environment`.

    Raises DLQError with its output if that fails.
    """
    arguments = ("deploy", "--pool", POOL, *options)
    if words := run_there("sahool_dlq.cli", *arguments, environment=environment):
        raise DLQError(words.removeprefix("dlq: "))


def start_worker(home: Path, environment: Mapping[str, str]) -> GuardedProcess:
    """A worker of the pool; its log is `home`/worker.log.

    The queues and deployments have limits, the worker has none: with one, Prefect 3.8.8's worker
    ends if a run is resumed before its process has ended.
    """
    return GuardedProcess(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL],
        log=home / WORKER_LOG,
        env=environment,
        cwd=deployments_folder(),
        stop_signal=signal.SIGINT,
        grace_seconds=20,
    )


@contextmanager
def worker(home: Path, environment: Mapping[str, str]) -> Iterator[GuardedProcess]:
    """The same, for as long as the context lasts."""
    process = start_worker(home, environment)
    try:
        yield process
    finally:
        process.stop()
