"""Outcomes of a redrive in words."""

from typing import Any

import pytest

from sahool_dlq.orchestration.outcomes import in_words


@pytest.mark.parametrize(
    ("outcomes", "parked", "words"),
    [
        (
            {"failed_again": 1, "cancelled": 988},
            0,
            "1 tried, none succeeded, 988 left as they were",
        ),
        ({"succeeded": 3}, 0, "3 tried, all succeeded"),
        (
            {"succeeded": 8, "failed_again": 2, "outcome_unknown": 1},
            0,
            "11 tried, 8 succeeded, 2 failed again, 1 without an answer",
        ),
        (
            {"outcome_unknown": 1, "cancelled": 2},
            0,
            "1 tried, none succeeded, 1 without an answer, 2 left as they were",
        ),
        (
            {"failed_again": 11, "cancelled": 1_009},
            1_000,
            "11 tried, none succeeded, 1,000 parked, 9 left as they were",
        ),
        ({"too_late": 2, "unroutable": 1}, 0, "none tried, 2 too late, 1 unroutable"),
        ({"succeeded": 1, "held": 4}, 0, "1 tried, all succeeded, 4 left as they were"),
        ({}, 0, "none tried"),
    ],
)
def test_all_redrives_are_reported_once(outcomes: dict[str, Any], parked: int, words: str) -> None:
    assert in_words(outcomes, parked) == words
