"""Events of which some fail, for a known reason: to grade and to show what `dlq why` finds."""

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sahool_dlq.analysis.why.difference import Difference
from sahool_dlq.analysis.why.observation import (
    CONSUMER_VERSION,
    HOUR,
    TENANT,
    Observation,
)

__all__ = ["PLANTED", "Sample", "is_found", "planted_sample", "shuffled"]

FROM, DAYS = datetime(2026, 3, 2, tzinfo=UTC), 4
_CROPS = ("wheat", "barley", "maize", "rice", "dates")
_TENANTS = tuple(f"farm-{n}" for n in range(12))
_NOISE = 0.06  # of the failing: they fail for other reasons
_LEAK = 0.002  # of the succeeding: they meet the condition, and succeed

Event = dict[str, Any]
Change = Callable[[Event, random.Random], object]


class Sample(NamedTuple):
    """Failing and succeeding events."""

    failing: list[Observation]
    succeeding: list[Observation]


def _event(chance: random.Random) -> Event:
    """An event of a fleet in which nothing is wrong: fields that depend on each other."""
    crop = chance.choice(_CROPS)
    at = FROM + timedelta(seconds=chance.uniform(0, DAYS * 86_400))
    hectares = round(chance.lognormvariate(2, 0.8), 2)
    items = [
        {
            "sku": f"s-{chance.randrange(400)}",
            "count": chance.randint(1, 40),
            "unit": chance.choice(("kg", "l")),
            "price": round(chance.uniform(1, 90), 2),
        }
        for _ in range(chance.randint(1, 6))
    ]
    body = {
        "event_id": f"e-{chance.randrange(10**9)}",
        "crop": crop,
        "unit": "ha",
        "area": hectares,
        "perimeter": round(hectares**0.5 * 400 * chance.uniform(1, 1.2)),
        "irrigated": crop == "rice" or chance.random() < 0.3,
        "note": "x" * chance.randint(0, 60),
        "items": items,
        "sensor": {
            "model": chance.choice(("m1", "m2", "m3")),
            "reading": {"value": round(chance.gauss(20, 6), 1), "scale": "celsius"},
        },
    }
    if chance.random() < 0.4:
        body["comment"] = chance.choice(("ok", "check", ""))
    version = "3.1" if at > FROM + timedelta(days=2.6) else "3.0"
    return {
        "at": at,
        "body": body,
        "headers": {
            "Region": chance.choice(("north", "south", "east", "west")),
            "Producer-Version": version,
        },
        "tenant": _TENANTS[min(int(chance.expovariate(0.4)), len(_TENANTS) - 1)],
        "version": "2.4" if at < FROM + timedelta(days=3) else "2.5",
    }


def _body(**values: Any) -> Change:
    return lambda event, _: event["body"].update(values)


def _both(event: Event, _: random.Random) -> None:
    event["body"]["crop"] = "maize"
    event["headers"]["Region"] = "north"


def _element(event: Event, chance: random.Random) -> None:
    chance.choice(event["body"]["items"])["unit"] = "gallon"


def _element_key(event: Event, chance: random.Random) -> None:
    del chance.choice(event["body"]["items"])["price"]


def _hour(event: Event, chance: random.Random) -> None:
    event["at"] = event["at"].replace(hour=3, minute=chance.randrange(60))


@dataclass(frozen=True, slots=True)
class Planted:
    """A reason for which events fail, and how it is to be told: the kinds and the value by path.

    A limit is to be between 95 % of the other events and those that were changed.
    """

    change: Change
    told: Mapping[str, tuple[tuple[str, ...], Any]]


def _one(change: Change, path: str, kinds: tuple[str, ...], value: Any = None) -> Planted:
    return Planted(change, {path: (kinds, value)})


