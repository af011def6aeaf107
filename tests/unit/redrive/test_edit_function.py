"""An edit by a Python function: its results, stored, do the same without it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.edit.function import load_function, result_of
from sahool_dlq.redrive.edit.patch import Edit, edit_of
from sahool_dlq.redrive.origin import Event, RefusedError


def event(body: bytes, **headers: str | list[str]) -> Event:
    return Event("sahool.x", body, headers)


def raising(body: Any, headers: Any) -> None:
    body["missing"]


def in_place(body: Any, headers: Any) -> None:
    body["unit"] = "ha"
    headers["X-Unit"] = "ha"
    del headers["Old"]


def returning(body: Any, headers: Any) -> Any:
    return {**body, "unit": "ha"}


@pytest.mark.parametrize(
    ("function", "headers"),
    [(in_place, {"X-Unit": "ha", "Keep": "1"}), (returning, {"Old": "1", "Keep": "1"})],
)
def test_the_stored_result_does_the_same(
    function: Callable[..., Any], headers: dict[str, str]
) -> None:
    before = event(b'{"unit": "acre", "area": 1.10}', Old="1", Keep="1")
    its = result_of(function, before)
    told = {"body": its.body, "headers": its.headers}
    stored = Edit(function="m:f", events={"id": {n: v for n, v in told.items() if v}}).stored()
    after = edit_of(json.loads(json.dumps(stored))).of_failure("id").applied(before, Decoders())
    assert (after.body, after.headers) == (b'{"unit":"ha","area":1.10}', headers)
    with pytest.raises(RefusedError, match="was not called"):
        edit_of(stored).of_failure("another")


@pytest.mark.parametrize(
    ("function", "body", "why"),
    [
        (raising, b"{}", r"raised KeyError\('missing'\) at test_edit_function.py:\d+"),
        (lambda *_: {"at": Path()}, b"{}", "not JSON"),
        (lambda *_: {"at": float("nan")}, b"{}", "NaN"),
        (lambda *_: {"at": "\0"}, b"{}", "NUL"),
        (lambda *_: b"new", b"old", "it is not JSON"),
        (lambda _, headers: headers.update({"Nats-Msg-Id": "1"}), b"{}", "Nats-Msg-Id"),
    ],
)
def test_what_a_function_cannot_do_is_said(
    function: Callable[..., Any], body: bytes, why: str
) -> None:
    with pytest.raises(RefusedError, match=why):
        result_of(function, event(body))


def test_a_body_that_is_not_json_may_get_other_headers() -> None:
    def tag(body: Any, headers: Any) -> None:
        headers["X"] = str(len(body))

    assert result_of(tag, event(b"\xff\x00")) == Edit(headers={"X": "2"})


def test_functions_are_loaded_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mend_units_x1.py").write_text(
        "def unit(body, headers):\n    body['unit'] = 'ha'\n"
    )
    function = load_function("mend_units_x1:unit", tmp_path)
    assert result_of(function, event(b"{}")).body == [{"op": "add", "path": "/unit", "value": "ha"}]
    for wrong in ("mend_units_x1:none", "mend_units_x1", "no_such_module_x1:f", ":f", ""):
        with pytest.raises(RedriveError, match="The edit"):
            load_function(wrong, tmp_path)
