"""Steps of a person on Prefect's pages, for tests and screenshots, with Debian's chromium."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, expect

from support.chromium import CHROMIUM, PATIENCE_MS, chromium

__all__ = ["CHROMIUM", "answer", "approve", "browser_page", "open_approval", "open_form"]

expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def browser_page() -> Iterator[Page]:
    """One page in a separate browser."""
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE_MS)
        yield context.new_page()


def open_group(page: Page, ui_url: str, artifact_id: str, what: str) -> Page:
    """Open the page of a group from the page "dead-letters", in a new tab."""
    page.goto(f"{ui_url}/artifacts/artifact/{artifact_id}")
    row = page.get_by_role("row").filter(has_text=what)
    with page.context.expect_page() as opened:
        row.get_by_role("link", name="page").first.click()
    opened.value.get_by_role("link", name="All groups").wait_for()
    return opened.value


def open_form(page: Page, name: str = "Redrive") -> Page:
    """Open the form behind this link on the page of a group, in a new tab."""
    with page.context.expect_page() as opened:
        page.get_by_role("link", name=name, exact=True).click()
    opened.value.get_by_role("button", name="Submit").wait_for()
    return opened.value


def answer(page: Page, label: str, text: str) -> None:
    """Fill in one field of a form."""
    field = page.locator(".schema-form-property").filter(
        has=page.locator(f".schema-form-property__label:text-matches('^{label}\\\\b')")
    )
    field.last.locator("textarea").fill(text)


def open_approval(page: Page, ui_url: str, run_id: str) -> None:
    """The form of a suspended run, with its plan."""
    page.goto(f"{ui_url}/runs/flow-run/{run_id}")
    page.get_by_role("button", name="Resume").first.click()
    page.get_by_text("Decided By").wait_for()


def approve(page: Page, by: str) -> None:
    """Approve the plan of the form that is open."""
    page.locator(".p-modal [role=switch]").click()
    answer(page, "Decided By", by)
    page.locator(".p-modal").get_by_role("button", name="Submit").click()
    page.get_by_text("Decided By").wait_for(state="hidden")
