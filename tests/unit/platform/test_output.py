"""No text of a message can control the terminal or change what is shown of others."""

import io
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sahool_dlq.cli import output
from sahool_dlq.cli.output import cell, print_json, print_table, safe

STEERING = [
    "\x1b[2J",  # clear the screen
    "\x1b]0;title\x07",  # change the window's title
    "\x9b31m",  # colour, in one character
    "a\rb",  # overwrite the line
    "a\bb",
    "\x7f",
    "\u202egnp.exe",  # right to left
    "\u2066x\u2069",
]


def shown(*rows: list[object]) -> str:
    """The output of a table."""
    before, output.console = output.console, Console(file=io.StringIO(), width=120, emoji=False)
    try:
        print_table("title", ["what", "said"], rows)
        return output.console.file.getvalue()
    finally:
        output.console = before


def is_harmless(text: str) -> bool:
    return not any(
        (c < " " and c not in "\n\t")
        or "\x7f" <= c <= "\x9f"
        or "\u202a" <= c <= "\u202e"
        or "\u2066" <= c <= "\u2069"
        for c in text
    )


@pytest.mark.parametrize("text", STEERING)
def test_a_table_shows_control_characters_as_marks(text: str) -> None:
    assert not is_harmless(text)
    assert is_harmless(shown([1, text], [2, "plain"]))
    assert "\ufffd" in shown([1, text])


@pytest.mark.parametrize("text", STEERING)
def test_json_spells_control_characters_out(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"message": text, text: 1})
    printed = capsys.readouterr().out
    assert is_harmless(printed)
    assert json.loads(printed) == {"message": text, text: 1}


@given(st.text(st.characters(), max_size=20))
def test_any_text_is_shown_safely(text: str) -> None:
    assert is_harmless(safe(text))
    safe(text).encode()


def test_json_is_one_line_of_readable_text(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"é": "line\nline", "at": datetime(2026, 3, 1, tzinfo=UTC), "lone": "\ud800"}
    print_json(value)
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert "é" in printed
    printed.encode()
    assert json.loads(printed) == value | {"at": "2026-03-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    "text", ["[bold]x[/bold]", "[link=http://x]y[/link]", "[/]", "[red]", "a\\[b]", "end\\"]
)
def test_markup_is_shown_as_it_is(text: str) -> None:
    assert text in shown([1, text], [2, "[/] after"])


def test_words_between_colons_are_no_emoji() -> None:
    assert not output.console._emoji
    assert not output.errors._emoji
    assert "host:100:7" in shown([1, "host:100:7"])


def test_cells_are_what_people_read() -> None:
    assert cell(None) == "–"
    assert cell(True) == "yes"
    assert cell(1234567) == "1,234,567"
    assert cell(1234.567) == "1,234.57"
    time = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=3)))
    assert cell(time) == "2026-03-01 09:00:00Z"
