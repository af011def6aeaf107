"""Masks secrets and personal data before anything is stored.

Values under sensitive keys go as a whole; elsewhere patterns look for secrets in strings, never at
JSON numbers. A batch goes through Rust first: only cells in which something may hide take the exact
path in Python, the very one that `redact_text` and `redact_json` are.

Left alone: numbers, ids, hosts and paths; `tenant_id`, `field_id` and `farmer_id`, which analyses
need; the ids that the platform made itself.
"""

import hashlib
import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import msgspec
import polars as pl

from pipelines.deadletter import sensitive
from pipelines.deadletter.record import (
    FREE_TEXT_COLUMNS,
    JSON_COLUMNS,
    LONG_TEXT_LIMIT,
    TEXT_LIMITS,
)

__all__ = ["LABEL_COLUMNS", "RedactionRules", "Redactor"]

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

_MARK = re.compile(sensitive.MARK)
_STRING = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"(\s*:\s*)?')
_NESTING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]')
_SCALAR = re.compile(r"[^\s,\]}]+")
_BASE64 = re.compile(r'\s*\{\s*"base64"\s*:\s*"([A-Za-z0-9+/_-]*)=*"\s*\}\s*')
_MAX_NESTING = 8  # JSON within strings within JSON; what is deeper is read as text


class RedactionRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to mask besides the defaults, and what to leave alone."""

    keys: tuple[str, ...] = ()
    """More names of sensitive keys; `farm_pin` also means `farmPin` and `farm-pin`."""
    patterns: dict[str, str] = {}
    """More regular expressions by name; a match is masked as `[redacted:name]`."""
    allow_keys: tuple[str, ...] = ()
    """Names of keys whose values stay as they are, whatever is in them."""


class Redactor:
    """Masks by `rules`; with a `key`, masks carry a keyed hash, so that equal values stay equal.

    Masking is idempotent, and what holds nothing to mask comes back as it was, byte for byte.
    Raises ValueError for a rule that is no regular expression or has no proper name.
    """

    def __init__(self, rules: RedactionRules | None = None, key: bytes | None = None) -> None:
        rules = rules or RedactionRules()
        self._key = hashlib.blake2b(key).digest() if key else None
        self._extra = [(name, _compiled(name, text)) for name, text in rules.patterns.items()]
        self._assignment = sensitive.assignment_pattern(rules.keys)
        self._is_sensitive = lru_cache(10_000)(sensitive.key_test(rules.keys, rules.allow_keys))
        self._needles = sensitive.needles(rules.keys)
        self._is_allowed = sensitive.
        self._prefilters = sensitive.prefilters(rules.keys, list(rules.patterns.values()))

    # Text

    def redact_text(self, text: str) -> str:
        """`text` without secrets; a JSON document is redacted as one."""
        return self._string(text, 0)

    def redact_label(self, text: str) -> str:
        """A short text without secrets; digits stay, since ids look like cards and phones."""
        return self._text(text, has_numbers=False)

    def redact_json(self, json_text: str) -> str:
        """JSON text without secrets; malformed JSON is redacted as text."""
        return self._json(json_text, 0) if _is_json(json_text) else self._text(json_text)

    def redact_base64(self, json_text: str) -> str:
        """`{"base64": "…"}` without the bytes, which nothing can look into."""
        if json_text == (noted := _BASE64.sub(_byte_count, json_text)):
            is_noted = sensitive.BASE64_NOTE.fullmatch(json_text)
            return json_text if is_noted else self.redact_json(json_text)
        return noted

    # Batches

    def redact_frame(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with every column redacted that may hold secrets; columns may be missing."""
        columns = [
            *(self._column(frame, c, "json", self.redact_json) for c in JSON_COLUMNS),
            *(self._column(frame, c, "text", self.redact_text) for c in FREE_TEXT_COLUMNS),
            *(self._column(frame, c, "label", self.redact_label) for c in LABEL_COLUMNS),
        ]
        return frame.with_columns(column for column in columns if column is not None)

    def _column(
        self,
        frame: pl.DataFrame,
        name: str,
        kind: Literal["json", "text", "label"],
        redact: Callable[[str], str],
    ) -> pl.Series | None:
        """The column redacted, or None where nothing in it changes."""
        if name not in frame.columns:
            return None
        column = frame[name]
        changed: dict[int, str] = {}
        if name == "original_data" and "payload_encoding" in frame.columns:
            opaque = (frame["payload_encoding"] == "base64").fill_null(False).arg_true()
            changed = {i: self.redact_base64(t) for i, t in _cells(column, opaque)}
        memory: dict[str, str] = {}
        prefilter = self._prefilters[kind]
        suspects = column.is_not_null() if prefilter is None else column.str.contains(prefilter)
        for i, text in _cells(column, suspects.fill_null(False).arg_true()):
            if i not in changed:
                if text not in memory:
                    memory[text] = redact(text)
                if memory[text] != text:
                    changed[i] = _clamped(memory[text], name)
        if not changed:
            return None
        return column.scatter(list(changed), list(changed.values()))

    # One string

    def _string(self, text: str, depth: int) -> str:
        if depth < _MAX_NESTING and text.lstrip(" \t\r\n")[:1] in ("{", "[") and _is_json(text):
            return self._json(text, depth)
        return self._text(text)

    def _text(self, text: str, *, has_numbers: bool = True) -> str:
        # Python's regular expressions are slow: each waits for a sign that it could match.
        has_sign = "=" in text or ":" in text
        if not has_sign and "@" not in text and len(text) < sensitive.SHORTEST:
            return self._extras(text)
        folded = text.lower()
        if "private key" in folded:
            text = sensitive.PRIVATE_KEY.sub(self._whole("private_key"), text)
        if has_sign:
            if "authorization" in folded:
                text = sensitive.AUTHORIZATION.sub(self._tail("authorization"), text)
            if "cookie" in folded:
                text = sensitive.COOKIE.sub(self._tail("cookie"), text)
            if any(needle in folded for needle in self._needles):
                text = self._assignment.sub(self._assigned, text)
        if "@" in text:
            text = sensitive.URL_LOGIN.sub(self._tail("credentials"), text)
            text = sensitive.NATS_TOKEN.sub(self._tail("credentials"), text)
            text = sensitive.EMAIL.sub(self._whole("email"), text)
        if "eyJ" in text:
            text = sensitive.JWT.sub(self._whole("jwt"), text)
        if any(needle in text for needle in sensitive.VENDOR_NEEDLES):
            text = sensitive.VENDOR_TOKEN.sub(self._whole("token"), text)
        if "bearer" in folded:
            text = sensitive.BEARER.sub(self._tail("authorization"), text)
        if "basic" in folded:
            text = sensitive.BASIC.sub(self._basic, text)
        if has_numbers and sensitive.DIGITS.search(text):
            text = sensitive.LABELLED_PHONE.sub(self._tail("phone"), text)
            text = sensitive.CARD.sub(self._card, text)
            text = sensitive.PHONE.sub(self._whole("phone"), text)
        return self._extras(text)

    def _extras(self, text: str) -> str:
        for name, pattern in self._extra:
            parts = re.split(f"({sensitive.MARK})", text)  # marks stand at the odd places
            parts[::2] = [pattern.sub(self._whole(name), part) for part in parts[::2]]
            text = "".join(parts)
        return text

    def _mask(self, kind: str, value: str) -> str:
        if self._key is None:
            return f"[redacted:{kind}]"
        data = value.encode(errors="surrogatepass")
        digest = hashlib.blake2b(data, key=self._key, digest_size=6).hexdigest()
        return f"[redacted:{kind}:{digest}]"

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
        return self._tail("authorization")(match) if sensitive.is_login(match[2]) else match[0]

    def _card(self, match: re.Match[str]) -> str:
        return self._mask("card", match[0]) if sensitive.is_card(match[0]) else match[0]

    def _assigned(self, match: re.Match[str]) -> str:
        if match["key"] is None:
            return match[0]
        key = sensitive.whole_key(match)
        if not self._is_sensitive(key) or sensitive.is_code(key, match):
            return match[0]
        quote, inner, end = sensitive.unquoted(match["value"])
        if not inner or _MARK.fullmatch(inner):
            return match[0]
        return match["key"] + match["sep"] + quote + self._mask("secret", inner) + end

    # JSON

    def _json(self, text: str, depth: int) -> str:
        """Valid JSON, copied verbatim but for the strings and values that are masked."""
        pieces: list[str] = []
        copied = position = 0
        while match := _STRING.search(text, position):
            position = match.end()
            string = _decoded(match[1])
            if match[2] is None:
                new = self._string(string, depth + 1)
            else:
                new = self._key_text(string)
                is_allowed = self._is_allowed(string)
                if is_allowed or self._is_sensitive(string) or sensitive.is_phone(string):
                    end = _value_end(text, position)
                    value = text[position:end]
                    masked = value if is_allowed else self._value(string, value, depth)
                    if new != string or masked != value:
                        pieces += text[copied : match.start()], _spelled(match[1], string, new)
                        pieces += match[2], masked
                        copied = end
                    position = end
                    continue
            if new != string:
                pieces += text[copied : match.start()], _spelled(match[1], string, new)
                copied = match.end() - len(match[2] or "")
        return "".join([*pieces, text[copied:]]) if pieces else text

    def _value(self, key: str, value: str, depth: int) -> str:
        """The JSON value of a sensitive key, or of one that names phone numbers."""
        content = _decoded(value[1:-1]) if value.startswith('"') else value
        if self._is_sensitive(key):
            return value if _MARK.fullmatch(content) else f'"{self._mask("secret", content)}"'
        if not value.startswith('"'):
            return self._json(value, depth)
        if sensitive.LOCAL_PHONE.fullmatch(content):
            return f'"{self._mask("phone", content)}"'
        return _spelled(value[1:-1], content, self._string(content, depth + 1))


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(raw: str) -> str:
    return str(json.loads(f'"{raw}"', strict=False)) if "\\" in raw else raw


