"""Prefect's own pages in a real browser: what a person sees of the deployments."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.embedded import PrefectServer
from pipelines.settings import Settings

pytestmark = pytest.mark.xdist_group("prefect")

CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium, which .ci/run installs")
def test_the_deployments_page_lists_what_can_be_run(
    prefect_platform: tuple[Settings, PrefectServer, dict[str, str]], tmp_path: Path
) -> None:
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            f"{prefect_platform[1].ui_url}/deployments",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    for shown in ("drain-dlq", "build-marts", "redrive-transient", "Every 2 minutes"):
        assert shown in done.stdout
