"""A Prefect worker, and the deployments of prefect.yaml it runs, as programs of Prefect's own."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines.embedded.process import GuardedProcess
from pipelines.errors import DLQError

CHECKOUT = Path(__file__).parent.parent.parent
"""The folder that holds flows/, below which the deployments run: the checkout, or site-packages."""

POOL = "local"


def deployments_file() -> Path:
    """prefect.yaml: a wheel has it inside the package, a checkout at its top."""
    packaged = CHECKOUT / "pipelines" / "_prefect.yaml"
    return packaged if packaged.is_file() else CHECKOUT / "prefect.yaml"


def deploy(environment: Mapping[str, str]) -> None:
    """Send every deployment of prefect.yaml to the server that `environment` names.

    Raises DLQError with Prefect's own words where that fails.
    """
    # PWD is what prefect.yaml makes the runs' working folder.
    environment = {**environment, "PWD": str(CHECKOUT)}
    if _prefect(["work-pool", "inspect", POOL], environment).returncode:
        _check(_prefect(["work-pool", "create", POOL, "--type", "process"], environment))
    chosen = ["--prefect-file", str(deployments_file())]
    _check(_prefect(["--no-prompt", "deploy", "--all", *chosen], environment))


@contextmanager
def worker(home: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """A worker of the pool; its log is `home`/worker.log."""
    process = GuardedProcess(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "3"],
        log=home / "worker.log",
        env=environment,
        cwd=CHECKOUT,
        stop_signal=signal.SIGINT,
        grace_seconds=20,
    )
    try:
        yield
    finally:
        process.stop()


def _prefect(
    arguments: list[str], environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        env=dict(environment),
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


def _check(done: "subprocess.CompletedProcess[str]") -> None:
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise DLQError(f"Prefect refused: {' '.join(words[-5:])}")
