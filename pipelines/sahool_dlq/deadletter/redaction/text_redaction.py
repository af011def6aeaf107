"""Masks secrets and personal data in a text or a JSON document, only with the standard library.

Values under sensitive keys are masked completely; elsewhere patterns search strings, never JSON
numbers.
"""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sahool_dlq.deadletter.redaction import json_text
from sahool_dlq.deadletter.redaction import patterns as patterns
from sahool_dlq.deadletter.redaction.encoded_secrets import ENCODED, decoded_text, is_login
from sahool_dlq.deadletter.redaction.frame_arguments import arguments
from sahool_dlq.deadletter.redaction.named_secrets import NAMING, NamedSecrets, told_to_programs
from sahool_dlq.deadletter.redaction.personal_data import (
    DIGITS,
    LOCAL_PHONE,
    is_kept,
    latin_digits,
    numbers,
)
from sahool_dlq.deadletter.redaction.secret_names import KeyKind, key_kinds, key_words
from sahool_dlq.deadletter.redaction.secret_pairs import paired_values
from sahool_dlq.deadletter.redaction.secret_values import is_empty, is_prose
from sahool_dlq.deadletter.redaction.token_prefixes import (
    SOLID_NEEDLES,
    VENDOR_NEEDLES,
    VENDOR_TOKEN,
)
from sahool_dlq.deadletter.redaction.vendor_tokens import tokens

__all__ = ["Mark", "TextRedactor"]

_MARK = re.compile(patterns.MARK)
_MASKED = re.compile(rf"(?i:(?:bearer|basic|token|api-?key)[ \t]+)?{patterns.MARK}")
_BASE64 = re.compile(r'\s*\{\s*"base64"\s*:\s*"((?:[A-Za-z0-9+/_-]|\\/)*)=*"\s*\}\s*')
_TEXTS = re.compile(  # a JSON string, or an array of nothing else
    r'"|\[(?:\s*+"[^"\\]*+(?:\\.[^"\\]*+)*+"\s*+,?+)*+\s*+\]'
)
_MAX_NESTING = 8  # JSON within strings within JSON; what is deeper is read as text
_MAX_ROUNDS = 8  # maximum passes over a text; each masks secrets that the previous one revealed
_MAX_KNOWN_KEYS = 10_000
_LONGEST_KNOWN_KEY = 100


Mark = Callable[[str, str, str], str]
"""From kind, masked value and rule to the mask, which must look like `MARK`."""


