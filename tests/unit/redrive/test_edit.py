"""Edits of events: RFC 7396, nothing respelt that was not named, nothing secret shown."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.edit import Change, changes, patched, read_patch
from sahool_dlq.redrive.origin import RefusedError

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
        read_patch(text)


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
        read_patch(text)


def test_a_form_orders_nothing_that_postgres_can_not_keep() -> None:
    with pytest.raises(RedriveError, match="NUL or a lone surrogate"):
        Order("manual", "ann", "why", patch={"a": "x\0"})
    assert Order("manual", "ann", "why", patch={"a": None}).patch == {"a": None}


def test_what_only_looks_like_it_may_be_edited_in() -> None:
    for text in (r'{"a": "\\u0000"}', r'{"a": "\ud83d\ude00"}', '{"a": 123456789012345678901234}'):
        assert read_patch(text) == json.loads(text)


def test_the_difference_is_shown_without_secrets() -> None:
    before = b'{"unit": "acre", "api_key": "k1", "who": {"mail": "a@b.example", "n": 1}, "old": 0}'
    patch = {"unit": "ha", "api_key": "k2", "who": {"mail": "c@d.example"}, "old": None, "new": [1]}
    found = changes(before, patched(before, patch), Redactor())
    assert [change.path for change in found] == ["unit", "api_key", "who.mail", "old", "new"]
    assert found[0] == Change("unit", '"acre"', '"ha"')
    assert found[3:] == [Change("old", "0", None), Change("new", None, "[1]")]
    shown = str(found)
    assert not any(secret in shown for secret in ("k1", "k2", "a@b", "c@d"))


def test_an_edit_that_changes_nothing_shows_nothing() -> None:
    body = b'{"a": {"b": 1.0}}'
    assert changes(body, patched(body, {"a": {"b": 1.0}}), Redactor()) == []
