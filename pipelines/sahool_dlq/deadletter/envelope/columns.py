"""Many dead letters at once: the results of `decode` as columns, at a fraction of the cost.

A valid message is decoded by type and never becomes a `DeadLetter`; messages that need more checks
are found by column, in Rust. All others (another envelope, a failed redrive, a text to cut or
change) take the exact path.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import polars as pl
from msgspec.structs import astuple

from sahool_dlq.deadletter.decoding.cloud_events import BINARY_DATA
from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.envelope.exact import BUILT_IN, Canonical, decode
from sahool_dlq.deadletter.envelope.tolerant import (
    ENCODINGS,
    ORIGIN,
    TIMES,
    identity,
)
from sahool_dlq.deadletter.headers import MARKS, MutableHeaders, headers_of_json
from sahool_dlq.deadletter.message import MOST_AHEAD, LogMessage
from sahool_dlq.deadletter.record import (
    CANONICAL_KEYS,
    JSON_COLUMNS,
    LIMITS,
    LONG_TEXT_LIMIT,
    REQUIRED_KEYS,
)
from sahool_dlq.deadletter.rows import LETTER_SCHEMA, frame_of
from sahool_dlq.deadletter.sanitize import (
    EARLIEST,
    LATEST,
    MAX_DEPTH,
    SUSPICIOUS,
    clean_text,
)

__all__ = ["decode_all"]


def _in_range(name: str) -> Any:
    """A number for `msgspec.defstruct`, with the range of its column."""
    number = Annotated[int, msgspec.Meta(ge=0, le=CANONICAL_KEYS[name].column.limit)]
    return (name, number) if name in REQUIRED_KEYS else (name, number | None, None)


# The canonical envelope with its numbers in range, neither of a redrive nor imported.
_Plain = msgspec.defstruct(
    "_Plain",
    [
        ("original_headers", MutableHeaders),
        *map(_in_range, [n for n, f in CANONICAL_KEYS.items() if f.kind is int and f.column.limit]),
        *((name, None, None) for name in ("redrive_id", "redrive_of", "redrive_attempt")),
        *((name, None, None) for name in ("imported_from", "import_error")),
    ],
    bases=(Canonical,),
    gc=False,
    kw_only=True,
)
_decode_plain = msgspec.json.Decoder(_Plain).decode
_NUL = r"\u0000"  # the only character that JSON can contain and no sink accepts
_VERBATIM = ("original_data", "attempts")
_STRING_OR_KEY = r'"[^"\\]*(?:\\.[^"\\]*)*"\s*:?'
_STRINGS = re.compile(_STRING_OR_KEY).findall
_OWN_ATTEMPTS = (  # as our library writes them: each key of an attempt once
    r'^\[(?:\{"at":\s?"[^"\\]*",\s?"error_type":\s?"[^"\\]*",'
    r'\s?"error_message":\s?"[^"\\]*(?:\\.[^"\\]*)*"\}(?:,\s?)?)*\]$'
)
_NAMES = _Plain.__struct_fields__
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EARLIEST, _LATEST = ((limit - _EPOCH) // _MICROSECOND for limit in (EARLIEST, LATEST))


def decode_all(
    messages: Sequence[LogMessage], epoch: str, dlq_stream: str, decoders: Decoders = BUILT_IN
) -> pl.DataFrame:
    """A row of `LETTER_SCHEMA` for each message of `dlq_stream`, in their order; never raises."""
    typed = [_plain(m.data) for m in messages]
    plain = [m for m, row in zip(messages, typed, strict=True) if row]
    columns = _columns(plain, [row for row in typed if row], dlq_stream)
    columns = columns.with_columns(epoch=pl.lit(epoch))
    is_odd = columns.select(_is_odd()).to_series().fill_null(value=True)
    for name in _VERBATIM:
        is_odd |= _has_a_key_twice(columns[name])
    frame = columns.filter(~is_odd).select(
        pl.col(name).cast(dtype) if name in columns.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in LETTER_SCHEMA.items()
    )
    if frame.height == len(messages):
        return frame
    read = set(frame["dlq_sequence"])
    letters = [decode(m, epoch, dlq_stream, decoders) for m in messages if m.sequence not in read]
    return pl.concat([frame, frame_of(letters, LETTER_SCHEMA)]).sort("dlq_sequence")


def _plain(data: bytes) -> tuple[Any, ...] | None:
    """The typed envelope's fields, or None if the message needs the exact path."""
    try:
        return astuple(_decode_plain(data))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _columns(
    plain: Sequence[LogMessage], rows: Sequence[tuple[Any, ...]], dlq_stream: str
) -> pl.DataFrame:
    """The values of the log and the typed envelopes, by column."""
    if not plain:
        return pl.DataFrame(schema=LETTER_SCHEMA)
    fields = dict(zip(_NAMES, zip(*rows, strict=True), strict=True))
    log = dict(zip(LogMessage._fields, zip(*plain, strict=True), strict=True))
    subjects = {subject: clean_text(subject) for subject in set(log["subject"])}
    columns: dict[str, tuple[Iterable[Any], pl.DataType]] = {
        name: (fields[name], dtype) for name, dtype in LETTER_SCHEMA.items() if name in fields
    }
    columns |= {
        "dlq_sequence": (log["sequence"], pl.Int64()),
        "published_at": (log["timestamp_ns"], pl.Int64()),
        "subject": (map(subjects.__getitem__, log["subject"]), pl.String()),
        "size_bytes": (map(len, log["data"]), pl.Int64()),
        "failure_id": (_identities(plain, fields, dlq_stream), pl.String()),
        "original_published_at": (fields["original_timestamp_ns"], pl.Int64()),
        "original_headers": (map(_headers, fields["original_headers"]), pl.Binary()),
        "original_data": (map(_verbatim, fields["original_data"]), pl.String()),
        "attempts": (map(_attempts, fields["attempts"]), pl.String()),
        **{name: (map(_microseconds, fields[name]), pl.Int64()) for name in TIMES},
    }
    frame = pl.DataFrame(
        [pl.Series(name, list(values), dtype) for name, (values, dtype) in columns.items()]
    )
    service = pl.coalesce(
        pl.when(pl.col(name) != "").then(name) for name in ("consumer_service", "source_service")
    )
    return frame.with_columns(
        pl.col("original_headers").cast(pl.String),
        pl.col("published_at", "original_published_at") // 1000,  # from nanoseconds
        service=service.fill_null("unknown"),
        envelope=pl.lit("canonical"),
    )