class TextRedactor:
    """Masks texts; with a `key`, masks contain a keyed hash, so that equal values get equal masks.

    `keys` are more names of secrets, `allow_keys` names whose values are not masked. `mark` decides
    the text of a mask, for callers that want to know what was masked. Masking is idempotent, and a
    text with nothing to mask is returned unchanged, byte by byte.
    """

    def __init__(
        self,
        keys: Sequence[str] = (),
        allow_keys: Sequence[str] = (),
        key: bytes | None = None,
        mark: Mark | None = None,
    ) -> None:
        self._mark = mark or _marks(hashlib.blake2b(key).digest() if key else None)
        self._kind = key_kinds(keys, allow_keys)
        self._secrets = NamedSecrets(self._kind, keys)
        self._is_decoding = False
        self._plain_keys: set[str] = set()

    def redact_text(self, text: str) -> str:
        """`text` without secrets; a JSON document is redacted as one."""
        return self._string(text, 0)

    def redact_label(self, text: str) -> str:
        """A short text without secrets; digits are kept, because ids look like cards and phones."""
        return self._text(text, has_numbers=False)

    def redact_json(self, text: str) -> str:
        """JSON text without secrets; malformed JSON is redacted as text."""
        return self._json(text, 0) if json_text.is_json(text) else self._text(text)

    def redact_base64(self, text: str) -> str:
        """`{"base64": "…"}` without the bytes, because they cannot be searched."""
        if content := _BASE64.fullmatch(text):
            size = len(content[1].replace("\\", "")) * 3 // 4
            return f'{{"base64": "[redacted {size} bytes]"}}'
        return self.redact_json(text)

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
        # A mask separates text that was attached to the secret, and that may now be a secret:
        # repeat.
        for _ in range(_MAX_ROUNDS):
            new = self._round(text, has_numbers=has_numbers)
            if new == text or _MARK.fullmatch(new):
                return new
            text = new
        return text

    def _key(self, text: str) -> str:
        """`_text` of an object's key; few different keys are repeated often."""
        if text in self._plain_keys:
            return text
        new = self._text(text)
        if new == text and len(text) <= _LONGEST_KNOWN_KEY:
            if len(self._plain_keys) == _MAX_KNOWN_KEYS:
                self._plain_keys.clear()
            self._plain_keys.add(text)
        return new

    def _round(self, text: str, *, has_numbers: bool) -> str:
        # Python's regular expressions are slow: each waits for a sign that it could match.
        has_sign = _holds_any(text, "=:@：＝")
        if not has_sign and len(text) < patterns.SHORTEST and text.isascii():
            return self._extras(text)
        folded = text.lower()
        if "private key" in folded:
            text = patterns.PRIVATE_KEY.sub(self._whole("private_key"), text)
        if has_sign:
            if "authorization" in folded:
                text = patterns.AUTHORIZATION.sub(self._tail("authorization"), text)
            if "cookie" in folded:
                text = patterns.COOKIE.sub(self._tail("cookie"), text)
        has_address = "@" in text
        if has_address:
            text = patterns.LOGIN.sub(self._tail("credentials"), text)
            if "(" in text:
                text = patterns.GO_LOGIN.sub(self._whole("credentials"), text)
        if "bearer" in folded:
            text = patterns.BEARER.sub(self._tail("authorization"), text)
        if "basic" in folded:
            text = patterns.BASIC.sub(self._basic, text)
        text = self._named(text)
        text = self._spans(text, ((*span, "arguments") for span in arguments(text)))
        if "/" in text and (has_address or "sql" in folded):
            text = patterns.ORACLE.sub(self._tail("credentials"), text)
        if has_address:
            text = patterns.EMAIL.sub(self._email, text)
        if patterns.LONG_RUN.search(text):
            text = self._tokens(text, has_sign=has_sign)
        if has_numbers and DIGITS.search(text):
            text = self._spans(text, numbers(latin_digits(text)))
        return self._extras(text)

    def _tokens(self, text: str, *, has_sign: bool) -> str:
        if "eyJ" in text:
            text = patterns.JWT.sub(self._whole("jwt"), text)
        if _holds_any(text, SOLID_NEEDLES if text.isalnum() else VENDOR_NEEDLES):
            text = VENDOR_TOKEN.sub(self._whole("token"), text)
        if has_sign:
            text = patterns.SIGNED.sub(self._tail("signature"), text)
        if "$" in text or "{" in text:
            text = patterns.HASHED.sub(self._whole("secret"), text)
        text = self._spans(text, ((*span, "token") for span in tokens(text)))
        return self._encoded(text)

    def _extras(self, text: str) -> str:
        """`text` without the matches of a user's own patterns."""
        return text

    def _named(self, text: str) -> str:
        if text.isascii() and not NAMING.search(text):
            return text
        found = [*self._secrets.find(text), *told_to_programs(text)]
        return self._spans(text, [(*place, "secret", key) for *place, key in found])

    def _encoded(self, text: str) -> str:
        if self._is_decoding or not ENCODED.search(text):
            return text

        def mask(match: re.Match[str]) -> str:
            plain = decoded_text(match[0])
            self._is_decoding = True
            try:
                is_secret = plain is not None and self._string(plain, 0) != plain
            finally:
                self._is_decoding = False
            return self._mask("secret", match[0], "base64") if is_secret else match[0]

        return ENCODED.sub(mask, text)

    def _spans(self, text: str, found: Iterable[tuple[Any, ...]]) -> str:
        """Masks the text between start and end (kind, and the indicating name), except existing
        masks.
        """
        found = sorted(found, key=lambda span: (span[0], -span[1]))
        if not found:
            return text
        pieces: list[str] = []
        copied = 0
        marks = [mark.span() for mark in _MARK.finditer(text)] if "[redacted" in text else []
        for start, end, kind, *key in found:
            value = text[start:end]
            # A mask may be inside a value, but a value must not begin or end inside a mask.
            is_marked = _MASKED.fullmatch(value) or any(
                (number := bisect_left(marks, (place,))) and marks[number - 1][1] > place
                for place in (start, end)
            )
            if start >= copied and start < end and not is_marked:
                pieces += text[copied:start], self._mask(kind, value, *key)
                copied = end
        return "".join([*pieces, text[copied:]]) if pieces else text

    def _mask(self, kind: str, value: str, key: str | None = None) -> str:
        return self._mark(kind, value, kind if key is None else f"key {key_words(key)}")

    def _whole(self, kind: str) -> Callable[[re.Match[str]], str]:
        return lambda match: self._mask(kind, match[0])

    def _tail(self, kind: str) -> Callable[[re.Match[str]], str]:
        """Masks the last matched group and keeps the text before it."""

        def mask(match: re.Match[str]) -> str:
            value = match[match.lastindex or 0]
            before = match[0][: len(match[0]) - len(value)]
            return match[0] if _MARK.match(value) else before + self._mask(kind, value)

        return mask

    def _basic(self, match: re.Match[str]) -> str:
        return self._tail("authorization")(match) if is_login(match[1]) else match[0]

    def _email(self, match: re.Match[str]) -> str:
        return match[0] if is_kept(match.string, match.start()) else self._mask("email", match[0])

    # JSON

    def _json(self, text: str, depth: int) -> str:
        """Valid JSON, copied unchanged except for masked strings and values."""
        pieces: list[str] = []
        copied = position = 0
        has_masked_keys = False
        paired = paired_values(text, self._kind)
        while match := json_text.STRING.search(text, position):
            position = match.end()
            string = json_text.decoded(match[1])
            colon = match[2]
            new = self._string(string, depth + 1) if colon is None else self._key(string)
            if new != string:
                pieces += (
                    text[copied : match.start()],
                    json_text.spelled(match[1], new),
                    colon or "",
                )
                copied = position
                has_masked_keys |= colon is not None
            key = _MARK.sub("", new)
            kind = "plain" if colon is None else self._kind(key)
            if match.end() in paired and kind != "allowed":
                kind, key = "secret", paired[match.end()]
            if kind in ("secret", "allowed") or (kind == "phone" and _TEXTS.match(text, position)):
                position = json_text.value_end(text, match.end())
                value = text[match.end() : position]
                masked = self._value(kind, key, value, depth)
                if masked != value:
                    pieces += text[copied : match.end()], masked
                    copied = position
        redacted = "".join([*pieces, text[copied:]]) if pieces else text
        # Two keys that are addresses get the same mask, and a repeated key has only one value.
        return json_text.numbered(redacted) if has_masked_keys else redacted

    def _value(self, kind: KeyKind, key: str, value: str, depth: int) -> str:
        """The JSON value of a key that indicates something about it."""
        if kind == "allowed":
            return value
        if kind == "phone" and value.startswith("["):
            return json_text.STRING.sub(lambda text: self._value(kind, key, text[0], depth), value)
        content = json_text.decoded(value[1:-1]) if value.startswith('"') else value
        if kind == "secret":
            if is_empty(value) or (" " in content and is_prose(content)):
                return value
            return value if _MARK.fullmatch(content) else f'"{self._mask("secret", content, key)}"'
        if LOCAL_PHONE.fullmatch(content):
            return f'"{self._mask("phone", content, key)}"'
        new = self._string(content, depth + 1)
        return value if new == content else json_text.spelled(value[1:-1], new)


def _holds_any(text: str, needles: Iterable[str]) -> bool:
    return any(map(text.__contains__, needles))


def _marks(key: bytes | None) -> Mark:
    def mark(kind: str, value: str, _rule: str) -> str:
        if key is None:
            return f"[redacted:{kind}]"
        data = value.encode(errors="surrogatepass")
        return f"[redacted:{kind}:{hashlib.blake2b(data, key=key, digest_size=6).hexdigest()}]"

    return mark
