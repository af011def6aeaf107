"""Names that indicate a secret: keys of JSON objects, variables in a trace, query parameters."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

from sahool_dlq.deadletter.redaction.secret_words import (
    ABOUT,
    BEFORE,
    PHONES,
    PHRASE_ENDS,
    SECRETS,
    folded,
)

__all__ = ["KeyKind", "KeyKinds", "key_kinds", "key_words", "phrase_kinds"]

KeyKind = Literal["secret", "phone", "allowed", "plain"]
KeyKinds = Callable[[str], KeyKind]

KEPT_IDS = ("tenant_id", "field_id", "farmer_id")
"""Names of values that analyses need; never masked."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_JOINTS = re.compile(r"[-. '’/:\u00a0]+")
_PHRASE = re.compile(r"(?:[^\W_][\w.'’-]{0,40}[ \u00a0]){1,4}$")


def key_words(key: str) -> str:
    """`apiKey`, `API-Key`, `x.api key` → `api_key`, `api_key`, `x_api_key`."""
    return folded(_JOINTS.sub("_", _CAMEL.sub("_", key)))


def key_kinds(keys: Sequence[str], allow_keys: Sequence[str]) -> KeyKinds:
    """The kind of a value, by its key. Whole words count: `secretary` and `tokenizer` do not."""
    own = "|".join(re.escape(key_words(key)).replace("_", "_*") for key in keys)
    secret = re.compile(rf"(?<![^\W\d_])(?:{own})(?![^\W\d_])|{SECRETS}" if own else SECRETS)
    phone = re.compile(PHONES)
    allowed = frozenset(map(key_words, allow_keys))
    kept = frozenset(KEPT_IDS) - frozenset(map(key_words, keys))

    @lru_cache(10_000)
    def kind(key: str) -> KeyKind:
        name = key_words(key)
        if name in allowed or name in kept:
            return "allowed"
        if name == "auth":
            return "secret"
        for found in secret.finditer(name):
            if not ABOUT.match(name, found.end()) and not BEFORE.search(name[: found.start()]):
                return "secret"
        return "phone" if phone.search(name) else "plain"

    return kind


def phrase_kinds(kind: KeyKinds, keys: Sequence[str]) -> Callable[[str, int, str], str | None]:
    """The kinds of the secret name that ends in `name`, which begins at a position in a text; None
    if there is none.

    Names may contain spaces: `API key`, `mot de passe`, `كلمة المرور`.
    """
    ends = PHRASE_ENDS | {key_words(key).rpartition("_")[2] for key in keys}

    def phrase(text: str, start: int, name: str) -> str | None:
        if kind(name) == "secret":
            return name
        if text[start - 1 : start] not in (" ", "\u00a0") or key_words(name) not in ends:
            return None
        before = _PHRASE.search(text, max(0, start - 80), start)
        words = re.split("[ \u00a0]", before[0]) if before else []
        for count in range(2, len(words) + 1):
            whole = " ".join([*words[-count:-1], name])
            if kind(whole) == "secret":
                return whole
        return None

    return phrase
