"""What succeeding events of a subject have in common, as a JSON Schema; and who leaves it."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from jsonschema import Draft202012Validator

from sahool_dlq.analysis.why.observation import is_origin
from sahool_dlq.deadletter.redaction.patterns import MARK

__all__ = ["LEAST_BODIES", "Contract", "Rule", "learned"]

LEAST_BODIES = 50
"""A contract of fewer bodies would have rules that the next event breaks by chance."""
_LEAST_SEEN = 20
"""Objects, values or arrays at one place; of fewer there are no rules."""
_MOST_VALUES = 10
"""A text with more different values is no enumeration."""
_MOST_KEYS = 200
"""An object with more different keys has ids as keys."""
_MOST_DEPTH = 12
_TOLERATED = 0.005
"""Share of the succeeding that may break a rule: a consumer handles some events by good luck."""
_MARGIN = 1.0
"""A sample does not have the extremes: each limit is wider by this multiple of the range."""
_NEAR = 0.1
"""Numbers whose least is as near to zero, as a share of the range, have zero as limit."""
_LARGEST = 1e300
_WHO = frozenset({"event_id", "tenant_id", "field_id", "farmer_id", "source_service"})
_MASKED = re.compile(MARK)
_INDEX = "[]"


_Number = TypeVar("_Number", int, float)


class Rule(NamedTuple):
    """A rule of a contract."""

    keyword: str  # of JSON Schema
    path: str  # `data.items[].unit`
    said: str  # in words

    def __str__(self) -> str:
        return f"`{self.path}` {self.said}"


@dataclass(frozen=True, slots=True)
class Contract:
    """A JSON Schema that was learned from `bodies` events."""

    schema: dict[str, Any]
    bodies: int

    def broken(self, bodies: Sequence[Any]) -> list[frozenset[Rule]]:
        """The rules that each body breaks."""
        validator = Draft202012Validator(self.schema)
        return [
            frozenset(rule for error in validator.iter_errors(body) for rule in _rules(error))
            for body in bodies
        ]

    def lines(self) -> Iterator[tuple[str, str]]:
        """Each path with what is required of it, for people."""
        yield from _described("data", self.schema, is_required=True)


def learned(bodies: Sequence[Any]) -> Contract:
    """The contract that nearly all these bodies fulfil; without rules if there are too few."""
    place = _Place()
    for body in bodies if len(bodies) >= LEAST_BODIES else ():
        place.add(body, _MOST_DEPTH)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **place.schema()}
    return Contract(schema, len(bodies))


@dataclass(slots=True)
class _Place:
    """All values at one place of the bodies."""

    types: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    is_masked: bool = False
    lengths: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # of arrays
    keys: dict[str, "_Place"] = field(default_factory=lambda: defaultdict(_Place))
    element: "_Place | None" = None

    def add(self, value: Any, depth: int) -> None:
        """One more value."""
        kind = _kind(value)
        self.types[kind] += 1
        if isinstance(value, str):
            self.texts[value] += 1
            self.lengths.append(len(value))
            self.is_masked |= bool(_MASKED.search(value))
        elif kind in ("integer", "number"):
            if abs(value) < _LARGEST:
                self.numbers.append(value)
        elif isinstance(value, list):
            self.sizes.append(len(value))
            if self.element is None:
                self.element = _Place()
            for each in value if depth else ():
                self.element.add(each, depth - 1)
        elif isinstance(value, dict):
            for name, held in value.items() if depth else ():
                self.keys[name].add(held, depth - 1)

    @property
    def seen(self) -> int:
        """How many values there were."""
        return self.types.total()

    def schema(self) -> dict[str, Any]:
        """The rules that nearly all of them fulfil."""
        if self.seen < _LEAST_SEEN:
            return {}
        usual = _usual(self.types)
        kinds = sorted(usual - ({"integer"} if "number" in usual else set()))
        rules: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
        if self.types["object"] >= _LEAST_SEEN and len(self.keys) <= _MOST_KEYS:
            rules |= self._of_objects()
        if len(self.sizes) >= _LEAST_SEEN:
            rules |= _size_rules("Items", self.sizes)
            if self.element is not None:
                rules["items"] = self.element.schema()
        if len(self.numbers) >= _LEAST_SEEN:
            rules |= self._of_numbers()
        if len(self.lengths) >= _LEAST_SEEN and not self.is_masked:
            rules |= self._of_texts()
        return rules

    def _of_objects(self) -> dict[str, Any]:
        least = (1 - _TOLERATED) * self.types["object"]
        required = [name for name, place in self.keys.items() if place.seen >= least]
        properties = {name: _schema_of(name, self.keys[name]) for name in sorted(self.keys)}
        return {"properties": properties, "required": sorted(required)}

    def _of_numbers(self) -> dict[str, Any]:
        least, greatest = _trimmed(self.numbers)
        margin = _MARGIN * (greatest - least)
        if not margin:  # always the same: perhaps a default
            return {}
        is_from_zero = 0 <= least <= _NEAR * (greatest - least)
        low = 0 if is_from_zero else least - margin
        return {"minimum": low, "maximum": greatest + margin}

    def _of_texts(self) -> dict[str, Any]:
        # That each value came several times makes another one unlikely (Good and Turing).
        usual = {text for text in _usual(self.texts) if self.texts[text] > 2}
        known = sum(self.texts[text] for text in usual)
        is_enumeration = len(usual) <= _MOST_VALUES and known >= (1 - _TOLERATED) * self.seen
        if is_enumeration and known >= LEAST_BODIES:
            return {"enum": sorted(usual)}
        return _size_rules("Length", self.lengths)


def _schema_of(name: str, place: _Place) -> dict[str, Any]:
    """A new tenant, publisher or version breaks no contract."""
    rules = place.schema()
    is_about_origin = name in _WHO or is_origin(name)
    return {"type": rules["type"]} if is_about_origin and rules else rules


def _size_rules(what: str, sizes: Sequence[int]) -> dict[str, int]:
    not_empty = {f"min{what}": 1} if min(sizes) > 0 else {}
    return not_empty | {f"max{what}": 2 * _trimmed(sizes)[1]}


def _usual(counts: Counter[str]) -> set[str]:
    """What is seldom by itself is no rule; but there is always one."""
    least = _TOLERATED * counts.total()
    return {name for name, count in counts.items() if count > least}


def _trimmed(numbers: Sequence[_Number]) -> tuple[_Number, _Number]:
    """The least and the greatest number, without the extremes that are tolerated."""
    ordered = sorted(numbers)
    left_out = int(_TOLERATED * len(ordered))
    return ordered[left_out], ordered[-1 - left_out]


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "array" if isinstance(value, list) else "object"


def _rules(error: Any) -> Iterator[Rule]:
    """The rule, or the rules, that an error of the validator is about."""
    path = "data"
    for each in error.absolute_path:
        path += _INDEX if isinstance(each, int) else f".{each}"
    keyword, given = error.validator, error.validator_value
    if keyword == "required":
        for name in given:
            if name not in error.instance:
                yield Rule("required", f"{path}.{name}", "is required")
    else:
        yield Rule(keyword, path, _said(keyword, given))


def _said(keyword: str, given: Any) -> str:
    match keyword:
        case "type":
            kinds = [given] if isinstance(given, str) else given
            return f"is of type {' or '.join(kinds)}"
        case "enum":
            return f"is {' or '.join(map(str, given))}" if len(given) < 3 else (
                f"is one of {', '.join(map(str, given))}"
            )  # fmt: skip
        case "minimum":
            return f"is at least {given:,.6g}"
        case "maximum":
            return f"is at most {given:,.6g}"
        case "minLength" | "minItems":
            return "is not empty"
        case "maxLength":
            return f"has at most {given:,} characters"
        case _:
            return f"has at most {given:,} elements"


_SHOWN = (
    *("type", "enum", "minimum", "maximum"),
    *("minLength", "maxLength", "minItems", "maxItems"),
)


def _described(
    path: str, schema: dict[str, Any], *, is_required: bool
) -> Iterator[tuple[str, str]]:
    said = [_said(name, schema[name]) for name in _SHOWN if name in schema]
    yield path, ", ".join([*([] if is_required else ["may be missing"]), *said])
    required = schema.get("required", ())
    for name, each in schema.get("properties", {}).items():
        yield from _described(f"{path}.{name}", each, is_required=name in required)
    if schema.get("items"):
        yield from _described(f"{path}{_INDEX}", schema["items"], is_required=True)
