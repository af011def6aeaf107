"""Prefect's own pages in a real browser: what a person sees and does there."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
from browser import (
    CHROMIUM,
    answer,
    approve,
    browser_page,
    open_approval,
    open_form,
    open_group,
)
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
    expect(page.get_by_text("What a run drained.").first).to_be_visible()


def test_the_graph_of_a_drain_shows_its_stages(
    platform_with_worker: Platform, drained: Drained, page: "Page"
) -> None:
    page.goto(f"{platform_with_worker.server.ui_url}/runs/flow-run/{drained.run}")
    expect(page.get_by_text("3 Task runs")).to_be_visible()
    page.get_by_text("Task Runs", exact=True).click()
    for stage in ("Bring in what others gave up", "Drain the log", "Compare the sinks"):
        expect(page.get_by_text(stage).first).to_be_visible()


def test_no_column_of_the_groups_is_cut(
    platform_with_worker: Platform, drained: Drained, page: "Page"
) -> None:
    """In both UIs every table of the page is wide enough to show its last column."""
    artifact = platform_with_worker.artifacts(drained.built)["dead-letters"]["id"]
    for version in ("", "/v2"):
        page.goto(f"{platform_with_worker.server.ui_url}{version}/artifacts/artifact/{artifact}")
        expect(page.get_by_role("columnheader", name="go to")).to_be_visible()
        for table in page.get_by_role("table").all():
            assert table.evaluate("t => t.scrollWidth <= t.parentElement.clientWidth + 1")


def test_from_the_page_of_groups_to_an_approved_redrive(
    platform_with_worker: Platform, drained: Drained, page: "Page"
) -> None:
    """The link opens the form filled in; the large batch waits, is approved, and runs."""
    platform, ui = platform_with_worker, platform_with_worker.server.ui_url
    artifact = platform.artifacts(drained.built)["dead-letters"]["id"]
    group = open_group(page, ui, artifact, "ValueError: ")
    form = open_form(group)
    labels = form.locator(".schema-form-property__label").all_inner_texts()
    assert labels == ["group", "reason", "your_name"]
    expect(form.get_by_text("Property is type None")).to_have_count(0)
    expect(form.locator(".schema-form-property textarea").first).to_have_value(drained.group_id)
    form.get_by_role("button", name="Submit").click()  # without a reason
    expect(form.get_by_text("'reason' is a required property")).to_be_visible()
    answer(form, "reason", "the cause is repaired")
    answer(form, "your_name", "ann")
    form.get_by_role("button", name="Submit").click()
    run = until(lambda: _first(platform.runs("redrive-group")), "the run that the form started")
    assert run["parameters"] == {
        "group": drained.group_id,
        "reason": "the cause is repaired",
        "your_name": "ann",
    }
    assert platform.in_state(run["id"], "PAUSED")["state"]["name"] == "Suspended"
    open_approval(form, ui, run["id"])
    dialog = form.locator(".p-modal")
    for shown in ("3 redrives of 1 group", "requested by ann: the cause is repaired", "[x]"):
        expect(dialog).to_contain_text(shown)
    approve(form, "bob")
    ended = platform.ended(run["id"])
    # Their events were never in a stream, and the form did not say that copies are enough.
    assert ended["state"]["name"] == "Nothing went out"
    assert ended["state"]["message"].startswith("Nothing went out: 3 left as they were. 3: ")
    assert {"redrive-plan", "redrives"} <= set(platform.artifacts(run["id"]))
    form.close()
    group.close()


def test_a_form_hides_what_is_seldom_needed(
    platform_with_worker: Platform, drained: Drained, page: "Page"
) -> None:
    """Further conditions and another delivery are one click away; the group is filled in."""
    platform, ui = platform_with_worker, platform_with_worker.server.ui_url
    artifact = platform.artifacts(drained.built)["dead-letters"]["id"]
    group = open_group(page, ui, artifact, "ValueError: ")
    form = open_form(group, "See what a redrive would do")
    expect(form.get_by_text("Failed Within")).to_be_visible()
    expect(form.locator("textarea").nth(2)).to_have_value(drained.group_id)
    expect(form.get_by_text("Tenant")).to_have_count(0)
    expect(form.get_by_text("Redirect To")).to_have_count(0)
    form.get_by_text("Changed", exact=True).click()
    expect(form.get_by_text("Redirect To")).to_be_visible()
    expect(form.get_by_text("Property is type None")).to_have_count(0)
    form.close()
    group.close()


def test_the_second_ui_leads_to_the_form_too(
    platform_with_worker: Platform, drained: Drained, page: "Page"
) -> None:
    """Its links are relative, so they stay within it."""
    artifact = platform_with_worker.artifacts(drained.built)["dead-letters"]["id"]
    page.goto(f"{platform_with_worker.server.ui_url}/v2/artifacts/artifact/{artifact}")
    row = page.get_by_role("row").filter(has_text="ValueError: ")
    link = row.get_by_role("link", name="redrive").get_attribute("href")
    assert link
    page.goto(urljoin(page.url, link))
    assert "/v2/deployments/" in page.url
    expect(page.get_by_text(drained.group_id).first).to_be_visible()


def _first(runs: list[dict[str, object]]) -> dict[str, object] | None:
    return runs[0] if runs else None
