"""The advice for a group, and the command to run next."""

from typing import Any

import pytest

from sahool_dlq.analysis.report.advice import next_command, what_failed


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
