"""Debian's chromium, for tests and screenshots of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 120_000  # for a page on a machine that has other things to do


@contextmanager
def chromium() -> Iterator[Browser]:
    """A separate browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic"],
            timeout=PATIENCE_MS,
        )
        try:
            yield browser
        finally:
            browser.close()
