"""Text, numbers and times that both PostgreSQL and Parquet can store."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahool_dlq.deadletter.sanitize import (
    EARLIEST,
    LATEST,
    MAX_DEPTH,
    clean_text,
    dump_json,
    parse_json,
    parse_time,
    raw_data,
    storable_json,
)


@given(st.text())
def test_clean_text_changes_nothing_but_nul_and_lone_surrogates(text: str) -> None:
    clean = clean_text(text)
    assert len(clean) == len(text)
    for before, after in zip(text, clean, strict=True):
        is_bad = before == "\0" or "\ud800" <= before <= "\udfff"
        assert after == ("\ufffd" if is_bad else before)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01T10:00:00+03:00", datetime(2026, 3, 1, 7, tzinfo=UTC)),
        ("2026-03-01T10:00:00.123456789Z", datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2026-03-01 10:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", EARLIEST),
        ("2200-01-01", LATEST),
    ],
)
def test_times_are_read_as_utc(text: str, time: datetime) -> None:
    assert parse_time(text) == time
    assert parse_time(text).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "0000-01-01", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
        *("1969-12-31T23:59:59Z", "2200-01-01T00:00:01Z", "2026-02-30", "\0", "\ud800" * 10),
    ],
)
def test_what_is_no_time_between_1970_and_2200_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


@pytest.mark.parametrize(
    ("data", "value", "mended"),
    [
        (b'{"a": [1, -2.5, null, true]}', {"a": [1, -2.5, None, True]}, set()),
        (b'{"a": 1, "b": {"c": 1, "c": [2]}, "a": 3}', {"a": 3, "b": {"c": [2]}}, {"a key twice"}),
        (b'[{"a": 1}, {"a": {"a": 2}}]', [{"a": 1}, {"a": {"a": 2}}], set()),
        (b"[NaN, Infinity]", ["NaN", "Infinity"], {"NaN", "Infinity"}),
        (b"9223372036854775807", 2**63 - 1, set()),
        (b"9223372036854775808", "9223372036854775808", {"an integer beyond 64 bits"}),
        (b"-9223372036854775808", -(2**63), set()),
        (b"1e309", "1e309", {"a number beyond 64 bits"}),
        (b'"\\u0000"', "\ufffd", {"NUL or a lone surrogate"}),
        (b'{"\\udc00": "\\ud83d\\ude00"}', {"\ufffd": "😀"}, {"NUL or a lone surrogate"}),
    ],
)
def test_json_is_repaired_and_says_what(data: bytes, value: Any, mended: set[str]) -> None:
    found: set[str] = set()
    assert parse_json(data, found) == value
    assert found == mended


def test_ten_thousand_digits_come_as_text() -> None:
    assert parse_json(b"9" * 10_000) == "9" * 10_000


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"\xef\xbb\xbf\xef\xbb\xbf1", b"1 2", b'"\n"', b"'a'"]
)
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(data)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 2, 5_000, 200_000])
def test_what_is_nested_too_deeply_is_kept_as_its_text(levels: int) -> None:
    deep = b"[" * levels + b"]" * levels
    for read in (parse_json, lambda data: json.loads(storable_json(data))):
        kept = read(deep)
        for _ in range(MAX_DEPTH):
            [kept] = kept
        assert kept == deep.decode()[MAX_DEPTH : levels * 2 - MAX_DEPTH]
    with pytest.raises(ValueError):
        parse_json(b"[" * levels)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_storable_json_is_verbatim_or_says_what_was_repaired(value: Any) -> None:
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError:
        return
    mended: set[str] = set()
    stored = storable_json(text.encode(), mended)
    assert (stored == text) == (not mended)
    json.loads(stored)
    assert "\\u0000" not in stored.replace("\\\\", "")


def test_storable_json_keeps_escapes_that_are_harmless() -> None:
    text = '{"a": 1.10, "b": "\\ud83d\\ude00 \\\\u0000", "c": 1e250}'
    assert storable_json(text.encode()) == text


def test_dump_json_is_compact_and_readable() -> None:
    assert dump_json({"a": ["é", 1]}) == '{"a":["é",1]}'


def test_raw_data_is_valid_json_of_at_most_so_many_characters() -> None:
    assert json.loads(raw_data(b'"\0\xff\x1b' * 100, 5)) == {"raw_data": '"\ufffd\ufffd\x1b"'}
