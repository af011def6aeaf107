"""Which columns of a table fit, and how wide they are: pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from rich.cells import cell_len

from sahool_dlq.analysis.report.section import are_amounts
from sahool_dlq.analysis.report.trend import Trend

__all__ = ["GAP", "Column", "fitting", "measure", "widths"]

GAP = 2  # blanks between two columns
_LONGEST_NAME = 40  # longer words, such as a URL, may be broken
_NARROWEST_TEXT = 16
_LONGEST_WORD = 24  # of a text that is kept in one piece


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, with widths in cells of the terminal."""

    index: int
    name: str
    width: int  # of its longest line
    least: int  # narrower than this it would cut a number, a time, an id or a name
    is_number: bool

    @property
    def is_text(self) -> bool:
        """Whether it can be wrapped."""
        return self.least < self.width


def measure(
    names: Sequence[str], rows: Sequence[Sequence[object]], texts: Sequence[Sequence[str]]
) -> list[Column]:
    """The columns of `rows`, which `texts` are the shown cells of."""
    return [
        _column(
            index,
            name,
            [row[index] for row in rows],
            [shown[index].splitlines() for shown in texts],
        )
        for index, name in enumerate(names)
    ]


def _column(
    index: int, name: str, values: Sequence[object], texts: Sequence[Sequence[str]]
) -> Column:
    known = [value for value in values if value is not None]
    is_number = are_amounts(values)
    width = max((cell_len(line) for lines in texts for line in lines), default=0)
    width = max(width, cell_len(name))
    is_whole = is_number or all(_is_whole(value) for value in known)
    words = (cell_len(word) for lines in texts for line in lines for word in line.split())
    longest = min(max(words, default=0), _LONGEST_WORD)
    least = width if is_whole else min(width, max(_NARROWEST_TEXT, cell_len(name), longest))
    return Column(index, name, width, least, is_number)


def _is_whole(value: object) -> bool:
    """Whether it says something else, or nothing, once it is cut."""
    if isinstance(value, int | float | Decimal | date | datetime | time | timedelta | Trend):
        return True
    text = str(value)
    return len(text) <= _LONGEST_NAME and not any(sign.isspace() for sign in text)


def fitting(columns: Sequence[Column], room: int | None, drop: Sequence[str] = ()) -> list[Column]:
    """The columns for which there is room, in their order; all of them where `room` is None.

    Those that `drop` names go first, in its order; then the last ones. The first column stays.
    """
    shown = list(columns)
    if room is None:
        return shown
    names = [name for name in drop if name != columns[0].name] if columns else []
    while len(shown) > 1 and _least(shown) > room:
        going = next(
            (column for name in names for column in shown if column.name == name), shown[-1]
        )
        shown.remove(going)
    return shown


def widths(columns: Sequence[Column], room: int | None) -> list[int]:
    """How wide each column is drawn: what room is left goes to the texts, evenly."""
    if room is None:
        return [column.width for column in columns]
    found = [column.least for column in columns]
    left = room - _least(columns)
    while left > 0 and (wanting := [n for n, c in enumerate(columns) if found[n] < c.width]):
        for n in wanting[:left]:
            found[n] += 1
        left -= len(wanting[:left])
    return found


def _least(columns: Sequence[Column]) -> int:
    return sum(column.least for column in columns) + GAP * (len(columns) - 1)
