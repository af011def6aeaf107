"""The report's sections of rows, and their Markdown and JSON. `page` creates the HTML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

__all__ = [
    "Links",
    "Section",
    "are_amounts",
    "as_markdown",
    "as_markdown_table",
    "cell_text",
    "escaped",
    "seconds_as_text",
]


_AMOUNT = re.compile(r"[+-][\d,]+|[\d,.]+(%|×| (s|min|h|d|MB))")
_NO_NUMBER = ("–", "not reached", "only here", "unknown")  # what stands for one


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether it holds numbers, with their units or without, or nothing."""
        return [are_amounts(values) for values in zip(*self.rows, strict=True)]


@dataclass(frozen=True, slots=True)
class Links:
    """A cell of links: text and address of each. Only Markdown shows them."""

    addresses: tuple[tuple[str, str], ...]


def as_markdown(
    parts: Sequence[Section],
    now: datetime,
    headline: str = "",
    title: str = "Dead letters",
    figures: str = "",
) -> str:
    """The sections as a page in Markdown, below the headline and `figures`.

    These are already Markdown.
    """
    lines = [f"# {title}, {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC", ""]
    lines += [f"**{escaped(headline)}**", ""] if headline else []
    lines += [figures, ""] if figures else []
    for part in parts:
        lines += [f"## {part.title}", ""]
        lines += as_markdown_table(part)
        lines += ["", *([part.note, ""] if part.note else [])]
    return "\n".join(lines)


def as_markdown_table(part: Section) -> list[str]:
    """The lines of a section's table."""
    if not part.rows:
        return ["Nothing."]
    return [
        _row(part.columns),
        _row(["---"] * len(part.columns)),
        *(_row([escaped(value) for value in row]) for row in part.rows),
    ]


def cell_text(value: Any) -> str:
    """One value for people."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return str(value)


def seconds_as_text(seconds: float | None, absent: str = "–") -> str:
    """A duration for people."""
    if seconds is None:
        return absent
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def are_amounts(values: Sequence[Any]) -> bool:
    """Whether these are numbers, with their units or without, or nothing."""
    known = [value for value in values if value is not None and value not in _NO_NUMBER]
    return bool(known) and all(_is_amount(value) for value in known)


def _is_amount(value: Any) -> bool:
    if isinstance(value, str):
        return _AMOUNT.fullmatch(value) is not None
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def escaped(value: Any) -> str:
    """A value as Markdown: nothing in it from a message acts as Markdown or HTML."""
    if isinstance(value, Links):
        return " · ".join(f"[{text}]({address})" for text, address in value.addresses)
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", " ".join(cell_text(value).split()))
