"""The pages of failure groups: narrow, linked, and with the texts of messages as plain text."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from sahool_dlq.orchestration.approval import plan_as_markdown
from sahool_dlq.orchestration.pages import group_page

WILD = "[x](javascript:x) <b>"
GROUP: dict[str, Any] = {
    "group_id": "1f0c9a2b3d4e5f60",
    "error_class": "KeyError",
    "template": WILD,
    "frames": "store:save < handlers:handle",
    "state": "new",
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
    "resolved_in_version": None,
    "regressed_in_version": None,
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


def test_where_nothing_is_open_nothing_is_to_be_redriven() -> None:
    page = group_page(GROUP | {"open_count": 0, "state": "resolved"}, None, form("a"), form("b"))
    assert "Redrive" not in page
    assert "parameters=" not in page
    known = GROUP | {"open_count": 0, "state": "resolved", "resolved_in_version": "2.4"}
    assert "resolved in 2.4" in group_page(known, None, None, None)


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
