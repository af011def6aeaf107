"""Rows of Arrow as exact values: for JSON, and as the texts of DuckDB's own shell."""

import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any

import pyarrow as pa

__all__ = ["as_text", "json_rows"]


def json_rows(table: pa.Table) -> Iterator[list[Any]]:
    """Each row as values that JSON has; binary values and intervals are texts."""
    for batch in table.to_batches():
        columns = [column.to_pylist() for column in batch.columns]
        for row in zip(*columns, strict=True):
            yield [_plain(value) for value in row]


def _plain(value: Any) -> Any:
    """The value with nothing in it that JSON has no word for."""
    if isinstance(value, pa.MonthDayNano | bytes):
        return as_text(value)
    if isinstance(value, Decimal) and not value.is_finite():
        return str(value)
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) for item in value):  # a map
            return {str(name): _plain(item) for name, item in value}
        return [_plain(item) for item in value]
    return value


def as_text(value: Any) -> str:
    """A value as DuckDB's own shell shows it."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if isfinite(value) else str(value)
    if isinstance(value, pa.MonthDayNano):
        return _interval(value)
    if isinstance(value, bytes):
        return "".join(f"\\x{byte:02X}" for byte in value)
    if isinstance(value, datetime):
        text = value.isoformat(" ")
        return text.removesuffix(":00") if value.tzinfo else text
    if isinstance(value, dict | list):
        return json.dumps(_plain(value), ensure_ascii=False, default=str)
    return str(value)


def _interval(value: pa.MonthDayNano) -> str:
    years, months = divmod(abs(value.months), 12)
    sign = -1 if value.months < 0 else 1
    counts = {"year": sign * years, "month": sign * months, "day": value.days}
    parts = [f"{n} {unit}{'' if abs(n) == 1 else 's'}" for unit, n in counts.items() if n]
    micros = (
        value.nanoseconds // 1_000 if value.nanoseconds >= 0 else -(-value.nanoseconds // 1_000)
    )
    if micros or not parts:
        seconds, rest = divmod(abs(micros), 1_000_000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        fraction = f".{rest:06}".rstrip("0") if rest else ""
        parts.append(f"{'-' if micros < 0 else ''}{clock}{fraction}")
    return " ".join(parts)
