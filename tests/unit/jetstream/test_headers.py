"""Headers: every value in order, from the bytes on the wire to the dead letter and back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import BadHeaderError

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.headers import (
    Redrive,
    add_header,
    headers_of_json,
    pairs_of,
    redrive_of,
    value_of,
    values_of,
)
from sahool_dlq.events import ConsumerContext, FailedEvent
from sahool_dlq.jetstream.connection import wire_size
from sahool_dlq.jetstream.headers import LastValues, encode_headers, every_header, parse_headers
from support import ROOT
from support.letters import ours, read

CASE = ids.failure_id("EVENTS", 1, 2, "ndvi")
TOKENS = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"))
NAMES = TOKENS.filter(bool) | st.sampled_from(["X-Tag", "x-tag", "Nats-Msg-Id", "Höhe", "a b"])
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")).map(
    lambda value: value.strip(" \t")
)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def held(pairs: list[tuple[str, str]]) -> dict[str, str | list[str]]:
    headers: dict[str, str | list[str]] = {}
    for name, value in pairs:
        add_header(headers, name, value)
    return headers


@given(PAIRS)
def test_any_headers_come_back_as_they_were_sent(pairs: list[tuple[str, str]]) -> None:
    headers = held(pairs)
    sent = b"".join(f"{name}: {value}\r\n".encode() for name, value in pairs)
    block = encode_headers(headers)
    assert parse_headers(b"NATS/1.0\r\n" + sent + b"\r\n") == headers
    assert parse_headers(block) == headers
    assert headers_of_json(json.loads(json.dumps(headers))) == headers
    assert wire_size(b"body", headers) == 4 + (len(block) if headers else 0)
    for name, _ in pairs:
        assert [v for n, v in pairs_of(headers) if n == name] == [v for n, v in pairs if n == name]
        assert values_of(headers, name.upper()) == values_of(headers, name.lower())


@given(PAIRS)
def test_nats_py_reads_the_last_value_of_each_as_it_ever_did(pairs: list[tuple[str, str]]) -> None:
    last = LastValues(held(pairs))
    block = encode_headers(held(pairs))
    sendable = {name for name in last if name.isascii() and " " not in name}
    theirs = Client._parse_header_lines(block.partition(b"\r\n")[2])
    assert {name: last[name].strip() for name in sendable} == {
        name: value.strip() for name, value in theirs.items()
    }
    assert every_header(last) == held(pairs)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: b"NATS/1.0\r\n" + rest))
def test_whatever_bytes_a_block_is_it_is_read(block: bytes) -> None:
    encode_headers({k: v for k, v in parse_headers(block).items() if "\0" not in k + str(v)})


def test_what_would_end_a_line_can_not_smuggle_a_header() -> None:
    forged = {"X": "a\r\nNats-Msg-Id: b", " Y ": ["c\n", ""], "": "d", "Z": []}
    assert encode_headers(forged) == (b"NATS/1.0\r\nX: a  Nats-Msg-Id: b\r\nY: c\r\nY: \r\n\r\n")
    for name in ("a:b", "a\nb", "a\rb", "a\0b"):
        with pytest.raises(BadHeaderError):
            encode_headers({name: "x"})


def test_a_name_is_found_whatever_its_case_and_its_last_value_counts() -> None:
    headers = {"X-Tag": ["red", "green"], "other": "x", "x-TAG": "blue"}
    assert values_of(headers, "x-tag") == ["red", "green", "blue"]
    assert (value_of(headers, "X-TAG"), value_of(headers, "none")) == ("blue", None)
    assert value_of({"a": []}, "a") is None


@pytest.mark.parametrize(
    ("sent", "kept", "says"),
    [
        ("x", "x", None),
        (["x"], "x", None),
        (["x", "y", "x"], ["x", "y", "x"], None),
        ([], [], None),
        (7, "7", "is a number"),
        (1.5, "1.5", "is a number"),
        (True, "true", "is a boolean"),
        (None, [], "is null"),
        ({"a": 1}, '{"a":1}', "is an object"),
        ([1, "x", False], ["1", "x", "false"], "holds a boolean, a number"),
        ([["x"], None], '["x"]', "holds an array, null"),
    ],
)
def test_whatever_is_sent_for_a_header_is_kept_as_text(sent: Any, kept: Any, says: str) -> None:
    letter = read(ours(original_headers={"H": sent, "other": "o"}))
    assert json.loads(letter.original_headers) == {"H": kept, "other": "o"}
    assert letter.parse_error == (says and f"original_headers.H {says}")
    assert letter.envelope == "canonical"


def test_the_rest_of_a_dead_letter_of_gos_stays_verbatim() -> None:
    file = ROOT / "tests" / "foreign/go-dead-letter.json"
    letter = read(file.read_bytes().replace(b'{"event_id":"e2"}', b'{"a":1.50,  "b":[1]}'))
    assert letter.original_data == '{"a":1.50,  "b":[1]}'
    assert json.loads(letter.original_headers) == {
        "Content-Type": "application/json",
        "X-Tag": ["red", "green"],
    }
    assert letter.parse_error is None
    typed = FailedEvent.model_validate_json(file.read_bytes())
    assert typed.original_headers["X-Tag"] == ["red", "green"]
    assert json.loads(typed.to_json())["original_headers"]["X-Tag"] == ["red", "green"]


def marks(**changes: Any) -> dict[str, Any]:
    whole = {
        "dlq-redrive-of": CASE,
        "DLQ-REDRIVE-ID": ids.redrive_id(CASE, 2),
        "Dlq-Redrive-Attempt": "2",
        "nats-msg-id": ids.redrive_id(CASE, 2),
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def test_a_redrive_is_known_by_its_marks_however_they_are_spelt() -> None:
    expected = Redrive(CASE, ids.redrive_id(CASE, 2), 2)
    assert redrive_of(marks()) == expected
    assert redrive_of(marks(**{"nats-msg-id": None})) == expected
    letter = read(ours(original_headers=marks()))
    assert (letter.root_failure_id, letter.redrive_attempt) == (CASE, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"dlq-redrive-of": None},
        {"dlq-redrive-of": "x" * 4096},
        {"dlq-redrive-of": CASE.upper()},
        {"DLQ-REDRIVE-ID": None},
        {"DLQ-REDRIVE-ID": ["x", "Äcker"]},
        {"Dlq-Redrive-Attempt": "3"},
        {"Dlq-Redrive-Attempt": "9" * 9_000},
        {"Dlq-Redrive-Attempt": "two"},
        {"nats-msg-id": "of an event of its own"},
        {"nats-msg-id": ""},
    ],
)
def test_marks_that_are_forged_or_copied_are_not_believed(changes: dict[str, Any]) -> None:
    assert redrive_of(marks(**changes)) is None
    assert read(ours(original_headers=marks(**changes))).root_failure_id is None


def test_a_handler_gets_the_last_value_and_all_of_them() -> None:
    context = ConsumerContext(
        subject="s", data=b"", headers={"X-Tag": "green", "a": "b"},
        repeated_headers={"X-Tag": ["red", "green"]},
    )  # fmt: skip
    assert context.header_values("x-tag") == ["red", "green"]
    assert (context.header_values("A"), context.header_values("none")) == (["b"], [])


def test_headers_that_anybody_wrote_can_be_written() -> None:
    text = r"""{"a": "x\ud800", "\udc00": "1", "\udfff": ["2", "\ud83d\ude00"],
               "none": null, "nothing": [], "nulls": [null], "\u0000": ""}"""
    headers = headers_of_json(json.loads(text))
    empty: dict[str, list[str]] = {"none": [], "nothing": [], "nulls": []}
    assert headers == {"a": "x\ufffd", "\ufffd": ["1", "2", "\U0001f600"], "\0": "", **empty}
    for _, value in pairs_of(headers):
        assert value.encode().decode() == value
