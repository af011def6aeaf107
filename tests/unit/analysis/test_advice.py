"""The advice for a group, and the command to run next."""

from typing import Any

import polars as pl
import pytest

from sahool_dlq.analysis.report.advice import next_command, to_look_at, what_failed


def group(**changes: Any) -> dict[str, Any]:
    return {
        "group_id": "1f0c22aa9be31d70",
        "error_class": "TimeoutError",
        "template": "no tile in <n> s",
        "frames": "ndvi.bands:compute_ndvi < ndvi.app:handle",
        "open_count": 5,
        "parked_count": 0,
        "redrive_chance": 0.7,
    } | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "TimeoutError: no tile in <n> s"),
        ({"template": "None"}, "TimeoutError (no message) in compute_ndvi"),
        ({"template": " "}, "TimeoutError (no message) in compute_ndvi"),
        ({"template": None, "frames": "handle"}, "TimeoutError (no message) in handle"),
        ({"template": "", "frames": ""}, "TimeoutError (no message)"),
        ({"template": "", "frames": None}, "TimeoutError (no message)"),
    ],
)
def test_a_group_without_a_message_says_where_it_failed(changes: dict[str, Any], said: str) -> None:
    assert what_failed(group(**changes)) == said


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "dlq redrive --group 1f0c22aa9be31d70 --dry-run"),
        ({"redrive_chance": 0.1}, "dlq show 1f0c22aa9be31d70"),
        ({"parked_count": 5}, "dlq show 1f0c22aa9be31d70"),
        ({"open_count": 0}, ""),
    ],
)
def test_the_next_step_fits_the_group(changes: dict[str, Any], command: str) -> None:
    assert next_command(group(**changes)) == command


def test_what_is_to_be_looked_at_goes_by_the_state_that_is_shown() -> None:
    """A group may be in a spike and yet be shown as new, fixed or resolved."""
    states = ("new", "escalating", "regressed", "ongoing", "fixed", "resolved")
    rows = [
        group(group_id=state, state=state, is_escalating=True, open_count=int(state != "resolved"))
        for state in states
    ]
    rows.append(group(group_id="closed", state="new", is_escalating=True, open_count=0))
    assert to_look_at(pl.DataFrame(rows))["group_id"].to_list() == list(states[:3])
