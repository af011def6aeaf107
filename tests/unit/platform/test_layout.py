"""Tables on a terminal: whole columns are left out, in a fixed order, and no number is cut."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from sahool_dlq.cli import output
from sahool_dlq.cli.layout import GAP, fitting, measure

NAMES = ["group", "open", "at", "what"]
ROWS = [
    ["1f0c22aa9be31d70", 1_234_567, datetime(2026, 3, 1, 9, 30, tzinfo=UTC), "no tile " * 12],
    ["9be31d701f0c22aa", 5, datetime(2026, 3, 2, 9, 30, tzinfo=UTC), "slow"],
]


def printed(monkeypatch: pytest.MonkeyPatch, width: int | None, drop: list[str]) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width or 20, force_terminal=bool(width), color_system=None)
    monkeypatch.setattr(output, "console", console)
    output.print_table("", NAMES, ROWS, drop=drop)
    return file.getvalue()


def columns(width: int, drop: list[str]) -> list[str]:
    texts = [[output.cell(value) for value in row] for row in ROWS]
    return [each.name for each in fitting(measure(NAMES, ROWS, texts), width, drop)]


def test_columns_go_in_the_stated_order_then_from_the_right_and_the_first_stays() -> None:
    assert columns(200, ["at"]) == NAMES
    assert columns(60, ["at", "open"]) == ["group", "open", "what"]
    assert columns(40, ["at", "open"]) == ["group", "what"]
    assert columns(40, []) == ["group", "open"]
    assert columns(3, ["group"]) == ["group"]


def test_numbers_with_units_stand_right_and_are_never_wrapped() -> None:
    rows = [["a", "1.5 min", "90%", "+12"], ["b", "not reached", "–", "no change"]]
    found = measure(["what", "median", "share", "said"], rows, rows)
    assert [column.is_number for column in found] == [False, True, True, False]
    assert [column.is_text for column in found] == [False] * 4


@pytest.mark.parametrize("width", range(20, 140, 7))
def test_no_line_is_too_long_and_what_is_shown_of_a_number_is_all_of_it(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    text = printed(monkeypatch, width, ["at"])
    assert max(len(line) for line in text.splitlines()) <= width
    names = text.splitlines()[0].split()
    assert ("1,234,567" in text) == ("open" in names)
    assert ("2026-03-01 09:30:00Z" in text) == ("at" in names)
    assert ("…" in text) is False
    left_out = [name for name in NAMES if name not in names]
    said = " ".join(text.split())
    assert ("do not fit" in said) == bool(left_out)
    assert not left_out or f"that do not fit: {', '.join(left_out)}." in said


def test_a_pipe_gets_every_column_and_every_word(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, None, ["at"])
    assert text.splitlines()[0].split() == NAMES
    assert ("no tile " * 12).strip() in text
    assert len(text.splitlines()) == 4
    assert GAP == 2
