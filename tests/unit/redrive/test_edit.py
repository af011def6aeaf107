"""Edits of events: RFC 7396, nothing respelt that was not named, nothing secret shown."""

import json
import re
from typing import Any

import jsonpatch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.edit.patch import (
    Edit,
    checked_headers,
    edit_of,
    patched,
    read_edit,
)
from sahool_dlq.redrive.edit.preview import Change, ChangeCount, changes, counted
from sahool_dlq.redrive.origin import Event, RefusedError

# The examples of RFC 7396, appendix A, of which the target and the patch are objects.
EXAMPLES = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ({"a": "x"}, {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), EXAMPLES)
def test_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert json.loads(patched(json.dumps(target).encode(), patch)) == result


def reference(target: Any, patch: Any) -> Any:
    """The pseudocode of RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = reference(result.get(key), value)
    return result


SCALARS = st.none() | st.integers(0, 9) | st.sampled_from(["", "x", "ü", True])
KEYS = st.sampled_from("abc")
INNER = st.dictionaries(KEYS, SCALARS, max_size=3)
MIDDLE = st.dictionaries(KEYS, SCALARS | INNER | st.lists(INNER, max_size=2), max_size=3)
OBJECTS = st.dictionaries(KEYS, SCALARS | MIDDLE, max_size=3)


@given(target=OBJECTS, patch=OBJECTS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_patch_does_what_the_rfc_says(target: Any, patch: Any) -> None:
    assert json.loads(patched(json.dumps(target).encode(), patch)) == reference(target, patch)


def test_what_is_not_named_keeps_its_spelling() -> None:
    body = b'{"area": 1.10, "big": 123456789012345678901234567890, "n": {"x": 1E5, "y": 2}}'
    edited = patched(body, {"n": {"y": 3}})
    assert edited == b'{"area":1.10,"big":123456789012345678901234567890,"n":{"x":1E5,"y":3}}'


@pytest.mark.parametrize("body", [b"[1]", b"5", b"", b"\xff\x00", b'{"a": ', b'"{}"'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError, match="cannot be edited"):
        patched(body, {"a": 1})


@pytest.mark.parametrize("text", ["", "[]", "{}", "5", '{"a": ', '{"a": "' + "x" * 200_000 + '"}'])
def test_an_edit_that_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(RedriveError, match="The edit"):
        read_edit(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (r'{"a": [{"b": "x\u0000"}]}', "NUL or a lone surrogate"),
        (r'{"a\ud800": 1}', "NUL or a lone surrogate"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e999}', "a number beyond 64 bits"),
    ],
)
def test_what_postgres_can_not_keep_is_reported_before_anything_is_planned(
    text: str, what: str
) -> None:
    with pytest.raises(RedriveError, match=f"^The edit contains {what}, which PostgreSQL cannot"):
        read_edit(text)


def test_a_form_orders_nothing_that_postgres_can_not_keep() -> None:
    with pytest.raises(RedriveError, match="NUL or a lone surrogate"):
        Order("manual", "ann", "why", patch={"a": "x\0"})
    assert Order("manual", "ann", "why", patch={"a": None}).patch == {"a": None}


def test_what_only_looks_like_it_may_be_edited_in() -> None:
    for text in (r'{"a": "\\u0000"}', r'{"a": "\ud83d\ude00"}', '{"a": 123456789012345678901234}'):
        assert read_edit(text) == json.loads(text)


def event(body: bytes, **headers: str | list[str]) -> Event:
    return Event("sahool.x", body, headers)


def differences(body: bytes, patch: Any) -> list[Change]:
    before = event(body)
    return changes(before, Edit(patch).applied(before, Decoders()), Redactor())


def test_the_difference_is_shown_without_secrets() -> None:
    before = b'{"unit": "acre", "api_key": "k1", "who": {"mail": "a@b.example", "n": 1}, "old": 0}'
    patch = {"unit": "ha", "api_key": "k2", "who": {"mail": "c@d.example"}, "old": None, "new": [1]}
    found = differences(before, patch)
    assert [change.path for change in found] == ["unit", "api_key", "who.mail", "old", "new"]
    assert found[0] == Change("unit", '"acre"', '"ha"')
    assert found[3:] == [Change("old", "0", None), Change("new", None, "[1]")]
    shown = str(found)
    assert not any(secret in shown for secret in ("k1", "k2", "a@b", "c@d"))


def test_an_edit_that_changes_nothing_shows_nothing() -> None:
    body = b'{"a": {"b": 1.0}}'
    assert differences(body, {"a": {"b": 1.0}}) == []


JSON_PATCHES = [
    ([{"op": "replace", "path": "/unit", "value": "ha"}], {"unit": "ha"}),
    ([{"op": "remove", "path": "/unit"}, {"op": "add", "path": "/n", "value": [1]}], {"n": [1]}),
    ([{"op": "move", "from": "/unit", "path": "/in"}], {"in": "acre"}),
]


@pytest.mark.parametrize(("patch", "result"), JSON_PATCHES)
def test_a_json_patch_is_applied_as_the_rfc_says(patch: Any, result: Any) -> None:
    assert json.loads(patched(b'{"unit": "acre"}', patch)) == result


def test_a_json_patch_leaves_the_spelling_of_all_else() -> None:
    body = b'{"area": 1.10, "big": 12345678901234567890, "at": "\\u00e9", "l": [1.50, {"x": 1E5}]}'
    after = patched(body, [{"op": "replace", "path": "/l/1/x", "value": 2}])
    assert after == (b'{"area":1.10,"big":12345678901234567890,"at":"\\u00e9","l":[1.50,{"x":2}]}')


@given(before=OBJECTS, after=OBJECTS)
def test_a_json_patch_of_any_two_bodies_leads_from_one_to_the_other(
    before: Any, after: Any
) -> None:
    patch = jsonpatch.make_patch(before, after).patch
    assert json.loads(patched(json.dumps(before).encode(), patch)) == after


@pytest.mark.parametrize(
    ("body", "patch"),
    [
        (b'{"a": 11}', [{"op": "replace", "path": "/b", "value": 1}]),
        (b'{"a": 11}', [{"op": "test", "path": "/a", "value": 2}]),
        (b'{"a": 11}', [{"op": "copy", "from": "/b/c", "path": "/d"}]),
        (b"[11]", [{"op": "remove", "path": "/7"}]),
        (b'{"a": 11}', [{"op": "remove", "path": "/a/b"}]),
        (b"not JSON", [{"op": "remove", "path": "/a"}]),
    ],
)
def test_an_event_to_which_a_json_patch_does_not_apply_is_refused(body: bytes, patch: Any) -> None:
    with pytest.raises(RefusedError) as refused:
        patched(body, patch)
    assert not re.search("[0-9]{2}", str(refused.value))  # no value of the event


@pytest.mark.parametrize(
    "text", ['[{"op": "set", "path": "/a"}]', '[{"op": "add", "path": "a", "value": 1}]', "[1]",
             '[{"path": "/a"}]']
)  # fmt: skip
def test_what_is_no_json_patch_is_one_sentence(text: str) -> None:
    with pytest.raises(RedriveError, match="The edit is not a JSON Patch"):
        read_edit(text)


def test_headers_are_changed_whatever_the_case_of_their_names() -> None:
    before = event(b"x", **{"X-Unit": "acre", "x-tag": ["a", "b"], "Keep": "1"})
    edit = Edit(headers=checked_headers({"x-unit": "ha", "X-Tag": None, "New": ["1", "2"]}))
    after = edit.applied(before, Decoders())
    assert after.headers == {"X-Unit": "ha", "Keep": "1", "New": ["1", "2"]}
    assert after.body == b"x"
    assert [change.path for change in changes(before, after, Redactor())] == [
        "headers.X-Unit", "headers.x-tag", "headers.New"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [{}, [], {"Nats-Msg-Id": "1"}, {"dlq-redrive-of": None}, {"a b": "1"}, {"X": 1}, {"X": []},
     {"X": "a\r\nY: b"}, {"X": [None]}, {"": "1"}],
)  # fmt: skip
def test_headers_that_act_or_cannot_be_sent_are_refused(headers: Any) -> None:
    with pytest.raises(RedriveError):
        checked_headers(headers)


@pytest.mark.parametrize(
    "edit",
    [
        Edit({"edit": 1}),
        Edit([{"op": "remove", "path": "/a"}]),
        Edit({"a": None}, {"X": "1"}),
        Edit(function="mend:unit", events={"f": {"headers": {"X": None}}}),
    ],
)
def test_a_stored_edit_is_read_as_it_was(edit: Edit) -> None:
    assert edit_of(json.loads(json.dumps(edit.stored()))) == edit


def test_the_audit_shows_an_edit_without_secrets() -> None:
    operations = [{"op": "add", "path": "/api_key", "value": "k1"}, {"op": "remove", "path": "/b"}]
    edit = Edit(operations, {"Authorization": "Bearer k2"})
    [shown] = edit.shown(Redactor())
    assert shown["body"][1] == {"op": "remove", "path": "/b"}
    assert not any(secret in str(shown) for secret in ("k1", "k2"))
    assert edit.names() == ["/api_key", "/b", "headers.Authorization"]


def test_the_preview_counts_equal_changes_and_sums_up_different_ones() -> None:
    same = [Change("unit", '"acre"', '"ha"')]
    other = [[Change("id", f"{n}", None)] for n in range(5)]
    preview = counted([*[same] * 48, [], [], *other], {"f": "it is not JSON"})
    assert (preview.events, preview.unchanged) == (56, 2)
    assert preview.changes == [
        ChangeCount("unit", '"acre"', '"ha"', 48), ChangeCount("id", "(5 values)", None, 5)
    ]  # fmt: skip
