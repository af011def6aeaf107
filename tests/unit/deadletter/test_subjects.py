"""The log's subjects, and NATS' rules for matching."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahool_dlq.deadletter.subjects import (
    Subjects,
    event_type_of,
    matches,
    overlaps,
    subject_token,
)


def test_subjects_lie_below_the_prefix() -> None:
    subjects = Subjects("farm")
    assert subjects.dead_letters == "farm.dlq.>"
    assert subjects.log == ("farm.dlq.>", "farm.redrive.>", "farm.triage.>")
    assert subjects.events == ("farm.analysis.>", "farm.actions.>")
    assert subjects.totals == "farm.totals.>"
    assert subjects.dead_letter("ndvi_computed") == "farm.dlq.ndvi_computed"
    assert subjects.redrive("published") == "farm.redrive.published"
    assert subjects.triage("parked") == "farm.triage.parked"
    assert subjects.total("a b", "c.>") == "farm.totals.a_b.c__"


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("ndvi-computed_2", "ndvi-computed_2"),
        ("*", "_"),
        (">", "_"),
        ("a.b", "a_b"),
        ("a b\r\n", "a_b__"),
        ("é", "_"),
        ("", "unknown"),
        ("x" * 65, "x" * 64),
        ("a\n", "a_"),
    ],
)
def test_a_token_has_no_character_that_nats_gives_a_meaning(text: str, token: str) -> None:
    assert subject_token(text) == token


@given(st.text(max_size=80))
def test_any_text_becomes_one_token(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", subject_token(text))


def test_the_event_type_is_the_last_token() -> None:
    assert event_type_of("sahool.analysis.ndvi_computed") == "ndvi_computed"
    assert event_type_of("plain") == "plain"


@pytest.mark.parametrize(
    ("pattern", "subject", "is_match"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("*.b", "a.b", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
    ],
)
def test_matching_follows_nats(pattern: str, subject: str, is_match: bool) -> None:
    assert matches(pattern, subject) is is_match


@pytest.mark.parametrize(
    ("left", "right", "is_overlap"),
    [
        ("a.>", "a.b", True),
        ("a.>", "a", False),
        ("a.*", "*.b", True),
        ("a.*", "b.*", False),
        ("a.*.c", "a.b", False),
        ("sahool.>", "sahool.dlq.>", True),
        ("sahool.analysis.*", "sahool.dlq.>", False),
        ("*.*", "a.>", True),
        ("*", "a.>", False),
    ],
)
def test_filters_overlap_in_either_order(left: str, right: str, is_overlap: bool) -> None:
    assert overlaps(left, right) is is_overlap
    assert overlaps(right, left) is is_overlap


_PART = st.sampled_from("ab")
_FILTERS = st.lists(_PART | st.just("*"), min_size=1, max_size=3).flatmap(
    lambda parts: st.sampled_from([".".join(parts), ".".join([*parts, ">"])])
)


@given(_FILTERS, _FILTERS, st.lists(_PART, min_size=1, max_size=5).map(".".join))
def test_filters_that_match_one_subject_overlap(left: str, right: str, subject: str) -> None:
    if matches(left, subject) and matches(right, subject):
        assert overlaps(left, right)
