"""`make screenshots`: pictures of Prefect's pages for README and docs/operations.md.

From real servers with a simulated history, drained and built by the scheduled flows; they go to
docs/images.
"""

import asyncio
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from browser import (
    CHROMIUM,
    answer,
    approve,
    browser_page,
    open_approval,
    open_form,
    open_group,
)
from playwright.sync_api import Page
from prefect_api import Platform, started, until

from sahool_dlq.embedded.worker import worker
from sahool_dlq.settings import Settings
from support import ROOT
from support.redriving import Service

IMAGES = ROOT / "docs" / "images"
CURED, BROKEN = ("yield", "notification"), ("weather",)
SELECTED = f"service IN {(*CURED, *BROKEN)} AND error_type <> 'ConnectionRefusedError'"
NOT_NEEDED = ("alert", "watch-runs", "redrive-transient")
SIMULATED = ["--days", "8", "--rate", "20", "--seed", "1", "--stream"]


def main() -> int:
    """Take all pictures."""
    if CHROMIUM is None:
        print("No chromium on the PATH: install Debian's package.", file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="dlq-screenshots-") as folder,
        started(Path(folder), DLQ_REDRIVE_APPROVAL_COUNT="10") as (platform, _),
        services(platform.settings),
        worker(platform.settings.home, platform.environment),
        browser_page() as page,
    ):
        simulate = [sys.executable, "-m", "sahool_dlq.cli", "simulate", *SIMULATED]
        subprocess.run(simulate, env=platform.environment, check=True, capture_output=True)
        platform.pause(*NOT_NEEDED)
        drained = _drained(platform)
        built = until(lambda: platform.runs("build-marts") or None, "marts after the drain")[-1]
        platform.ended(built["id"])
        take(page, platform, drained, built["id"])
    print("\n".join(sorted(str(file.relative_to(Path.cwd())) for file in IMAGES.glob("prefect-*"))))
    return 0


def _drained(platform: Platform) -> str:
    """The run that drained the history."""
    platform.ran("drain-dlq")

    def look() -> str | None:
        for run in platform.runs("drain-dlq"):
            if run["name"].startswith("drain-dlq: ") and "drain-dlq: 0 " not in run["name"]:
                return str(run["id"])
        return None

    found: str = until(look, "the drain")
    return found


def take(page: Page, platform: Platform, drained: str, built: str) -> None:
    """Take the pictures in the order in which a person opens the pages."""
    ui = platform.server.ui_url
    page.goto(f"{ui}/runs/flow-run/{drained}")
    page.get_by_text("3 Task runs").wait_for()
    shoot(page, "drain")
    artifact = platform.artifacts(built)["dead-letters"]
    group = open_group(page, ui, artifact["id"], "KeyError")
    shoot(page, "dead-letters")
    shoot(group, "group")
    form = open_form(group)
    answer(form, "reason", "the sensor sends its index again since 2.4.1")
    answer(form, "your_name", "ann")
    shoot(form, "form")
    run = platform.start(
        "redrive",
        reason="yield 2.4.1 and the weather mirror are out",
        your_name="ann",
        conditions={"where": SELECTED},
        delivery={"own_copy": True},
    )
    platform.in_state(run, "PAUSED")
    page.goto(f"{ui}/artifacts/artifact/{platform.artifacts(run)['redrive-plan']['id']}")
    page.get_by_text("KeyError").first.wait_for()
    shoot(page, "plan")
    open_approval(form, ui, run)
    shoot(form, "approval")
    approve(form, "bob")
    platform.ended(run)
    platform.tasks(run)
    form.reload()
    form.get_by_text("Task runs").first.wait_for()
    shoot(form, "redrive")
    platform.pause(*NOT_NEEDED, is_paused=False)
    page.goto(f"{ui}/deployments")
    page.get_by_text("redrive-transient").first.wait_for()
    shoot(page, "deployments")


@contextmanager
def services(settings: Settings) -> Iterator[None]:
    """Services that are cured, and services that fail until the end."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            for name in CURED:
                await stack.enter_async_context(Service(settings, name=name).running())
            for name in BROKEN:
                error = AttributeError("NoneType object has no attribute humidity")
                await stack.enter_async_context(Service(settings, error, name=name).running())
            ready.set()
            await asyncio.to_thread(over.wait)

    ready, over = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as other:  # playwright has a loop in this one
        done = other.submit(lambda: asyncio.run(run()))
        try:
            until(lambda: ready.is_set() or done.done() or None, "the services")
            yield
        finally:
            over.set()
        done.result()


def shoot(page: Page, name: str) -> None:
    """Take one picture, after its fonts and drawings are loaded."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / f"prefect-{name}.png")


if __name__ == "__main__":
    sys.exit(main())
