"""The width that a table of a page needs; on narrower screens each row is a card.

It is estimated from the cells, because a page without script cannot measure: if it is too low, a
table scrolls; if it is too high, it becomes cards. `table.html` contains both forms.
"""

from math import ceil
from typing import Any

from sahool_dlq.analysis.report.section import Section, cell_text
from sahool_dlq.analysis.report.trend import PARTS, Trend

__all__ = ["needed_width"]

_SHORT = 20  # characters that are not wrapped, as in `table.html`
_LETTER, _BOLD, _SMALL, _CODE = 6.2, 7.2, 5.9, 7.25  # mean pixels of a letter
_GAP = 12
_BROKEN = 115  # of a text, or a long id, that is wrapped
_CODES = ("group", "next")


def needed_width(section: Section) -> int:
    """The width in pixels, in tens, at which the section's table is not cut."""
    cells = zip(*section.rows, strict=True)
    columns = enumerate(zip(section.columns, cells, strict=True))
    needed = sum(_column(name, values, nth == 0) + _GAP for nth, (name, values) in columns)
    return 10 * ceil(needed / 10)


def _column(name: str, values: tuple[Any, ...], is_first: bool) -> float:
    head = max(len(word) for word in name.split()) * _SMALL
    return max(head, *(_cell(name, value, _BOLD if is_first else _LETTER) for value in values))


def _cell(name: str, value: Any, letter: float) -> float:
    if isinstance(value, Trend):
        return 4 * PARTS
    text = cell_text(value)
    if name == "failure":
        return _BROKEN
    longest = max((len(word) for word in text.split()), default=0)
    if name in _CODES:
        return max(longest * _CODE, 184 if name == "next" else 0)
    if name in ("state", "alert"):
        return 18 + len(text) * _LETTER
    return letter * len(text) if len(text) <= _SHORT else max(_BROKEN, letter * longest)
