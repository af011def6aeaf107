"""Names that tell a secret: keys of JSON objects, variables in a trace, query parameters."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

__all__ = ["KeyKind", "assignment_pattern", "is_code", "key_kinds", "key_words", "name_hint"]

KeyKind = Literal["secret", "phone", "allowed", "plain"]

_SECRETS = (
    r"[a-z]*passwords?",
    r"passwd|pwd|passphrases?",
    r"[a-z]*secrets?",
    r"(?:access|api|auth|bearer|csrf|id|refresh|session|xsrf)?token",
    r"(?:access|api|auth|bearer|refresh|session)_tokens",
    r"(?:access|account|api|encryption|private|secret|shared|signing|subscription)_*keys?",
    r"authorization|credentials?|creds?|cookies?|session_*ids?",
    r"jwt|nkey|otp|cvv|cvc",
)
# The number, kind or date of a secret is not the secret.
_ABOUT = r"_*(?:counts?|types?|limits?|length|expir[a-z]*|ttl|us(?:ed|age)|polic(?:y|ies))(?![a-z])"
_PHONES = r"(?:tele)?(?:phone|mobile|msisdn|whatsapp)"
_HINTS = (
    "passw|passphrase|pwd|secret|token|cred|cookie|authorization|jwt|nkey|otp|cvv|cvc|"
    "session[-_. ]*id|"
    "(?:access|account|api|encryption|private|shared|signing|subscription)[-_. ]*key"
)
_NO_VALUE = (
    r"(?i:none|null|nil|true|false|undefined|str|string|bytes|int|any|secretstr|bearer|basic|token"
    r"|digest|\*+|\.+|%s|\?)"
)


def key_words(key: str) -> str:
    """`apiKey`, `API-Key`, `x.api key` → `api_key`, `api_key`, `x_api_key`."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key)
    return re.sub(r"[-. ]", "_", split).lower()


def key_kinds(keys: Sequence[str], allow_keys: Sequence[str]) -> Callable[[str], KeyKind]:
    """What a key tells about its value. Whole words only: `secretary`, `tokenizer` tell nothing."""
    secrets = "|".join([*_SECRETS, *(re.escape(key_words(k)).replace("_", "_*") for k in keys)])
    secret = re.compile(rf"(?<![a-z])(?:{secrets})(?![a-z])(?!{_ABOUT})|^auth$")
    phone = re.compile(rf"(?<![a-z]){_PHONES}")
    allowed = frozenset(map(key_words, allow_keys))

    @lru_cache(10_000)
    def kind(key: str) -> KeyKind:
        name = key_words(key)
        if name in allowed:
            return "allowed"
        if secret.search(name):
            return "secret"
        return "phone" if phone.search(name) else "plain"

    return kind


def name_hint(keys: Sequence[str]) -> str:
    """A pattern, good for Rust too, that is found (in any case) in every name of a secret."""
    return "|".join([_HINTS, *(re.escape(key_words(k)).replace("_", "[-_. ]*") for k in keys)])


def assignment_pattern(keys: Sequence[str], mark: str) -> re.Pattern[str]:
    """`password='x'`, `"token": "x"`, `?api_key=x`: groups name (from the hint on), sep, value.

    A mark is matched too, without groups, so that it is stepped over.
    """
    quoted = (
        r'[bruBRU]?(?:\\+"(?:[^"\\\n]|\\(?!"))*\\+"|"(?:[^"\\]|\\.)*"|'
        r"'(?:[^'\\]|\\.)*'|[\"'][^\n]*)"
    )
    nested = r"\[[^\[\]]*\][^\s\"',;&(){}\[\]<>]*|\{[^{}]*\}|\([^()]*\)"
    bare = r"[^\s\"',;&(){}\[\]<>]+(?:\([^()\n]*\))?"
    return re.compile(
        rf"{mark}|(?P<name>(?:{name_hint(keys)})[A-Za-z0-9_.-]{{0,40}}|auth(?![A-Za-z0-9_.-]))"
        r"(?P<sep>\\*[\"']?\]?[ \t]*(?:=>|:=|=|:(?!//))[ \t]*)"
        rf"(?P<value>{quoted}|{nested}|{bare})",
        re.IGNORECASE | re.ASCII,
    )


def is_code(key: str, assignment: re.Match[str]) -> bool:
    """Whether no literal is assigned but a type, a call, a variable of that name, or prose."""
    separator, value = assignment.group("sep", "value")
    if assignment.string[assignment.end() : assignment.end() + 1] in ("(", "["):
        return True  # token = get(f(x)), token: Optional[str]
    if value.endswith(")") and "(" in value[1:]:
        return '"' not in value and "'" not in value  # token = get(x)
    if re.fullmatch(_NO_VALUE, value) or re.fullmatch(rf"(?:\w+\.)*{re.escape(key)}", value):
        return True
    is_prose = separator.rstrip() == ":" and separator != ":" and re.fullmatch("[a-z]+", value)
    return bool(is_prose) and not re.search("pass|pwd|secret|key", key, re.IGNORECASE)
