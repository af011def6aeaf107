"""A frame as a section: units from its columns' names are shown in the cells."""

import re
from typing import Any

import polars as pl

from sahool_dlq.analysis.report.section import Section, seconds_as_text

__all__ = ["readable_section"]

_COUNTED = re.compile(r"(case|consumer|event|failure|letter|redrive|tenant)_count$")
_SHARES = ("_share", "_rate", "_chance", "share_of_group", "share_of_all")


def readable_section(frame: pl.DataFrame, title: str = "", most_rows: int = 20) -> Section:
    """The first rows, with units from names like `oldest_open_age_seconds` (a duration) or
    `open_count`.
    """
    columns = tuple(_name(column) for column in frame.columns)
    rows = tuple(
        tuple(_cell(column, value) for column, value in row.items())
        for row in frame.head(most_rows).to_dicts()
    )
    note = f"The first {most_rows:,} of {frame.height:,} rows." if frame.height > most_rows else ""
    return Section(title, columns, rows, note)


def _name(column: str) -> str:
    column = _COUNTED.sub(r"\1s", column)
    for ending in ("_seconds", "_count", "_at", "_id"):
        column = column.removesuffix(ending)
    return column.replace("_", " ")


def _cell(column: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no"}.get(value) if value is not None else None
    if column.endswith("_seconds"):
        return seconds_as_text(value)
    if column.endswith(_SHARES) or "_rate_" in column:
        return f"{value:.1%}" if value >= 0.001 or not value else f"{value:.3%}"
    if column.endswith("sequence"):
        return str(value)
    return value
