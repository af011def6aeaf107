"""Masks secrets and personal data before anything is stored.

Values under sensitive keys go as a whole; elsewhere patterns look for secrets in strings, never at
JSON numbers. A batch goes through Rust first: only cells in which something may hide take the exact
path in Python, the very one that `redact_text` and `redact_json` are.

Left alone: numbers, ids, hosts and paths; `tenant_id`, `field_id` and `farmer_id`, which analyses
need; the ids that the platform made itself.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache

import msgspec
import polars as pl

from pipelines.deadletter import json_text
from pipelines.deadletter import secret_patterns as patterns
from pipelines.deadletter.patterns import checked
from pipelines.deadletter.record import (
    FREE_TEXT_COLUMNS,
    JSON_COLUMNS,
    LONG_TEXT_LIMIT,
    TEXT_LIMITS,
)
from pipelines.deadletter.secret_keys import (
    KeyKind,
    assignment_pattern,
    is_code,
    key_kinds,
    key_words,
    name_hint,
)

__all__ = ["LABEL_COLUMNS", "Mark", "RedactionRules", "Redactor"]

LABEL_COLUMNS = (
    "subject",
    "event_id",
    "event_type",
    "original_subject",
    "original_stream",
    "source_service",
    "consumer_service",
    "service",
    "consumer_name",
    "consumer_version",
    "handler",
    "error_type",
    "dlq_reason",
    "traceparent",
)
"""Short texts that producers choose: every pattern but cards and phones, which ids look like."""

_MARK = re.compile(patterns.MARK)
_MASKED = re.compile(rf"(?i:(?:bearer|basic|token|api-?key)[ \t]+)?{patterns.MARK}")
_BASE64 = re.compile(r'\s*\{\s*"base64"\s*:\s*"((?:[A-Za-z0-9+/_-]|\\/)*)=*"\s*\}\s*')
_QUOTED = re.compile(r"""([bruBRU]?\\*["'])(.*?)(\\*["']|)""", re.DOTALL)
_TEXTS = re.compile(  # a JSON string, or an array of nothing else
    r'"|\[(?:\s*+"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+,?+)*+\s*+\]'
)
_NAME_START = re.compile(r"[A-Za-z0-9_.-]*$")
_IS_OPAQUE = pl.col("payload_encoding").eq_missing("base64")
_MAX_NESTING = 8  # JSON within strings within JSON; what is deeper is read as text


Mark = Callable[[str, str, str], str]
"""Kind, masked value and rule to what stands in its place, which must look like `MARK`."""


class RedactionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to mask besides the defaults, and what to leave alone."""

    keys: tuple[str, ...] = ()
    """More names of sensitive keys; `farm_pin` also means `farmPin` and `farm-pin`."""
    patterns: dict[str, str] = {}
    """More regular expressions by name; a match is masked as `[redacted:name]`."""
    allow_keys: tuple[str, ...] = ()
    """Names of keys whose values stay as they are, whatever is in them."""
    allow_columns: tuple[str, ...] = ()
    """Columns of a dead letter that are not looked at."""

    def __post_init__(self) -> None:
        for name, pattern in self.patterns.items():
            if not re.fullmatch("[a-z0-9_]{1,40}", name):
                raise ValueError(f"pattern name {name!r}: use up to 40 of a-z, 0-9 and _")
            try:
                checked(pattern)
            except ValueError as error:
                raise ValueError(f"pattern {name}: {error}") from error
        for key in (*self.keys, *self.allow_keys):
            if not re.search("[A-Za-z]", key):
                raise ValueError(f"key {key!r} has no letter: give the name of a key")
        known = (*JSON_COLUMNS, *FREE_TEXT_COLUMNS, *LABEL_COLUMNS)
        for column in self.allow_columns:
            if column not in known:
                raise ValueError(f"there is no column {column!r}; there are {', '.join(known)}")


class Redactor:
    """Masks by `rules`; with a `key`, masks carry a keyed hash, so that equal values stay equal.

    `mark` decides what masks say instead, for those who want to know what was masked.
    Masking is idempotent, and what holds nothing to mask comes back as it was, byte for byte.
    """

    def __init__(
        self,
        rules: RedactionRules | None = None,
        key: bytes | None = None,
        mark: Mark | None = None,
    ) -> None:
        rules = rules or RedactionRules()
        self._mark = mark or _marks(hashlib.blake2b(key).digest() if key else None)
        self._extra = [(name, re.compile(text)) for name, text in rules.patterns.items()]
        self._allowed = rules.allow_columns
        self._kind = key_kinds(rules.keys, rules.allow_keys)
        self._hint = re.compile(f"{name_hint(rules.keys)}|auth")
        self._assignment = assignment_pattern(rules.keys, patterns.MARK)
        self._prefilters = patterns.prefilters(rules.keys, list(rules.patterns.values()))

    # Text

    def redact_text(self, text: str) -> str:
        """`text` without secrets; a JSON document is redacted as one."""
        return self._string(text, 0)

    def redact_label(self, text: str) -> str:
        """A short text without secrets; digits stay, since ids look like cards and phones."""
        return self._text(text, has_numbers=False)

    def redact_json(self, text: str) -> str:
        """JSON text without secrets; malformed JSON is redacted as text."""
        return self._json(text, 0) if json_text.is_json(text) else self._text(text)

    def redact_base64(self, text: str) -> str:
        """`{"base64": "…"}` without the bytes, which nothing can look into."""
        if content := _BASE64.fullmatch(text):
            size = len(content[1].replace("\\", "")) * 3 // 4
            return f'{{"base64": "[redacted {size} bytes]"}}'
        return self.redact_json(text)

    # Batches

    def redact_frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with every column redacted that may hold secrets; columns may be missing."""
        kinds: dict[str, tuple[str, Callable[[str], str]]] = {
            **dict.fromkeys(JSON_COLUMNS, ("json", self.redact_json)),
            **dict.fromkeys(FREE_TEXT_COLUMNS, ("text", self.redact_text)),
            **dict.fromkeys(LABEL_COLUMNS, ("label", self.redact_label)),
        }
        names = [n for n in kinds if n in frame.columns and n not in self._allowed]
        suspicious = {n: pl.col(n).str.contains(self._prefilters[kinds[n][0]]) for n in names}
        if "original_data" in names and "payload_encoding" in frame.columns:
            frame = self._without_bytes(frame)
            suspicious["original_data"] &= ~_IS_OPAQUE
        suspects = _rows(frame, suspicious)
        columns = [_redacted(frame[n], rows, kinds[n][1]) for n, rows in suspects.items() if rows]
        return frame.with_columns(column for column in columns if column is not None)

    def _without_bytes(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with their size in place of payloads in base64."""
        rows = _rows(frame, {"base64": _IS_OPAQUE})["base64"]
        column = _redacted(frame["original_data"], rows, self.redact_base64) if rows else None
        return frame if column is None else frame.with_columns(column)

    # One string

    def _string(self, text: str, depth: int) -> str:
        if (
            depth < _MAX_NESTING
            and text.lstrip(" \t\r\n")[:1] in ("{", "[")
            and json_text.is_json(text)
        ):
            return self._json(text, depth)
        return self._text(text)

    def _text(self, text: str, *, has_numbers: bool = True) -> str:
        # Python's regular expressions are slow: each waits for a sign that it could match.
        has_sign = "=" in text or ":" in text
        if not has_sign and "@" not in text and len(text) < patterns.SHORTEST:
            return self._extras(text)
        folded = text.lower()
        if "private key" in folded:
            text = patterns.PRIVATE_KEY.sub(self._whole("private_key"), text)
        if has_sign:
            if "authorization" in folded:
                text = patterns.AUTHORIZATION.sub(self._tail("authorization"), text)
            if "cookie" in folded:
                text = patterns.COOKIE.sub(self._tail("cookie"), text)
            if self._hint.search(folded):
                text = self._assignments(text)
        if "@" in text:
            text = patterns.LOGIN.sub(self._tail("credentials"), text)
            text = patterns.EMAIL.sub(self._whole("email"), text)
        if "eyJ" in text:
            text = patterns.JWT.sub(self._whole("jwt"), text)
        if any(needle in text for needle in patterns.VENDOR_NEEDLES):
            text = patterns.VENDOR_TOKEN.sub(self._whole("token"), text)
        if "bearer" in folded:
            text = patterns.BEARER.sub(self._tail("authorization"), text)
        if "basic" in folded:
            text = patterns.BASIC.sub(self._basic, text)
        if has_numbers and patterns.DIGITS.search(text):
            text = patterns.LABELLED_PHONE.sub(self._tail("phone"), text)
            text = patterns.CARD.sub(self._card, text)
            text = patterns.PHONE.sub(self._whole("phone"), text)
        return self._extras(text)

    def _extras(self, text: str) -> str:
        for name, pattern in self._extra:
            parts = re.split(f"({patterns.MARK})", text)  # marks stand at the odd places
            parts[::2] = [pattern.sub(self._whole(name), part) for part in parts[::2]]
            text = "".join(parts)
        return text

    def _assignments(self, text: str) -> str:
        pieces: list[str] = []
        copied = position = 0
        while match := self._assignment.search(text, position):
            position = match.end()
            if match["name"] is None:
                continue
            before = _NAME_START.search(text[max(0, match.start() - 40) : match.start()])
            key = (before[0] if before else "") + match["name"]
            if self._kind(key) != "secret" or is_code(key, match):
                position = match.end("name")  # what follows may be an assignment itself
                continue
            quote, inner, end = _unquoted(match["value"])
            if inner and not _MASKED.fullmatch(inner):
                mask = self._mask("secret", inner, key)
                pieces += text[copied : match.start("value")], quote, mask
                pieces.append(end)
                copied = match.end()
        return "".join([*pieces, text[copied:]])

    def _mask(self, kind: str, value: str, key: str | None = None) -> str:
        return self._mark(kind, value, kind if key is None else f"key {key_words(key)}")

    def _whole(self, kind: str) -> Callable[[re.Match[str]], str]:
        return lambda match: match[0] and self._mask(kind, match[0])

    def _tail(self, kind: str) -> Callable[[re.Match[str]], str]:
        """Masks the last group that matched and keeps what stands before it."""

        def mask(match: re.Match[str]) -> str:
            value = match[match.lastindex or 0]
            before = match[0][: len(match[0]) - len(value)]
            return match[0] if _MARK.match(value) else before + self._mask(kind, value)

        return mask

    def _basic(self, match: re.Match[str]) -> str:
        return self._tail("authorization")(match) if patterns.is_login(match[1]) else match[0]

    def _card(self, match: re.Match[str]) -> str:
        return self._mask("card", match[0]) if patterns.is_card(match[0]) else match[0]

    # JSON

    def _json(self, text: str, depth: int) -> str:
        """Valid JSON, copied verbatim but for the strings and values that are masked."""
        pieces: list[str] = []
        copied = position = 0
        while match := json_text.STRING.search(text, position):
            position = match.end()
            string = json_text.decoded(match[1])
            colon = match[2]
            new = self._string(string, depth + 1) if colon is None else self._text(string)
            if new != string:
                pieces += (
                    text[copied : match.start()],
                    json_text.spelled(match[1], new),
                    colon or "",
                )
                copied = position
            key = _MARK.sub("", new)
            kind = "plain" if colon is None else self._kind(key)
            if kind in ("secret", "allowed") or (kind == "phone" and _TEXTS.match(text, position)):
                position = json_text.value_end(text, match.end())
                value = text[match.end() : position]
                masked = self._value(kind, key, value, depth)
                if masked != value:
                    pieces += text[copied : match.end()], masked
                    copied = position
        return "".join([*pieces, text[copied:]]) if pieces else text

    def _value(self, kind: KeyKind, key: str, value: str, depth: int) -> str:
        """The JSON value of a key that tells something about it."""
        if kind == "allowed":
            return value
        if kind == "phone" and value.startswith("["):
            return json_text.STRING.sub(lambda text: self._value(kind, key, text[0], depth), value)
        content = json_text.decoded(value[1:-1]) if value.startswith('"') else value
        if kind == "secret":
            return value if _MARK.fullmatch(content) else f'"{self._mask("secret", content, key)}"'
        if patterns.LOCAL_PHONE.fullmatch(content):
            return f'"{self._mask("phone", content, key)}"'
        new = self._string(content, depth + 1)
        return value if new == content else json_text.spelled(value[1:-1], new)


def _marks(key: bytes | None) -> Mark:
    def mark(kind: str, value: str, _rule: str) -> str:
        if key is None:
            return f"[redacted:{kind}]"
        data = value.encode(errors="surrogatepass")
        return f"[redacted:{kind}:{hashlib.blake2b(data, key=key, digest_size=6).hexdigest()}]"

    return mark


def _unquoted(value: str) -> tuple[str, str, str]:
    """Opening quote, content and closing quote (or stray backslashes) of an assigned value."""
    if match := _QUOTED.fullmatch(value):
        return match[1], match[2], match[3]
    inner = value.rstrip("\\")
    return "", inner, value[len(inner) :]


def _rows(frame: pl.DataFrame, wanted: Mapping[str, pl.Expr]) -> dict[str, list[int]]:
    """The numbers of the rows for which each expression is true."""
    if not wanted:
        return {}
    found = frame.select(
        is_wanted.fill_null(value=False).arg_true().implode().alias(name)
        for name, is_wanted in wanted.items()
    )
    return found.row(0, named=True)


def _redacted(column: pl.Series, rows: list[int], redact: Callable[[str], str]) -> pl.Series | None:
    """The column redacted in these rows, or None where nothing in it changes."""
    redact = cache(redact)
    changed = {
        row: _clamped(new, column.name)
        for row, text in zip(rows, column.gather(rows), strict=True)
        if text is not None and (new := redact(text)) != text
    }
    return column.scatter(list(changed), list(changed.values())) if changed else None


def _clamped(text: str, column: str) -> str:
    """A mask can be longer than what it masks: no more than the column takes."""
    if column not in JSON_COLUMNS:
        return text[: TEXT_LIMITS.get(column, LONG_TEXT_LIMIT)]
    return text if len(text) <= LONG_TEXT_LIMIT else f'"[redacted {len(text)} characters]"'
