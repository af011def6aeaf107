"""The documentation site is complete, builds without warnings, and loads nothing from a network."""

import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from sahool_dlq.cli import VERBS
from support import ROOT

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 120_000  # for a page on a machine that has other things to do
pytestmark = pytest.mark.xdist_group("site")
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Debian's chromium, which .ci/run installs"
)


def build(config: Path, to: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", config, "-d", to],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site") / "site"
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gone](gone.md)", "'gone.md', but the target is not found"),
        ("[gone](other.md#gone)", "'other.md#gone', but the doc 'other.md' does not contain"),
        ("[gone](#gone)", "'#gone', but there is no such anchor"),
        ("[whole](other.md#there)", ""),
    ],
)
def test_a_link_or_an_anchor_that_leads_nowhere_fails(
    tmp_path: Path, text: str, complaint: str
) -> None:
    """With the settings of the site, on two pages of the test."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# One\n\n{text}\n")
    (tmp_path / "docs/other.md").write_text("# Two\n\n## There\n")
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\n"
        "docs_dir: docs\nhooks: []\nplugins: []\nnav: [index.md, other.md]\ntheme: {name: mkdocs}\n"
    )
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert (done.returncode == 0) == (not complaint), done.stderr
    assert complaint in done.stderr


class Resources(HTMLParser):
    """The resources that a browser would load for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        names = {"src", "srcset", "poster", "data"} | (
            {"href"} if tag in ("link", "use") else set()
        )
        self.found += [given[name] for name in names if given.get(name)]
        self.found += addresses(given.get("style", ""))


def addresses(style: str) -> list[str]:
    """The addresses that a style sheet would load."""
    return re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", style)


def test_no_page_and_no_style_sheet_asks_for_anything_from_elsewhere(site: Path) -> None:
    loaded: dict[Path, set[str]] = {}
    for page in site.rglob("*.html"):
        parser = Resources()
        parser.feed(page.read_text())
        loaded[page] = set(parser.found)
    for sheet in site.rglob("*.css"):
        loaded[sheet] = set(addresses(sheet.read_text()))
    assert len(loaded) > 40
    assert sum(map(len, loaded.values())) > 300
    named = [(page, name) for page, names in loaded.items() for name in names]
    local = [(page, name) for page, name in named if not name.startswith("data:")]
    assert [name for _, name in local if re.match(r"\w+:|//", name)] == []
    missing = {
        name
        for page, name in local
        if page.name != "404.html"  # whose paths are of the root
        and not (page.parent / re.split(r"[?#]", name)[0]).exists()
    }
    assert missing == set()


def test_the_reference_has_every_verb_with_its_options(site: Path) -> None:
    text = "".join(page.read_text() for page in site.glob("commands/*.html"))
    assert [verb for verb in VERBS if f'id="dlq-{verb}"' not in text] == []
    assert "<code>--dry-run</code>" in text
    assert 'id="dlq-alerts-ack"' in text


def test_the_api_has_fields_with_their_comments(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text())
    assert "silence after which the server redelivers" in text  # beside ack_wait_seconds
    assert "that a broken deployment does not move" in text.replace("\n", " ")  # above it
    assert "Pulls events, calls a handler" in text


def test_links_into_the_repository_show_the_files(site: Path) -> None:
    assert "simple_test.py" in (site / "source/examples.html").read_text()
    page = (site / "services.html").read_text()
    assert 'href="source/examples.html"' in page
    assert 'href="source/sql/monitoring.html"' in page


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (signature of http.server)
        """Log nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=options, timeout=PATIENCE_MS
        )
        yield opened
        opened.close()


@in_a_browser
def test_a_browser_loads_nothing_from_elsewhere_and_no_page_scrolls_sideways(
    site: Path, address: str, browser: Browser
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    context.set_default_timeout(PATIENCE_MS)
    asked: set[str] = set()
    wrong: list[str] = []
    wide: list[str] = []
    tab = context.new_page()
    tab.on("request", lambda request: asked.add(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    pages = sorted(str(page.relative_to(site)) for page in site.rglob("*.html"))
    for page in [each for each in pages if each != "404.html"]:
        tab.goto(f"{address}/{page}")
        if tab.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            wide.append(page)
    tab.get_by_role("textbox", name="Search").or_(tab.locator("label[for=__search]")).first.click()
    tab.locator(".md-search__input").fill("dead_letter_limit_share")
    tab.locator(".md-search-result__link").first.wait_for()
    context.close()
    assert f"{address}/search/search_index.json" in asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert wrong == []
    assert wide == []
