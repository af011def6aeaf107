"""Names and values in JSON as two members or as a pair: `{"name": "token", "value": …}`."""

import re

from sahool_dlq.deadletter.redaction import json_text
from sahool_dlq.deadletter.redaction.secret_names import KeyKinds
from sahool_dlq.deadletter.redaction.secret_values import looks_random

__all__ = ["paired_values"]

_NAMES = frozenset(
    [
        "name",
        "key",
        "id",
        "field",
        "param",
        "parameter",
        "header",
        "variable",
        "var",
        "property",
        "k",
        "n",
        "label",
    ]
)
_VALUES = frozenset(
    ["value", "val", "data", "content", "text", "default", "v", "string", "stringvalue"]
)
_MAY_HOLD = re.compile(r'"(?:value|val|data|content|text|default|v|string|stringvalue)"\s*:')
_OBJECT = re.compile(r'\{(?:[^{}"]|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+\}')
_PAIR = re.compile(r'\[\s*"([^"\\]{1,60})"\s*,\s*(?="([^"\\]{3,4000})"\s*\])')


def paired_values(text: str, kind: KeyKinds) -> dict[int, str]:
    """Positions of values that a name beside them marks as secret, with that name."""
    found: dict[int, str] = {}
    if _MAY_HOLD.search(text.lower()):
        for match in _OBJECT.finditer(text):
            found |= _in_object(match[0], match.start(), kind)
    for match in _PAIR.finditer(text):
        if kind(match[1]) == "secret" and looks_random(match[2]):
            found[match.end()] = match[1]
    return found


def _in_object(text: str, offset: int, kind: KeyKinds) -> dict[int, str]:
    name, places = None, []
    position = 0
    while match := json_text.STRING.search(text, position):
        position = json_text.value_end(text, match.end())
        key, value = json_text.decoded(match[1]).lower(), text[match.end() : position]
        if key in _VALUES:
            places.append(offset + match.end())
        elif key in _NAMES and value.startswith('"'):
            name = json_text.decoded(value[1:-1])
    return dict.fromkeys(places, name) if name and kind(name) == "secret" else {}
