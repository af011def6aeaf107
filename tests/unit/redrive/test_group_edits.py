"""What a person may write about a group, and how a mute is read."""

from datetime import UTC, datetime
from typing import Any

import pytest

from sahool_dlq.deadletter.group_changes import Mute
from sahool_dlq.errors import GroupError
from sahool_dlq.jobs.care import mute_in_words
from sahool_dlq.jobs.groups import GroupEdit, mute_from

NOW = datetime(2026, 11, 30, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "mute"),
    [
        ("2026-12-24", Mute(datetime(2026, 12, 24, tzinfo=UTC))),
        ("2026-12-24T08:00:00+02:00", Mute(datetime(2026, 12, 24, 6, tzinfo=UTC))),
        ("3d", Mute(datetime(2026, 12, 3, 18, tzinfo=UTC))),
        ("100 more", Mute(more=100)),
        ("1-more", Mute(more=1)),
        (" Escalating ", Mute()),
    ],
)
def test_a_mute_is_a_time_a_number_or_escalating(text: str, mute: Mute) -> None:
    assert mute_from(text, NOW) == mute


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tomorrow", "'tomorrow' ends no mute: write a time"),
        ("", "ends no mute"),
        ("100", "ends no mute"),
        ("0 more", "1 to 2,147,483,647 more failures"),
        ("9999999999 more", "1 to 2,147,483,647 more failures"),
        ("2026-11-29", "must end after now and before 2200"),
        ("2500-01-01", "must end after now and before 2200"),
        ("99999999999999d", "ends no mute"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(GroupError, match=said):
        mute_from(text, NOW)


def test_an_edit_has_the_keys_that_it_changes() -> None:
    assert GroupEdit().as_json() == {}
    assert GroupEdit(owner=" a ", note="").as_json() == {"owner": "a", "note": ""}
    assert GroupEdit(labels=("b ", "a", "b", "")).as_json() == {"labels": ["b", "a"]}
    assert GroupEdit(labels=("",)).as_json() == {"labels": []}
    assert GroupEdit(is_unmuted=True).as_json() == {"mute": None}
    assert GroupEdit(mute=Mute()).as_json() == {"mute": "escalating"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, None),
        ({"is_muted": False, "mute_more": 3}, None),
        ({"mute_until": datetime(2026, 12, 24, tzinfo=UTC)}, "until 2026-12-24 00:00 UTC"),
        ({"mute_more": 100, "further_count": 63}, "until 37 more failures"),
        ({"mute_more": 100, "further_count": 99}, "until 1 more failure"),
        ({"mute_reason": "x"}, "until it escalates"),
    ],
)
def test_a_mute_in_words(row: dict[str, Any], words: str | None) -> None:
    given = {"is_muted": bool(row), "mute_until": None, "mute_more": None} | row
    assert mute_in_words(given) == words
