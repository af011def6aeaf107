"""Values that JSON does not have, as JSON text, and an edited text as such values again.

- bytes: `{"base64": "…"}`
- times, dates, UUIDs, addresses, decimals, fractions: their text
- a key that is no text: its text; `key 2` if the map has that key too
- an extension type of MessagePack: `{"ext": 5, "base64": "…"}`
- a tag of CBOR: `{"tag": 9, "value": …}`; a simple value: `{"simple": 16}`; undefined: `null`
"""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any
from uuid import UUID

from sahool_dlq.deadletter.body import LARGEST_INFLATED
from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.deadletter.sanitize import dump_json

__all__ = ["json_text", "reversible"]

_DEEPEST = 500  # parsers stop before
_MOST_BITS = 10_000  # Python refuses to write longer integers as digits
_TEXTS = (
    *(UUID, Decimal, Fraction),
    *(IPv4Address, IPv4Network, IPv6Address, IPv6Network),
)


class _Writer:
    """Turns values into those of JSON, up to a size."""

    def __init__(self) -> None:
        self._left = LARGEST_INFLATED

    def plain(self, value: Any, depth: int = 0) -> Any:
        """The value as `json.dumps` takes it."""
        if depth > _DEEPEST:
            raise BodyError(f"it is nested deeper than {_DEEPEST}")
        self._count(value)
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= _MOST_BITS else hex(value)
        if isinstance(value, Mapping):
            return {key: self.plain(value[own], depth + 1) for key, own in keys(value).items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.plain(each, depth + 1) for each in value]
        if isinstance(value, bytes | bytearray):
            return _marked(bytes(value))
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        if isinstance(value, _TEXTS):
            return str(value)
        return self._special(value, depth)

    def _special(self, value: Any, depth: int) -> Any:
        kind = type(value).__name__
        if kind == "Ext":  # of msgspec
            return {"ext": value.code, **_marked(bytes(value.data))}
        if kind == "CBORTag":
            return {"tag": value.tag, "value": self.plain(value.value, depth + 1)}
        if kind == "CBORSimpleValue":
            return {"simple": value.value}
        if kind == "UndefinedType":
            return None
        raise BodyError(f"it holds a value of type {kind}, which has no form in JSON")

    def _count(self, value: Any) -> None:
        self._left -= 1 + (len(value) if isinstance(value, str | bytes) else 0)
        if self._left < 0:
            raise BodyError(f"it is more than {LARGEST_INFLATED:,} characters as JSON")


def json_text(value: Any) -> str:
    """A decoded value as JSON text, as `json.dumps` writes it: also NaN and large numbers.

    Raises BodyError if it has no form in JSON, or is too large.
    """
    return dump_json(_Writer().plain(value))


def keys(value: Mapping[Any, Any]) -> dict[str, Any]:
    """The keys of a map by their name in JSON, in order."""
    named: dict[str, Any] = {key: key for key in value if isinstance(key, str)}
    found: dict[str, Any] = {}
    for key in value:
        name, count = key if isinstance(key, str) else _key_name(key), 1
        while named.get(name, key) is not key:
            count += 1
            name = f"{_key_name(key)} {count}"
        found[name] = named[name] = key
    return found


def _key_name(key: Any) -> str:
    return json_text(key).strip('"')


def _marked(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def reversible(value: Any, dumps: Callable[[Any], bytes]) -> tuple[str, Callable[[str], bytes]]:
    """A decoded value as JSON text, and the function that encodes an edited text again.

    Parts that the edit does not change are encoded from the decoded value: so they keep their type.
    """
    text = json_text(value)

    def closed(edited: str) -> bytes:
        return dumps(_merged(value, json.loads(text), json.loads(edited)))

    return text, closed


def _merged(value: Any, before: Any, after: Any) -> Any:
    if dump_json(before) == dump_json(after):
        return value
    if isinstance(value, Mapping) and isinstance(before, dict) and isinstance(after, dict):
        own = keys(value)
        return {
            own.get(name, name): _merged(value[own[name]], before[name], new)
            if name in own
            else _restored(new)
            for name, new in after.items()
        }
    if isinstance(value, list | tuple) and isinstance(before, list) and isinstance(after, list):
        known = min(len(value), len(after))
        return [_merged(value[i], before[i], after[i]) for i in range(known)] + [
            _restored(each) for each in after[known:]
        ]
    return _restored(after, value)


def _restored(new: Any, old: Any = None) -> Any:
    """A value of an edit, of the type that the value before it had, if its text can be read so."""
    if isinstance(new, dict):
        if list(new) == ["base64"] and isinstance(new["base64"], str):
            return base64.b64decode(new["base64"], validate=True)
        return {name: _restored(each) for name, each in new.items()}
    if isinstance(new, list):
        return [_restored(each) for each in new]
    if isinstance(old, float) and type(new) is int:
        return float(new)
    if isinstance(new, str):
        if isinstance(old, datetime | date | time):
            return type(old).fromisoformat(new)
        if isinstance(old, _TEXTS):
            return type(old)(new)
    return new
