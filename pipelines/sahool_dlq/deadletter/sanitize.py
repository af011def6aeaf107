"""Turns any bytes into text and JSON that Parquet and PostgreSQL both accept.

Done once, at decoding: NUL and lone surrogates become U+FFFD, numbers that a sink cannot store
become strings, times are UTC between 1970 and 2200.
"""

import json
import re
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sahool_dlq.deadletter.body import text_of
from sahool_dlq.deadletter.redaction import json_text

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
MAX_DEPTH = 200
"""Deepest nesting that is stored as JSON; deeper values are stored as text."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# What valid JSON can hold that PostgreSQL's jsonb refuses or a 64-bit reader misreads: escapes of
# NUL and surrogates, integers of 19 digits or more, three-digit exponents. Hashes in strings are
# full of digits, so a number is looked for where one can begin.
SUSPICIOUS = re.compile(
    rb"\\u(?:0000|[dD][89a-fA-F])|(?:^|[\s:,\[])-?(?:\d{19}|\d+(?:\.\d+)?[eE][+-]?\d{3})"
)
_MAY_NEED_MENDING = re.compile(f"{_UNSTORABLE.pattern}|{SUSPICIOUS.pattern.decode()}")
_INT64 = range(-(2**63), 2**63)


STEERING = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]"
"""Control characters, line breaks, direction changes, and characters that cannot be drawn.

For Python and Polars.
"""

LONGEST_NAME = 255
"""Maximum characters of a name for display, charts and labels."""

UNPRINTABLE = re.compile(f"{STEERING[:-1]}\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` for display: terminal control characters and direction changes become U+FFFD."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def readable(text: str, limit: int = LONGEST_NAME) -> str:
    """A name for display: printable, and cut if it is longer than `limit` characters."""
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def clean_text(text: str) -> str:
    """`text` without NUL and lone surrogates."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def without_surrogates(text: str) -> str:
    """`text` without lone surrogates, which no encoding can write."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def parse_time(text: str) -> datetime:
    """An ISO 8601 time as aware UTC; a naive one is read as UTC.

    Raises ValueError if it is not a time, or is outside 1970 to 2200.
    """
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(text) from error
    if not EARLIEST <= time <= LATEST:
        raise ValueError(text)
    return time


def parse_json(data: bytes, mended: set[str] | None = None) -> Any:
    """JSON read as far as possible: NaN, numbers that cannot be stored and deep values become
    strings.

    It reads all that Python's `json.loads` reads in these bytes, or in their decompressed form; of
    a repeated key of an object, the last value. Changes are added to `mended`, as text. Raises
    ValueError if there is no JSON.
    """
    mended = set() if mended is None else mended
    text, _ = text_of(data)
    try:
        return _parsed(text, mended)
    except _TooDeepError:
        pass
    mended.add(f"nesting deeper than {MAX_DEPTH}")
    return _parsed(json_text.shallow(text, MAX_DEPTH), mended)


def _parsed(text: str, mended: set[str]) -> Any:
    def integer(digits: str) -> int | str:
        if len(digits) <= 20 and (number := int(digits)) in _INT64:
            return number
        mended.add("an integer beyond 64 bits")
        return digits

    def fraction(digits: str) -> float | str:
        number = float(digits)
        if abs(number) != float("inf"):
            return number
        mended.add("a number beyond 64 bits")
        return digits

    def constant(name: str) -> str:
        mended.add(name)
        return name

    def last_of_each(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(members)
        if len(found) < len(members):
            mended.add("a key twice")
        return found

    read = partial(json.loads, parse_constant=constant, object_pairs_hook=last_of_each)
    try:
        if text.count("[") + text.count("{") <= MAX_DEPTH and not _MAY_NEED_MENDING.search(text):
            return read(text)
        value = read(text, parse_int=integer, parse_float=fraction)
        return _clean(value, 0, mended)
    except RecursionError as error:
        raise _TooDeepError(f"nested deeper than {MAX_DEPTH}") from error


def storable_json(data: bytes, mended: set[str] | None = None) -> str:
    """JSON text for a JSON column: unchanged if every sink accepts it, else corrected.

    `data` must be JSON. Raises ValueError if it is not UTF-8.
    """
    mended = set() if mended is None else mended
    value = parse_json(data, mended)
    return dump_json(value) if mended else data.decode()


def dump_json(value: Any) -> str:
    """Compact JSON text of a parsed value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def kind_of(value: Any) -> str:
    """The kind of a parsed JSON value, as text."""
    names = {str: "a string", list: "an array", dict: "an object", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


def raw_data(data: bytes, limit: int) -> str:
    """JSON text for bytes that are not JSON: inexact, at most `limit` characters of them."""
    return dump_json({"raw_data": clean_text(data.decode(errors="replace")[:limit])})


class _TooDeepError(ValueError):
    """A document is nested too deeply to be stored or parsed."""


def _clean(value: Any, depth: int, mended: set[str]) -> Any:
    if isinstance(value, str):
        text = clean_text(value)
        if text != value:
            mended.add("NUL or a lone surrogate")
        return text
    if depth > MAX_DEPTH:
        raise _TooDeepError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, list):
        return [_clean(item, depth + 1, mended) for item in value]
    if isinstance(value, dict):
        return {
            _clean(key, depth, mended): _clean(item, depth + 1, mended)
            for key, item in value.items()
        }
    return value
