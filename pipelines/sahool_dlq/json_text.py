"""Reports as JSON: the same text from the command, over HTTP and for a language model."""

import json
from dataclasses import asdict, is_dataclass
from datetime import datetime
from decimal import Decimal
from math import inf, isfinite
from typing import Any

from sahool_dlq.deadletter.sanitize import UNPRINTABLE

__all__ = ["json_text"]


def json_text(value: Any) -> str:
    """One line of JSON: a report, by its `as_dict` or its fields.

    NaN and infinities, which JSON has not, are strings. Control characters are escaped.
    """
    text = json.dumps(_plain(value), default=_as_json, ensure_ascii=False, allow_nan=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: Any) -> Any:
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, float) and not isfinite(value):
        return {inf: "Infinity", -inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _as_json(value: object) -> int | float | str:
    if isinstance(value, Decimal):  # DuckDB's sums of integers
        return int(value) if value == value.to_integral_value() else float(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)