def _spelled(raw: str, old: str, new: str) -> str:
    """The JSON string of `new`; as it was written where nothing changed."""
    return f'"{raw}"' if new == old else json.dumps(new, ensure_ascii="\\u" in raw)


def _value_end(text: str, start: int) -> int:
    """Where the JSON value that begins at `start` ends."""
    if text[start] not in '"[{':
        scalar = _SCALAR.match(text, start)
        return scalar.end() if scalar else start
    depth = 0
    for match in _NESTING.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
    return len(text)


def _byte_count(match: re.Match[str]) -> str:
    return f'{{"base64": "[redacted {len(match[1]) * 3 // 4} bytes]"}}'


def _cells(column: pl.Series, rows: pl.Series) -> list[tuple[int, str]]:
    return [(i, t) for i, t in zip(rows, column.gather(rows), strict=True) if t is not None]


def _clamped(text: str, column: str) -> str:
    """A mask can be longer than what it masks: no more than the column takes."""
    if column not in JSON_COLUMNS:
        return text[: TEXT_LIMITS.get(column, LONG_TEXT_LIMIT)]
    return text if len(text) <= LONG_TEXT_LIMIT else f'"[redacted {len(text)} characters]"'


def _compiled(name: str, pattern: str) -> re.Pattern[str]:
    if not re.fullmatch("[a-z0-9_]{1,40}", name):
        raise ValueError(f"pattern name {name!r}: use up to 40 of a-z, 0-9 and _")
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {name}: {error}") from error