def _is_odd() -> pl.Expr:
    """Whether a row has values to cut, change, decode or refuse, or may be of a redrive."""
    suspicious = SUSPICIOUS.pattern.decode()
    return pl.any_horizontal(
        pl.col("original_headers").str.contains(f"(?i){MARKS[0]}"),
        pl.col("subject").str.contains(r"\.dlq\.[^.]*\.[^.]*$"),  # of one service
        *(pl.col(name).str.len_chars() > limit for name, limit in LIMITS.items()),
        *(pl.col(name).str.len_chars() > LONG_TEXT_LIMIT for name in JSON_COLUMNS),
        *(pl.col(name).str.contains("\0", literal=True) for name in LIMITS),
        pl.col("original_headers").str.contains(_NUL, literal=True),
        *(pl.col(name).str.contains(suspicious) for name in _VERBATIM),
        *(pl.col(name).str.count_matches(r"[\[{]") > MAX_DEPTH for name in _VERBATIM),
        *(~pl.col(name).is_between(_EARLIEST, _LATEST).fill_null(value=False) for name in TIMES),
        *(pl.col(name) - pl.col("published_at") > MOST_AHEAD // _MICROSECOND for name in TIMES),
        ~pl.col("payload_encoding").is_in([e for e in ENCODINGS if e != "base64"]),
        pl.col("original_data").str.contains(BINARY_DATA, literal=True),
    ).fill_null(value=False)


def _identities(
    plain: Sequence[LogMessage], fields: Mapping[str, Sequence[Any]], dlq_stream: str
) -> Iterator[str]:
    origins = zip(*(fields[name] for name in ORIGIN), strict=True)
    for message, claimed, origin in zip(plain, fields["failure_id"], origins, strict=True):
        yield identity(message, dlq_stream, claimed, origin)


def _verbatim(raw: msgspec.Raw) -> str:
    """JSON as it was sent; text that is not UTF-8 becomes text that `_is_odd` finds."""
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError:
        return _NUL


def _headers(headers: MutableHeaders) -> bytes:
    text = msgspec.json.encode(headers)
    return msgspec.json.encode(headers_of_json(headers)) if b"[" in text else text


def _has_a_key_twice(texts: pl.Series) -> pl.Series:
    """Whether an object in each of these JSON texts may have a key twice.

    It is decided in Rust if all keys of a text differ, which is common.
    """
    key = pl.col("key")
    suspects = (
        texts.alias("key")
        .to_frame()
        .with_row_index("row")
        .filter(~key.str.contains(_OWN_ATTEMPTS))
        .with_columns(key.str.extract_all(_STRING_OR_KEY))
        .explode("key")
        .filter(key.str.ends_with(":"))
        .group_by("row")
        .agg(
            is_one=(key.n_unique() < pl.len())
            | (key.str.contains("\\", literal=True) | ~key.str.ends_with('":')).any(),
        )
        .filter("is_one")["row"]
    )
    found = [row for row in suspects if _may_lose_a_key(texts[row])]
    return pl.Series([False]).new_from_index(0, len(texts)).scatter(found, values=True)


def _may_lose_a_key(text: str) -> bool:
    """Whether a JSON text has fewer strings once it is decoded, which keeps one of equal keys."""
    try:
        written = msgspec.json.encode(msgspec.json.decode(text))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return True
    if "\\" in text:  # quotes may be escaped, also in other ways than they were
        return len(_STRINGS(written.decode())) != len(_STRINGS(text))
    return written.count(b'"') != text.count('"')


def _attempts(raw: msgspec.Raw) -> str | None:
    text = _verbatim(raw)
    return None if text in ("", "null") else text


def _microseconds(text: str) -> int | None:
    """An ISO 8601 time as `parse_time` reads it, in microseconds since 1970."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND
