"""Decides whether a secret follows its name, or only code, a placeholder or a remark."""

import re

from sahool_dlq.deadletter.redaction.secret_names import KeyKinds

__all__ = [
    "OPENING",
    "QUOTED",
    "QUOTED_OR_BARE",
    "TYPOGRAPHIC",
    "is_empty",
    "is_prose",
    "is_value",
    "looks_random",
]

_PAIRS = ("„“”", "“”", "«»", "»«", "‹›", "‚‘’", "‘’", "「」", "『』", "《》", "＂＂")
"""Quotes of the languages that people write: one that opens, then those that close it."""
OPENING = f"[{''.join(pair[0] for pair in _PAIRS)}]"
TYPOGRAPHIC = "|".join(rf"{pair[0]}[^{pair[1:]}\n]{{1,1000}}[{pair[1:]}]" for pair in _PAIRS)
"""A text in such quotes."""
_QUOTED = (
    r'[bruBRUfF]{0,2}(?:\\+"(?:[^"\\\n]|\\(?!"))*\\+"|"(?:[^"\\]|\\.)*"|'
    rf"'(?:[^'\\]|\\.)*'|{TYPOGRAPHIC}|[\"'][^\n]*)"
)
_NESTED = r"\[[^\[\]]*\][^\s\"',;&(){}\[\]<>]*|\{[^{}]*\}|\([^()]*\)"
_NEXT = r"(?!\s|$|[\"'\\]|amp;|[\w .%-]{1,40}[=:])"
_BARE = rf"\$\{{+[^{{}}\n]*\}}+|(?:[^\s\"',;&(){{}}\[\]<>]|[,;&]{_NEXT})+(?:\([^()\n]*\))?"
QUOTED_OR_BARE = re.compile(rf"{_QUOTED}|{_NESTED}|{_BARE}")
"""A value, as languages and logs write it."""

QUOTED = re.compile(
    rf"([bruBRUfF]{{0,2}})(\\*[\"']|{OPENING}[ \u00a0\u202f]?)(.*?)"
    rf"(?:\\*[\"']|[ \u00a0\u202f]?[{''.join(pair[1:] for pair in _PAIRS)}])?",
    re.DOTALL,
)
"""Such a value in quotes: its prefix, its opening quote and its content."""
_NO_VALUE = re.compile(
    r"(?i:none|null|nil|true|false|undefined|str|string|bytes|int|any|bool(?:ean)?|object"
    r"|secretstr|array|yes|no|on|off"
    r"|bearer|basic|token|digest|n/?a|\*+|•+|\.+|x{3,}|-+|%[srdv]|%\(\w+\)s|\?+|[|>][+-]?\d?"
    r"|:\w+|\$\d{1,2}"
    r"|\{+[ \w.!$-]*\}+|\$\{+[^{}]*\}+|\$\(\w+\)|\$[a-z_]\w*|<[\w .-]*>|\[\w*\]|\(\w*\))"
)
_STATUS = frozenset(
    """
a about absent accepted already an and any are as at authentication bad be blocked by can
cannot changed check contains could denied deprecated did differs disabled do does empty
enabled error exceeds exchange expected expired expires failed failure field for found
from generated had has have here hidden if ignored in incorrect invalid is isn it its key
length less limit locked long loaded malformed matches may minimum mismatch missing more
must need needed needs never new no none not null of ok old only or out outdated please
policy refused rejected renewed required requires reset revoked rotated sent set should
shorter that the this to too unable unavailable unauthorized unchanged unexpected unknown
unset unsupported updated used using valid value verified was weak were when which will
with without wrong you your empfangen falsch ungültig obligatoire incorrecta requerida
inválida неверный обязателен مطلوب مطلوبة خاطئة خطأ غير قصيرة 错误 无效
""".split()  # noqa: SIM905  (a list is longer to read)
)
_ROOTS = (
    "self|this|config|settings|os|process|env|request|req|ctx|context|args|kwargs|options|opts"
    "|cfg|conf"
    "|params|data|user|event|body|app|client|secrets|vault|credentials|creds|props|properties"
    "|system"
)
_PATH = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|->|::|\?\.)[A-Za-z_$][\w$]*)+")
_ENCODING = re.compile(
    r"(?i)(?:base|utf|sha|md|hs|rs|es|aes|rsa|oauth|v|http|x|ipv|ed)[-_/]?\d+(?:[-.]\w+)*"
)
_UNITS = re.compile(
    r"\d+(?:[.,]\d+)?(?:[a-zµ%]{0,2}|bits?|bytes?|chars?|sec|min|days?|hours?)"
    r"|\d+[-/:.]\d[\d:./TZ+-]*"
)


def is_empty(value: str) -> bool:
    """Whether a JSON value under the name of a secret is empty."""
    return value in ("null", "true", "false", '""')


def is_prose(value: str) -> bool:
    """Whether it is a remark or placeholder instead of a secret: `too short`, `{token}`, `***`."""
    word = re.match(r"[^\W\d_]+", value)
    if (
        word
        and word[0].lower() in _STATUS
        and not re.match(r"[\d@#$%^&*_+=!]", value[word.end() :])
    ):
        return True
    return bool(_NO_VALUE.fullmatch(value))


def looks_random(value: str, *, is_said: bool = False) -> bool:
    """Whether it does not look like a word, number, date or name of an encoding."""
    if re.match("[A-Za-z_.-]+=", value) and is_said:
        return False  # of something else
    if _ENCODING.fullmatch(value) or _UNITS.fullmatch(value) or _PATH.fullmatch(value):
        return False
    if re.fullmatch(r"[^\W\d_]+(?:[-'’/_.][^\W\d_]+)*", value):  # words
        return not is_said and bool(re.search("[a-z][A-Z][a-z]*[A-Z]", value)) and len(value) >= 16
    if is_said and re.fullmatch(r"[\d.,:/-]+", value):
        return False
    return bool(re.search(r"\d", value) or re.search(r"\w[@#$%^&*!+=~]|[@#$%^&*!+=~]\w", value))


def is_value(
    key: str, separator: str, match: re.Match[str], kind: KeyKinds, *, is_source: bool
) -> bool:
    """Whether it is an assigned literal, and not a type, call, variable, placeholder or remark."""
    value, text, end = match[0], match.string, match.end()
    after = text[end : end + 1]
    quoted = QUOTED.fullmatch(value)
    if quoted:
        inner = quoted[3]
        if is_source and after in ("]", ")") and kind(inner) == "secret" and inner.isidentifier():
            return False  # headers=("token")
        return bool(inner) and not is_prose(inner.strip()) and not _is_template(inner)
    if is_source or after in ("(", "["):
        return False  # token = get(f(x)), token: Optional[str]
    if value.endswith(")") and "(" in value[1:]:  # token=get(x), password=env("DB_PASSWORD")
        literal = re.search("[\"'](.*)[\"']", value)
        return literal is not None and kind(literal[1]) != "secret" and not is_prose(literal[1])
    if value[0] in "[{(" and re.fullmatch(r"[\[{(][\w .!$-]*[\]})]", value):
        return False
    if is_prose(value.rstrip(".,;:!?")) or _is_code(key, value, kind):
        return False
    is_word = separator.rstrip() == ":" and separator != ":" and re.fullmatch("[a-z]+", value)
    return not is_word or bool(re.search("pass|pwd|secret|key|pin", key, re.IGNORECASE))


def _is_code(key: str, value: str, kind: KeyKinds) -> bool:
    if re.fullmatch(rf"(?:\w+\.)*{re.escape(key)}", value):
        return True
    if _PATH.fullmatch(value):
        last = re.split(r"\.|->|::", value)[-1]
        return bool(re.match(rf"(?i)(?:{_ROOTS})\b", value)) or kind(last) == "secret"
    is_name = re.fullmatch("[A-Za-z_]+", value) and re.search("_|[a-z][A-Z]|^[A-Z]+$", value)
    return bool(is_name) and kind(value) == "secret"


def _is_template(text: str) -> bool:
    """Whether nothing but placeholders stands in a literal: `f"Bearer {token}"`."""
    rest, count = re.subn(r"\$?\{+[^{}\"']*\}+|%(?:\(\w*\))?[sdr](?!\w)|\$\w+|<\w+>", "", text)
    return bool(count) and not re.search(r"\d", rest) and len(rest.strip()) <= 12
