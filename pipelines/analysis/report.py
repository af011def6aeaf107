"""The report: sections of rows, and their forms as Markdown and JSON. `page` makes the HTML."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipelines.analysis.trends import Trend

__all__ = ["Section", "as_json", "as_markdown", "cell_text", "seconds_as_text"]


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether it holds numbers, or nothing."""
        return [
            all(isinstance(value, int | float | None) for value in values)
            and any(value is not None for value in values)
            for values in zip(*self.rows, strict=True)
        ]


def as_markdown(parts: Sequence[Section], now: datetime) -> str:
    """The sections as a page in Markdown."""
    lines = [f"# Dead letters, {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        if part.rows:
            lines += [
                _row(part.columns),
                _row(["---"] * len(part.columns)),
                *(_row([_escaped(value) for value in row]) for row in part.rows),
            ]
        else:
            lines.append("Nothing.")
        lines += ["", *([part.note, ""] if part.note else [])]
    return "\n".join(lines)


def as_json(parts: Sequence[Section]) -> dict[str, list[dict[str, Any]]]:
    """The sections as lists of objects, by title."""

    def plain(value: Any) -> Any:
        return list(value.counts) if isinstance(value, Trend) else value

    return {
        part.title: [dict(zip(part.columns, map(plain, row), strict=True)) for row in part.rows]
        for part in parts
    }


def cell_text(value: Any) -> str:
    """One value as people read it."""
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
    """A duration as people say it."""
    if seconds is None:
        return absent
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(value: Any) -> str:
    # Values come from messages: nothing of them may act as Markdown or HTML.
    return re.sub(r"([\\`*_\[\]<>|&#])", r"\\\1", " ".join(cell_text(value).split()))
