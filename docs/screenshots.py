"""The screenshots of README and docs that do not need Prefect: `make screenshots`.

The report on a desktop (light and dark), a tablet and a phone; the demo's report; a notebook; `dlq`
on terminals of 80 and 120 columns. They show a simulated month, whose seed gives the same pictures
each time, and one demo. Needs Debian's chromium (or DLQ_CHROMIUM).
"""

import fcntl
import io
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from sahool_dlq.jobs.incidents import find_incident, list_incidents, write_incident_page
from sahool_dlq.jobs.report import make_report
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario

UNTIL = datetime(2026, 3, 4, 15, 20, tzinfo=UTC)
ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
AS_OF = f"--as-of={UNTIL:%Y-%m-%dT%H:%M}"
ATTRIBUTES = (
    "SELECT service, error_class, count(*) AS failures FROM failures"
    " GROUP BY ALL ORDER BY failures DESC LIMIT 8"
)
TERMINALS = {  # file: columns of the terminal, arguments of dlq
    "terminal-groups-80": (80, ["groups", AS_OF, "--limit=5"]),
    "terminal-report-120": (120, ["report", AS_OF]),
    "terminal-sql-120": (120, ["sql", ATTRIBUTES]),
}
MOST_LINES = 30  # of the output of a terminal


def main() -> None:
    """Simulate a history, play the demo, and take the screenshots."""
    chromium = os.environ.get("DLQ_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        sys.exit("make screenshots needs chromium: install Debian's package of that name.")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        settings = Settings(home=Path(folder), lake_uri=f"{folder}/lake")
        into_lake(settings, Scenario(UNTIL, days=29, hourly=40, seed=1))
        reports(browser, settings)
        for name, (columns, arguments) in TERMINALS.items():
            terminal(browser, name, settings, columns, arguments)
        http(browser, settings)
        notebook(browser, settings)
        demo(browser, Path(folder))
        browser.close()


def reports(browser: Browser, settings: Settings) -> None:
    """The month's report on screens of all sizes."""
    page = settings.home / "report.html"
    make_report(settings, UNTIL).write_page(page)
    photograph(browser, page, "report", width=1280, height=800)
    photograph(browser, page, "report-dark", width=1280, height=560, is_dark=True)
    photograph(browser, page, "report-resolution", width=1280, section="Time to resolution")
    photograph(browser, page, "report-tablet", width=820, height=900)
    photograph(browser, page, "report-phone", width=390, height=900)
    incident(browser, settings)


def incident(browser: Browser, settings: Settings) -> None:
    """The page of the month's largest incident."""
    largest = list_incidents(settings, UNTIL).sort("failure_count")["incident_id"][-1]
    page = settings.home / "incident.html"
    write_incident_page(find_incident(settings, largest, UNTIL), UNTIL, page)
    photograph(browser, page, "incident", width=1280, height=720)


def demo(browser: Browser, folder: Path) -> None:
    """The report of one demo, on its own servers."""
    dlq("demo", home=folder, columns=100)
    photograph(browser, folder / "demo/report.html", "report-demo", width=1280, height=596)


def terminal(
    browser: Browser, name: str, settings: Settings, columns: int, arguments: list[str]
) -> None:
    """The output of a verb on a terminal, with its colours."""
    told = dlq(*arguments, f"--lake-uri={settings.lake}", home=settings.home, columns=columns)
    lines = told.replace("\r", "").splitlines()
    shown = [f"$ dlq {' '.join(repr(a) if ' ' in a else a for a in arguments)}", *lines]
    console = Console(record=True, width=columns, file=io.StringIO(), color_system="truecolor")
    for line in shown[:MOST_LINES]:
        console.print(Text.from_ansi(line), soft_wrap=True)
    page = settings.home / f"{name}.html"
    page.write_text(console.export_html(theme=DIMMED_MONOKAI, inline_styles=True))
    tab = browser.new_page(viewport={"width": 1600, "height": 900})
    tab.goto(page.as_uri())
    tab.add_style_tag(content="pre { display: inline-block; font-size: 13px; padding: 12px; }")
    save(tab.locator("pre").screenshot(), name)
    tab.close()


def dlq(*arguments: str, home: Path, columns: int) -> str:
    """The output of the command on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {**os.environ, "DLQ_HOME": str(home), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "sahool_dlq.cli", *arguments]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environment)
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 65536):
            told += part
    except OSError:
        pass  # so a terminal says that nobody writes to it any more
    finally:
        os.close(ours)
    _, said = process.communicate()
    if process.returncode:
        sys.exit(f"dlq {' '.join(arguments)}: {said.decode()}")
    return told.decode()


def http(browser: Browser, settings: Settings) -> None:
    """The page of `dlq serve` that describes its requests."""
    words = ["serve", "--port=0", "--json", f"--home={settings.home}"]
    with subprocess.Popen(
        [sys.executable, "-m", "sahool_dlq.cli", *words], stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        tab = browser.new_page(viewport={"width": 1280, "height": 1000})
        tab.goto(json.loads(serving.stdout.readline())["docs"])
        tab.wait_for_selector(".opblock", timeout=120_000)
        save(tab.screenshot(), "http-docs")
        tab.close()
        serving.terminate()


def notebook(browser: Browser, settings: Settings) -> None:
    """One notebook after it has run."""
    folder, name = os.path.split(settings.lake)  # the notebook says where it looks
    os.environ["DLQ_LAKE_URI"] = name
    book = nbformat.read(ROOT / "notebooks/one_group.ipynb", as_version=4)
    place = {"metadata": {"path": folder}}
    quiet = ["--log-level=ERROR"]  # else the kernel warns that it listens on the loopback
    NotebookClient(book, timeout=600, resources=place, extra_arguments=quiet).execute()
    exporter = HTMLExporter(
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        mathjax_url="",
    )
    page = settings.home / "notebook.html"
    page.write_text(exporter.from_notebook_node(book)[0])
    photograph(browser, page, "notebook", width=1080, height=1000)


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
    tab.goto(page.as_uri(), wait_until="load")
    target = (
        tab.locator("section", has=tab.get_by_role("heading", name=section)) if section else tab
    )
    save(target.screenshot(), name)
    tab.close()


def save(picture: bytes, name: str) -> None:
    """Save it, and print its size."""
    file = IMAGES / f"{name}.png"
    file.write_bytes(picture)
    print(f"{file.relative_to(ROOT)}: {len(picture) // 1000} kB", flush=True)


if __name__ == "__main__":
    main()
