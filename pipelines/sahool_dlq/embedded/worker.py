"""A Prefect worker, and the deployments of prefect.yaml it runs, as programs of their own."""

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
MOST_RUNS = 6  # two more than the queues for analyses and redrives may take together


def deployments_folder() -> Path:
    """Where prefect.yaml and flows/ are: a wheel has them in the package, a checkout at its top."""
    packaged = _PACKAGE / "_deploy"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1]


def deploy(environment: Mapping[str, str], *options: str) -> None:
    """`dlq deploy` with these options, to the server that `environment` names.

    Raises DLQError with its own words where that fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "sahool_dlq.cli", "deploy", "--pool", POOL, *options],
        env=dict(environment),
        cwd=deployments_folder(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise DLQError(" ".join(words[-5:]).removeprefix("dlq: "))


def start_worker(home: Path, environment: Mapping[str, str]) -> GuardedProcess:
    """A worker of the pool; its log is `home`/worker.log."""
    limit = ["--limit", str(MOST_RUNS)]
    return GuardedProcess(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, *limit],
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
