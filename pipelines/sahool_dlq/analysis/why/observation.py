"""Events as they are compared: redacted, with the facts about each."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sahool_dlq.deadletter.headers import Headers, pairs_of

__all__ = [
    "CONSUMER_VERSION",
    "HOUR",
    "PUBLISHER",
    "SIZE",
    "TENANT",
    "TIME",
    "Facts",
    "Observation",
    "Scalar",
    "is_origin",
    "origin_of",
]

TENANT, PUBLISHER, CONSUMER_VERSION = "tenant", "publisher", "consumer version"
HOUR, SIZE, TIME = "hour of the day", "size in bytes", "time"

_MOST_DEPTH = 8
_MOST_ELEMENTS = 200  # of one array
_MOST_FACTS = 1_000  # of one event
_LONGEST_VALUE = 64
_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", dict: "object"}

_ORIGIN = re.compile(
    r"(?:^|[._-])(?:(?:producer|publisher|source|service|client|app|schema|sdk)[_-]?)?version$"
    r"|(?:^|[._-])(?:producer|publisher)$",
    re.IGNORECASE,
)

Scalar = str | float | bool


class Observation(NamedTuple):
    """An event that failed or succeeded, redacted."""

    at: datetime  # the server's time
    subject: str
    body: Any  # parsed JSON; None if it is not JSON
    headers: Headers
    size_bytes: int  # of the body as published
    tenant_id: str | None = None
    publisher: str | None = None  # the service that published it
    consumer_version: str | None = None  # that handled it


@dataclass(slots=True)
class Facts:
    """What is true of one event.

    A path leads to a value: `data.unit` in the body, `data.items[].unit` in each element of an
    array, `headers.Region`.
    """

    types: set[tuple[str, str]] = field(default_factory=set)  # path, type
    values: set[tuple[str, Scalar]] = field(default_factory=set)  # path, value
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)  # least and greatest
    lengths: dict[str, tuple[float, float]] = field(default_factory=dict)
    objects: Counter[str] = field(default_factory=Counter)  # how many there are at a path
    keys: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    @classmethod
    def of(cls, event: Observation) -> "Facts":
        """All facts of an event."""
        facts = cls()
        facts._add("data", event.body, _MOST_DEPTH)
        facts.objects["headers"] += 1
        for name, value in pairs_of(event.headers):
            facts._key("headers", name, value, 1)
        about: Mapping[str, str | None] = {
            TENANT: event.tenant_id,
            PUBLISHER: event.publisher,
            CONSUMER_VERSION: event.consumer_version,
            HOUR: f"{event.at:%H}",
            **{f"token {n} of the subject": part for n, part in _tokens(event.subject)},
        }
        facts.values |= {(name, value) for name, value in about.items() if value}
        for name, number in ((SIZE, event.size_bytes), (TIME, event.at.timestamp())):
            facts.ranges[name] = (number, number)
        return facts

    def _add(self, path: str, value: Any, depth: int) -> None:
        if len(self.types) + len(self.values) >= _MOST_FACTS:
            return
        kind = "null" if value is None else _TYPES.get(type(value), "array")
        self.types.add((path, kind))
        if isinstance(value, dict):
            self.objects[path] += 1
            for name, held in value.items():
                self._key(path, name, held, depth)
        elif isinstance(value, list):
            _widen(self.lengths, path, len(value))
            for each in value[:_MOST_ELEMENTS] if depth else ():
                self._add(f"{path}[]", each, depth - 1)
        elif isinstance(value, str):
            _widen(self.lengths, path, len(value))
            if len(value) <= _LONGEST_VALUE:
                self.values.add((path, value))
        elif isinstance(value, bool):
            self.values.add((path, value))
        elif isinstance(value, int | float) and math.isfinite(number := _float(value)):
            _widen(self.ranges, path, number)
            self.values.add((path, number))

    def _key(self, path: str, name: str, value: Any, depth: int) -> None:
        self.keys[path][name] += 1
        if depth:
            self._add(f"{path}.{name}", value, depth - 1)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 300 digits
        return math.inf


def _widen(ranges: dict[str, tuple[float, float]], path: str, number: float) -> None:
    least, greatest = ranges.get(path, (number, number))
    ranges[path] = min(least, number), max(greatest, number)


def _tokens(subject: str) -> Iterator[tuple[int, str]]:
    parts: Sequence[str] = subject.split(".")
    return enumerate(parts[:16], 1)


def is_origin(path: str) -> bool:
    """Whether a field says who published an event, or by which version: by its name."""
    return bool(_ORIGIN.search(path))


def origin_of(event: Observation) -> dict[str, str]:
    """The fields of an event that say by which version, or by whom, it was published."""
    found = sorted(Facts.of(event).values, key=str)
    return {path: str(value) for path, value in found if is_origin(path) and path != PUBLISHER}
