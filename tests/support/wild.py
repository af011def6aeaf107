"""Messages on the log that none of our services would send (hypothesis)."""

import base64
import gzip
import json
from datetime import timedelta, timezone
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

CANONICAL: dict[str, Any] = {
    "event_id": "e1",
    "original_subject": "sahool.analysis.ndvi_computed",
    "event_type": "ndvi_computed",
    "source_service": "satellite",
    "tenant_id": "t1",
    "field_id": "f1",
    "farmer_id": None,
    "error_message": "boom",
    "error_type": "ValueError",
    "stack_trace": None,
    "retry_count": 3,
    "max_retries": 3,
    "first_attempt_at": "2026-03-01T09:59:00Z",
    "last_attempt_at": "2026-03-01T12:59:30+03:00",
    "dlq_timestamp": "2026-03-01T09:59:40.5",
    "original_data": {"ndvi": 0.51},
    "original_headers": {"Trace": "e1"},
    "dlq_reason": "max_retries_exceeded",
    "attempts": [],
    "original_stream": None,
    "original_sequence": None,
    "original_timestamp_ns": None,
    "consumer_name": None,
    "failure_id": None,
    "payload_encoding": "json",
    "redrive_of": None,
    "redrive_id": None,
    "redrive_attempt": None,
}
"""A dead letter as it should be; all that follows spoils it."""

NEWS = {"failure_id": "x", "at": "2026-03-01T09:59:00Z", "actor": "ann", "reason": "why"}
"""A case event, likewise."""

TIMES = st.one_of(
    st.datetimes().map(lambda at: at.isoformat()),
    st.datetimes(
        timezones=st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
    ).map(lambda at: at.isoformat()),
    st.sampled_from(
        [
            *("0000-01-01T00:00:00Z", "0001-01-01", "1066-10-14", "1969-12-31T23:59:59.999999Z"),
            *("2199-12-31T23:59:59Z", "2200-01-01", "9999-12-31T23:59:59-14:00", "soon", ""),
            *("2026-02-30", "2026-W09-1", "20260301T095900Z", "2026-03-01T24:00:00", "-1"),
            *(1772359200, -1, 1e300, None, True),
        ]
    ),
).map(lambda at: json.dumps(at).encode())
"""Naive, aware, ancient, far off, no time at all; as JSON."""

NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([4111111111111111, 4915112345678, 10**30, -(2**63), 2**63, 2**64, 1.1, 1e22]),
).map(lambda number: json.dumps(number).encode()) | st.sampled_from(
    [b"1e999", b"-1.25E+400", b"1e-99999", b"0.10", b"-0", b"-0.0", b"1E5", b"9" * 5_000, b"NaN"]
)
STRINGS = st.one_of(
    st.text(max_size=12).map(lambda text: json.dumps(text).encode()),
    st.sampled_from(
        [
            *(rb'"\ud800"', rb'"\udc00\ud800"', rb'"\u0000"', rb'"\\u0000"', rb'"\\\u0000"'),
            *(b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"\x01"', b'"open'),
            *(b'"ali@example.com"', b'"4111 1111 1111 1111"', b'"password=x"', b'"' + b"x" * 9_000),
            '"\U0001f33e حقل"'.encode(),
        ]
    ),
)
HARMLESS_KEYS = st.sampled_from([b'"a"', b'"price"', b'"note"', b'"field"', '"é"'.encode()])
KEYS = HARMLESS_KEYS | st.sampled_from([b'"password"', b'"api_key"']) | STRINGS


def documents(
    leaves: st.SearchStrategy[bytes], keys: st.SearchStrategy[bytes]
) -> st.SearchStrategy[bytes]:
    """Lists and objects of these values, sometimes with a duplicate key."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: b"[" + b",".join(items) + b"]")
            | st.lists(st.tuples(keys, inner).map(b":".join), max_size=3).map(
                lambda pairs: b"{" + b", ".join(pairs) + b"}"
            )
        ),
        max_leaves=6,
    )


_WORDS = st.sampled_from([b"null", b"true", b"false", b"None", b"", b"{}", b"[]"])
_DEEP = st.sampled_from([100, 257, 600, 20_000]).map(lambda n: b"[" * n + b"]" * n)
VALUES = documents(_WORDS | NUMBERS | STRINGS | TIMES, KEYS) | _DEEP
HEADERS = st.lists(
    st.tuples(
        KEYS | st.sampled_from([b'"Dlq-Redrive-Of"', b'"dlq-redrive-of"', b'"Nats-Msg-Id"']),
        STRINGS | st.lists(STRINGS).map(lambda values: b"[" + b",".join(values) + b"]") | VALUES,
    ),
    max_size=3,
).map(lambda pairs: b"{" + b", ".join(b": ".join(pair) for pair in pairs) + b"}")
_TIMES_OF_A_LETTER = ("first_attempt_at", "last_attempt_at", "dlq_timestamp", "at")


def _spoiled(fields: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """The object with some keys missing, doubled, or with wild values; maybe bytes changed."""

    def value_of(name: str) -> st.SearchStrategy[tuple[bytes, bytes]]:
        wild = VALUES
        if name in _TIMES_OF_A_LETTER:
            wild = TIMES | VALUES
        elif name == "original_headers":
            wild = HEADERS | VALUES
        return wild.map(lambda value: (json.dumps(name).encode(), value))

    def whole(missing: set[str], wild: list[tuple[bytes, bytes]], replaces: bool) -> bytes:
        changed = {name for name, _ in wild} if replaces else set()
        encoded = {name: json.dumps(name).encode() for name in fields}
        kept = [
            (encoded[name], json.dumps(value).encode())
            for name, value in fields.items()
            if name not in missing and encoded[name] not in changed
        ]
        return b"{" + b", ".join(b": ".join(pair) for pair in [*kept, *wild]) + b"}"

    names = st.sampled_from(sorted(fields))
    return st.builds(
        whole,
        st.sets(names, max_size=1),
        st.lists(names.flatmap(value_of), max_size=3),
        st.booleans(),
    ).flatmap(_perhaps_cut)


def _perhaps_cut(body: bytes) -> st.SearchStrategy[bytes]:
    def edit(start: int, length: int, new: bytes) -> bytes:
        return body[:start] + new + body[start + length :]

    places = st.integers(0, len(body))
    edited = st.builds(edit, places, st.integers(0, 3), st.binary(max_size=3))
    return st.integers(0, 4).flatmap(lambda dice: edited if dice == 0 else st.just(body))


_OF_OLDER_SERVICES = st.tuples(VALUES, VALUES).map(
    lambda pair: b'{"metadata": %b, "original_message": %b}' % pair
)
_CHARSETS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")


def _encoded(text: bytes, charset: str, is_gzip: bool, is_cut: bool) -> bytes:
    data = text.decode(errors="surrogateescape").encode(charset, "surrogatepass")
    data = gzip.compress(data, mtime=0) if is_gzip else data
    return data[:-1] if is_cut else data


def encoded(texts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """UTF-8 texts in every encoding and compression that a handler may read, or one truncated."""
    flags = st.booleans(), st.sampled_from([False] * 4 + [True])
    return st.builds(_encoded, texts, st.sampled_from(_CHARSETS), *flags)


_AROUND_BYTES = (encoded(VALUES | _spoiled({"tenant_id": "t2"})) | st.binary(max_size=30)).map(
    lambda body: json.dumps(
        CANONICAL
        | {
            "tenant_id": None,
            "payload_encoding": "base64",
            "original_data": {"base64": base64.b64encode(body).decode()},
        }
    ).encode()
)
LETTERS = st.one_of(
    _spoiled(CANONICAL),
    _spoiled(CANONICAL),
    _OF_OLDER_SERVICES,
    VALUES,
    st.binary(max_size=60),
    _AROUND_BYTES,
    encoded(_spoiled(CANONICAL)),
)
"""Bodies on the subjects of dead letters."""

CASE_EVENTS = _spoiled(NEWS) | VALUES | st.binary(max_size=60)
"""Bodies on the subjects of case events."""

_LINES = st.one_of(
    st.sampled_from(
        [
            *(b"Status: 404", b"Status: 100", b"Trace: x", b"Trace: y", b"no colon"),
            *("Grüße: Äcker".encode(), b"\xff\xfe: \x80", b": empty", b"Dlq-Redrive-Of: x"),
        ]
    ),
    st.binary(max_size=8).filter(lambda line: b"\r" not in line and b"\n" not in line),
)
HEADER_BLOCKS = st.none() | st.builds(
    lambda first, lines: b"\r\n".join([first, *lines]) + b"\r\n\r\n",
    st.sampled_from([b"NATS/1.0"] * 8 + [b"NATS/1.0 503 x", b"XX", b"NATS/1.0 \xff"]),
    st.lists(_LINES, max_size=3),
)
"""The header block of a NATS message, as bytes: missing, wrong, repeated, non-ASCII."""


def some(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """This number of examples of a strategy; always the same ones."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found
