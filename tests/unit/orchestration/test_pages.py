"""The pages of failure groups: narrow, linked, and with the texts of messages as plain text."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import polars as pl

from sahool_dlq.orchestration.approval import plan_as_markdown
from sahool_dlq.orchestration.pages import group_page, incidents_page

WILD = "[x](javascript:x) <b>"
GROUP: dict[str, Any] = {
    "group_id": "1f0c9a2b3d4e5f60",
    "error_class": "KeyError",
    "template": WILD,
    "frames": "store:save < handlers:handle",
    "state": "new",
    "resolved_in_version": None,
    "regressed_in_version": None,
    "open_count": 3,
    "parked_count": 1,
    "failure_count": 4,
    "tenant_count": 2,
    "services": "billing",
    "consumers": "billing",
    "first_seen_at": datetime(2026, 3, 1, tzinfo=UTC),
    "last_seen_at": datetime(2026, 3, 2, tzinfo=UTC),
    "redrive_chance": 0.1,
    "redrive_count": 0,
    "redrive_succeeded_count": 0,
}
SAMPLE = {"failure": "f-1", "service": "billing", "message": WILD}


def form(name: str) -> Any:
    return lambda given: f"../../{name}?parameters={json.dumps(given)}"


def test_a_group_leads_to_its_redrive_and_back() -> None:
    page = group_page(GROUP, SAMPLE, form("redrive-group"), form("dry-run"))
    assert "[All groups](../key/dead-letters)" in page
    assert '[Redrive](../../redrive-group?parameters={"group": "1f0c9a2b3d4e5f60"})' in unquote(
        page
    )
    assert '{"failures": {"group": "1f0c9a2b3d4e5f60"}}' in unquote(page)
    assert "| open | 3 |" in page
    assert "1. store:save\n1. handlers:handle" in page
    assert page.count("dlq show 1f0c9a2b3d4e5f60") == 1  # it is also what is to be done next


def test_what_messages_say_is_text() -> None:
    page = group_page(GROUP, SAMPLE, None, None)
    assert "[x](" not in page
    assert "<b>" not in page
    assert page.count(r"\[x\](javascript:x) \<b\>") == 2


def test_a_group_that_somebody_owns_says_whose_it_is_and_that_it_is_muted() -> None:
    said = {"owner": "@acme/pay", "muted": "until it escalates", "note": WILD, "labels": None}
    page = group_page(GROUP | said, None, None, None)
    assert "| owner | @acme/pay |" in page
    assert "| muted | until it escalates |" in page
    assert "labels" not in page
    assert page.count(r"\[x\](javascript:x) \<b\>") == 2
    assert "owner" not in group_page(GROUP, None, None, None)


def test_where_nothing_is_open_nothing_is_to_be_redriven() -> None:
    page = group_page(GROUP | {"open_count": 0, "state": "resolved"}, None, form("a"), form("b"))
    assert "Redrive" not in page
    assert "parameters=" not in page
    known = GROUP | {"open_count": 0, "state": "resolved", "resolved_in_version": "2.4"}
    assert "resolved in 2.4" in group_page(known, None, None, None)


INCIDENT: dict[str, Any] = {
    "incident_id": "20260302-11-1f0c9a",
    "from_at": datetime(2026, 3, 2, 11, 7, tzinfo=UTC),
    "until_at": None,
    "services": "billing, <b>tiles",
    "groups": "1f0c9a2b3d4e5f60, aaaa9a2b3d4e5f60",
    "group_count": 2,
    "failure_count": 906,
    "open_count": 3,
}


def test_an_incident_leads_to_the_pages_of_its_groups() -> None:
    other = GROUP | {"group_id": "aaaa9a2b3d4e5f60", "state": "resolved", "open_count": 0}
    marts = {"failure_groups": pl.DataFrame([GROUP, other]), "incidents": pl.DataFrame([INCIDENT])}
    now = datetime(2026, 3, 2, 12, tzinfo=UTC)
    page = incidents_page(marts, now, {GROUP["group_id"]: "../artifact/7"})
    assert r"## billing, then \<b\>tiles" in page
    assert "906 failures in 2 groups, from 2026-03-02 11:07 UTC, and lasts; 3 are open." in page
    assert "| new | 3 | [page](../artifact/7) |" in page
    assert "| resolved | 0 | – |" in page
    assert "dlq incident 20260302-11-1f0c9a" in page
    assert "[x](" not in page
    none = incidents_page(marts | {"incidents": pl.DataFrame([INCIDENT]).clear()}, now, {})
    assert "No group failed far more than usual" in none


def test_a_plan_says_what_its_page_says_to_who_approves_it() -> None:
    """Groups and sample as lists, because the dialog of an approval is too narrow for a table."""
    shown = {
        "planned": 12,
        "groups": [
            {"group_id": "a", "service": "billing", "error_type": "KeyError", "count": 11},
            {"group_id": "b", "service": "ndvi", "error_type": "TypeError", "count": 1},
        ],
        "sample": [
            {"error_message": WILD, "subject": "a.b"},
            {"error_message": "", "subject": "c"},
        ],
        "expected_successes": 6.0,
        "seconds": 1.2,
        "refused": {},
        "unreached": [],
        "repeated": 0,
        "redirect_to": None,
        "payloads": {"gone": 0},
        "also_reached": {},
        "edits": None,
    }
    text = plan_as_markdown(shown)
    assert text.startswith("**12 redrives of 2 groups**\n")
    assert "- 11 KeyError in billing\n- 1 TypeError in ndvi\n" in text
    assert r"- \[x\](javascript:x) \<b\>" in text
    assert "- (nothing)" in text
    assert "About 6 may succeed. Publishing takes about 1.2 s." in text
