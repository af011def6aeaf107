"""Prefect's own pages in a real browser: what a person sees and does there."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from browser import CHROMIUM, answer, approve, browser_page, open_approval, open_form
from playwright.sync_api import expect
from prefect_api import Drained, Platform, until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.xdist_group("prefect"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium, which .ci/run installs"),
]


@pytest.fixture(scope="module")
def page() -> "Iterator[Page]":
    with browser_page() as opened:
        yield opened


def test_the_deployments_page_lists_what_can_be_run(
    prefect_platform: Platform, page: "Page"
) -> None:
    page.goto(f"{prefect_platform.server.ui_url}/deployments")
    for shown in ("drain-dlq", "build-marts", "redrive-transient", "Every 2 minutes"):
        expect(page.get_by_text(shown, exact=True).first).to_be_visible()


def test_a_drain_shows_its_counts_and_artifacts(
    platform_with_worker: Platform, drained: Drained, page: "Page"
) -> None:
    page.goto(f"{platform_with_worker.server.ui_url}/runs/flow-run/{drained.run}")
    expect(page.get_by_text("drain-dlq: 3 messages").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"Drained 3 messages in ")).first).to_be_visible()
    page.get_by_text("Artifacts", exact=True).click()
    expect(page.get_by_text("drain", exact=True).first).to_be_visible()
    expect(page.get_by_text("What this run drained.").first).to_be_visible()


def test_from_the_page_of_groups_to_an_approved_redrive(
    platform_with_worker: Platform, drained: Drained, page: "Page"
) -> None:
    """The link opens the form filled in; the large batch waits, is approved, and runs."""
    platform, ui = platform_with_worker, platform_with_worker.server.ui_url
    artifact = platform.artifacts(drained.built)["dead-letters"]["id"]
    form = open_form(page, ui, artifact, drained.group_id)
    expect(form.locator("textarea").nth(2)).to_have_value(drained.group_id)
    answer(form, "reason", "the cause is repaired")
    answer(form, "requested_by", "ann")
    form.get_by_role("button", name="Submit").click()
    run = until(lambda: _first(platform.runs("redrive")), "the run that the form started")
    given = {key: run["parameters"][key] for key in ("reason", "requested_by", "group_id")}
    assert list(given.values()) == ["the cause is repaired", "ann", drained.group_id]
    assert platform.in_state(run["id"], "PAUSED")["state"]["name"] == "Suspended"
    open_approval(form, ui, run["id"])
    expect(form.get_by_text("3 redrives, 1 group.")).to_be_visible()
    approve(form, "bob")
    ended = platform.ended(run["id"])
    assert ended["state_type"] == "COMPLETED"
    # Their events were never in a stream, and the form did not say that copies are enough.
    assert ended["state"]["message"] == "Redrove 3: 3 cancelled"
    assert {"redrive-plan", "redrives"} <= set(platform.artifacts(run["id"]))
    form.close()


def test_the_form_of_the_second_ui_is_filled_in_too(
    platform_with_worker: Platform, drained: Drained, page: "Page"
) -> None:
    text = platform_with_worker.artifacts(drained.built)["dead-letters"]["data"]
    path = re.search(r"\[V2\]\((/v2/[^)]+)\)", text)
    assert path
    page.goto(platform_with_worker.server.ui_url + path[1])
    expect(page.get_by_text(drained.group_id).first).to_be_visible()


def _first(runs: list[dict[str, object]]) -> dict[str, object] | None:
    return runs[0] if runs else None