PLANTED: dict[str, Planted] = {
    "missing key": _one(lambda e, _: e["body"].pop("crop"), "data.crop", ("missing",)),
    "type": _one(
        lambda e, _: e["body"].update(area=str(e["body"]["area"])),
        "data.area",
        ("type",),
        "string",
    ),
    "null": _one(_body(perimeter=None), "data.perimeter", ("type",), "null"),
    "unit": _one(_body(unit="acre"), "data.unit", ("value",), "acre"),
    "other values": _one(
        lambda e, c: e["body"].update(unit=f"u{c.randrange(10**6)}"), "data.unit", ("not",), "ha"
    ),
    "range": _one(
        lambda e, c: e["body"].update(area=round(c.uniform(400, 9_000), 2)),
        "data.area",
        ("above",),
        (27, 401),
    ),
    "negative": _one(
        lambda e, c: e["body"]["sensor"]["reading"].update(value=-c.uniform(200, 300)),
        "data.sensor.reading.value",
        ("below",),
        (-201, 10),
    ),
    "length": _one(
        lambda e, c: e["body"].update(note="x" * c.randint(300, 900)),
        "data.note",
        ("longer",),
        (57, 301),
    ),
    "many": _one(
        lambda e, c: e["body"].update(items=e["body"]["items"] * c.randint(8, 12)),
        "data.items",
        ("longer",),
        (5, 40),
    ),
    "tenant": _one(lambda e, _: e.update(tenant="farm-7"), TENANT, ("value",), "farm-7"),
    "version": _one(lambda e, _: e.update(version="2.6"), CONSUMER_VERSION, ("value",), "2.6"),
    "hour": _one(_hour, HOUR, ("value",), "03"),
    "header": _one(
        lambda e, _: e["headers"].update({"Producer-Version": "3.2"}),
        "headers.Producer-Version",
        ("value",),
        "3.2",
    ),
    "two at once": Planted(
        _both,
        {"data.crop": (("value",), "maize"), "headers.Region": (("value",), "north")},
    ),
    "nested": _one(
        lambda e, _: e["body"]["sensor"]["reading"].update(scale="kelvin"),
        "data.sensor.reading.scale",
        ("value",),
        "kelvin",
    ),
    "in an array": _one(_element, "data.items[].unit", ("value",), "gallon"),
    "missing in an array": _one(_element_key, "data.items[].price", ("missing",)),
}
"""By what was planted."""


def planted_sample(
    seed: int,
    *kinds: str,
    failing: int = 200,
    succeeding: int = 800,
    since: timedelta | None = None,
) -> Sample:
    """Events that fail because of one of `kinds`, in equal parts, and others that succeed.

    With `since`, nothing meets the condition before that time after FROM.
    """
    chance = random.Random(f"{seed} {kinds}")  # noqa: S311  (material, no secret)
    bad: list[Observation] = []
    good: list[Observation] = []
    for number in range(failing):
        event = _event(chance)
        if kinds and chance.random() >= _NOISE:
            while since and event["at"] < FROM + since:
                event = _event(chance)
            PLANTED[kinds[number % len(kinds)]].change(event, chance)
        bad.append(_observed(event))
    while len(good) < succeeding:
        event = _event(chance)
        for kind in kinds:
            changed = copy.deepcopy(event)
            PLANTED[kind].change(changed, chance)
            if chance.random() < _LEAK and not (since and event["at"] < FROM + since):
                event = changed
            elif changed == event:  # it meets the condition by itself, so it fails
                break
        else:
            good.append(_observed(event))
    return Sample(bad, good)


def shuffled(sample: Sample, seed: int) -> Sample:
    """The same events, of which others are said to fail."""
    events = [*sample.failing, *sample.succeeding]
    random.Random(seed).shuffle(events)  # noqa: S311  (material, no secret)
    return Sample(events[: len(sample.failing)], events[len(sample.failing) :])


def _observed(event: Event) -> Observation:
    return Observation(
        at=event["at"],
        subject="sahool.analysis.field_measured",
        body=event["body"],
        headers=event["headers"],
        size_bytes=len(str(event["body"])),
        tenant_id=event["tenant"],
        publisher="field-service",
        consumer_version=event["version"],
    )


def is_found(difference: Difference, kind: str) -> bool:
    """Whether a difference says what was planted, and nothing else."""
    told = PLANTED[kind].told
    if {each.path for each in difference.conditions} != set(told):
        return False
    for feature in difference.conditions:
        kinds, value = told[feature.path]
        if feature.kind not in kinds:
            return False
        if isinstance(value, tuple):
            if not value[0] <= float(feature.value or 0) <= value[1]:
                return False
        elif value is not None and feature.value != value:
            return False
    return True
