"""`make screenshots`: pictures of Prefect's pages for README and docs/operations.md.

From real servers with a simulated history, drained and built by the scheduled flows; they go to
docs/images.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from browser import CHROMIUM, answer, approve, browser_page, open_approval, open_form
from playwright.sync_api import Page
from prefect_api import Platform, started, until

from sahool_dlq.embedded.worker import worker
from support import ROOT

IMAGES = ROOT / "docs" / "images"
SIMULATED = ["--days", "8", "--rate", "20", "--seed", "1", "--stream"]


def main() -> int:
    """Make them all anew."""
    if CHROMIUM is None:
        print("No chromium on the PATH: install Debian's package.", file=sys.stderr)
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="dlq-screenshots-") as folder,
        started(Path(folder), DLQ_REDRIVE_APPROVAL_COUNT="10") as (platform, _),
        worker(platform.settings.home, platform.environment),
        browser_page() as page,
    ):
        simulate = [sys.executable, "-m", "sahool_dlq.cli", "simulate", *SIMULATED]
        subprocess.run(simulate, env=platform.environment, check=True, capture_output=True)
        platform.ran("drain-dlq")
        built = until(lambda: platform.runs("build-marts") or None, "marts after the drain")[-1]
        platform.ended(built["id"])
        take(page, platform, built["id"])
    print("\n".join(sorted(str(file.relative_to(Path.cwd())) for file in IMAGES.glob("prefect-*"))))
    return 0


def take(page: Page, platform: Platform, built: str) -> None:
    """The pages one after the other, as a person comes upon them."""
    ui = platform.server.ui_url
    page.goto(f"{ui}/deployments")
    page.get_by_text("redrive-transient").first.wait_for()
    shoot(page, "deployments")
    artifact = platform.artifacts(built)["dead-letters"]
    group = next(
        line.split(" | ")[0].removeprefix("| ")
        for line in artifact["data"].splitlines()
        if "[form]" in line
    )
    form = open_form(page, ui, artifact["id"], group)
    shoot(page, "dead-letters")
    answer(form, "reason", "the upstream is back, checked by hand")
    answer(form, "requested_by", "ann")
    shoot(form, "form")
    form.get_by_role("button", name="Submit").click()
    run = until(lambda: platform.runs("redrive") or None, "the run of the form")[0]["id"]
    platform.in_state(run, "PAUSED")
    open_approval(form, ui, run)
    shoot(form, "approval")
    approve(form, "bob")
    platform.ended(run)


def shoot(page: Page, name: str) -> None:
    """One picture, once its fonts and drawings are there."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    page.screenshot(path=IMAGES / f"prefect-{name}.png")


if __name__ == "__main__":
    sys.exit(main())
