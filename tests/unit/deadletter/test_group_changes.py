"""Messages about groups: what each changes, and what is left out of a message by hand."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sahool_dlq.deadletter.case_events import CaseEvent, decode_case_event
from sahool_dlq.deadletter.envelope.encode import encode_group_event
from sahool_dlq.deadletter.group_changes import GroupChange, Mute, group_change
from sahool_dlq.deadletter.message import LogMessage
from support.letters import EPOCH, PUBLISHED_AT, PUBLISHED_NS, SEQUENCE

GROUP = "0123456789abcdef"
UNTIL = datetime(2026, 12, 24, tzinfo=UTC)


def read(body: bytes, subject: str = "sahool.triage.group") -> CaseEvent:
    return decode_case_event(LogMessage(subject, SEQUENCE, PUBLISHED_NS, body), EPOCH)


def change(**changes: Any) -> GroupChange | None:
    body = encode_group_event(
        group_id=GROUP, at=PUBLISHED_AT, actor="ana", reason="known", changes=changes
    )
    return group_change(read(body))


def test_what_a_person_changes_is_read_and_the_rest_stays() -> None:
    said = change(owner="team", note="", labels=["a", "b", "a", ""], mute=UNTIL.isoformat())
    assert said == GroupChange(GROUP, {"owner": "team", "note": None}, ("a", "b"), Mute(UNTIL))
    assert change(ticket="https://t.example/1") == GroupChange(
        GROUP, {"ticket": "https://t.example/1"}
    )


@pytest.mark.parametrize("mute", [Mute(UNTIL), Mute(more=100), Mute()])
def test_each_kind_of_mute_is_read_as_it_is_written(mute: Mute) -> None:
    said = change(mute=mute.as_json())
    assert said is not None
    assert (said.mute, said.is_unmuted) == (mute, False)


def test_null_ends_a_mute() -> None:
    said = change(mute=None)
    assert said is not None
    assert (said.mute, said.is_unmuted) == (None, True)


@pytest.mark.parametrize(
    "value", [0, -1, 2**31, True, 1.5, "never", "2300-01-01", ["escalating"], {}, "Escalating"]
)
def test_no_other_value_mutes(value: object) -> None:
    assert change(mute=value) == GroupChange(GROUP, {})


@pytest.mark.parametrize(
    "values", [{"owner": 3}, {"labels": "a"}, {"labels": [3]}, {"note": None}, {"color": "red"}]
)
def test_values_of_another_type_change_nothing(values: dict[str, Any]) -> None:
    said = change(**values)
    assert said is not None
    assert not said.texts
    assert not said.labels


def test_long_values_are_cut() -> None:
    said = change(owner="x" * 5_000, labels=["y" * 500, *map(str, range(50))])
    assert said is not None
    assert len(said.texts["owner"] or "") == 100
    assert (len(said.labels or ()), len((said.labels or ("",))[0])) == (10, 50)


def test_the_end_of_a_mute_names_the_mute() -> None:
    body = {"group_id": GROUP, "muted_at": UNTIL.isoformat(), "owner": "mallory"}
    event = read(json.dumps(body).encode(), "sahool.triage.unmuted")
    assert group_change(event) == GroupChange(GROUP, {}, ended_mute_at=UNTIL)
    assert (
        group_change(read(b'{"group_id": "%s"}' % GROUP.encode(), "sahool.triage.unmuted")) is None
    )


@pytest.mark.parametrize("group", [None, 3, "", "0123", "0123456789ABCDEF", f"{GROUP}0", "é" * 16])
def test_a_message_without_a_group_is_set_aside(group: object) -> None:
    event = read(json.dumps({"group_id": group, "owner": "x"}).encode())
    assert (event.parse_error, event.group_id) == ("missing group_id", None)
    assert group_change(event) is None


def test_a_message_about_a_group_is_about_no_failure_and_the_other_way_round() -> None:
    failure = "00000000-0000-5000-8000-000000000001"
    both = json.dumps({"group_id": GROUP, "failure_id": failure, "owner": "x"}).encode()
    about_group, about_failure = read(both), read(both, "sahool.triage.resolved")
    assert (about_group.group_id, about_group.failure_id) == (GROUP, None)
    assert (about_failure.group_id, about_failure.failure_id) == (None, failure)
    assert group_change(about_failure) is None
