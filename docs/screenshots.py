"""The pictures of docs/report.md, of a simulated month: `make screenshots`.

Needs Debian's chromium (or DLQ_CHROMIUM). The same seed gives the same pictures.
"""

import os
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from sahool_dlq.jobs.report import make_report
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario

UNTIL = datetime(2026, 3, 4, 15, 20, tzinfo=UTC)
IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Simulate, write the report, photograph it."""
    chromium = os.environ.get("DLQ_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        sys.exit("make screenshots needs chromium: install Debian's package of that name.")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        settings = Settings(home=Path(folder), lake_uri=f"{folder}/lake")
        into_lake(settings, Scenario(UNTIL, days=29, hourly=40, seed=1))
        page = Path(folder) / "report.html"
        make_report(settings, UNTIL).write_page(page)
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        photograph(browser, page, "report", width=1400, height=1000)
        photograph(browser, page, "report-resolution", width=1400, section="Time to resolution")
        photograph(
            browser, page, "report-dark", width=1400, section="Hours of the week", is_dark=True
        )
        photograph(browser, page, "report-phone", width=390, height=1180)
        browser.close()


def photograph(
    browser: Browser,
    page: Path,
    name: str,
    *,
    width: int,
    height: int = 900,
    section: str = "",
    is_dark: bool = False,
) -> None:
    """The top of the page, or one section of it."""
    scheme = "dark" if is_dark else "light"
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    tab.goto(page.as_uri())
    target = (
        tab.locator("section", has=tab.get_by_role("heading", name=section)) if section else tab
    )
    file = IMAGES / f"{name}.png"
    target.screenshot(path=file)
    print(f"{file.relative_to(Path.cwd())}: {file.stat().st_size // 1000} kB")
    tab.close()


if __name__ == "__main__":
    main()
