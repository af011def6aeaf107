"""Edits of bodies in other formats: shown as they will be read, refused where they cannot be."""

import json
from functools import partial
from typing import Any

import cbor2
import pytest

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.redrive.edit.bodies import edited
from sahool_dlq.redrive.edit.patch import Edit, patched
from sahool_dlq.redrive.edit.plan import changed
from sahool_dlq.redrive.edit.preview import changes
from sahool_dlq.redrive.origin import Event, RefusedError
from support.encoded import MESSAGE, decoders, descriptor_set, protobuf

CBOR = {"Content-Type": "application/cbor"}


def by(patch: dict[str, Any]) -> Any:
    return partial(patched, patch=patch)


def test_the_difference_is_that_of_the_new_body_and_masked() -> None:
    event = Event("s", cbor2.dumps({"unit": "acre", "password": "hunter2"}), {}, had=CBOR)
    edit = Edit({"unit": "ha", "password": "other2"})
    assert cbor2.loads(edit.applied(event, Decoders()).body) == edit.body
    _, pair = changed(event, edit, Decoders())
    shown = changes(*pair, Redactor())
    assert shown[0] == ("unit", '"acre"', '"ha"')
    assert "hunter2" not in str(shown)


def test_the_difference_shows_what_the_format_makes_of_an_edit() -> None:
    """A field of proto3 that is set to its default is not sent."""
    known = decoders({"d": descriptor_set()}, format="protobuf", descriptors="d", message=MESSAGE)
    event = Event("s", protobuf({"tenant_id": "acme", "count": "7"}), {})
    _, (_, after) = changed(event, Edit({"count": "0"}), known)
    assert json.loads(after.body) == {"tenant_id": "acme"}


def test_json_is_edited_as_before() -> None:
    event = Event("s", b'{"a": 1.10, "b": 2}', {})
    assert edited(event, Decoders(), by({"b": 3})) == b'{"a":1.10,"b":3}'


def test_a_function_gets_a_body_of_another_format_as_json() -> None:
    def units(body: Any, _: Any) -> None:
        body["unit"] = "ha"

    event = Event("s", cbor2.dumps({"unit": "acre", "at": b"\0"}), {}, had=CBOR)
    edit, (before, after) = changed(event, units, Decoders())
    assert edit.body == [{"op": "replace", "path": "/unit", "value": "ha"}]
    assert json.loads(before.body)["unit"] == "acre"
    assert json.loads(after.body)["unit"] == "ha"
    assert cbor2.loads(edit.applied(event, Decoders()).body) == {"unit": "ha", "at": b"\0"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "it cannot be edited: its cbor cannot be read"),
        (cbor2.dumps([1]), "because it is not a JSON object"),
    ],
)
def test_a_body_that_cannot_be_edited_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        edited(Event("s", body, {}, had=CBOR), Decoders(), by({"a": 1}))


def test_an_edit_that_the_format_cannot_hold_is_refused() -> None:
    known = decoders({"d": descriptor_set()}, format="protobuf", descriptors="d", message=MESSAGE)
    with pytest.raises(RefusedError, match="does not fit the protobuf message"):
        edited(Event("s", protobuf({"count": "7"}), {}), known, by({"count": "many"}))
