"""The conditions that may separate failing events from succeeding ones, as columns of truth."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sahool_dlq.analysis.why.observation import (
    CONSUMER_VERSION,
    HOUR,
    PUBLISHER,
    SIZE,
    TENANT,
    TIME,
    Facts,
    Scalar,
    is_origin,
)

__all__ = ["Feature", "Table", "cuts", "holds", "is_background", "preference", "tabulated"]

Kind = Literal["missing", "present", "type", "value", "not", "above", "below", "longer", "shorter"]
Truth = NDArray[np.bool_]
Numbers = NDArray[np.float64]

_KINDS: Sequence[Kind] = (
    "missing", "present", "type", "value", "not", "above", "below", "longer", "shorter"
)  # fmt: skip
_USUAL = 0.5
"""A value that so many of the succeeding have is usual: its absence may be a difference."""
_MOST_FEATURES = 20_000


class Feature(NamedTuple):
    """A condition that an event meets or not."""

    kind: Kind
    path: str
    value: Scalar | None = None  # the key, the type, the value, or the limit, which is excluded


def preference(feature: Feature) -> int:
    """Which of several conditions that hold for the same events is told: the lowest.

    What is in the event comes before who sent it, and that before when.
    """
    about = (TENANT, PUBLISHER, CONSUMER_VERSION, HOUR, SIZE, TIME)
    if feature.path in about:
        place = 30 + 10 * about.index(feature.path)
    elif feature.path.startswith("token ") or is_origin(feature.path):
        place = 20
    else:
        place = 10 * feature.path.startswith("headers.")
    return place + _KINDS.index(feature.kind)


def is_background(feature: Feature) -> bool:
    """Whether it only says when events came: failures often come together, whatever they have."""
    return feature.path in (TIME, HOUR)


def holds(feature: Feature, facts: Facts) -> bool:
    """Whether an event meets a condition."""
    kind, path, value = feature
    if kind == "missing":
        parent = path.removesuffix(f".{value}")
        found = facts.keys[parent][str(value)] if parent in facts.keys else 0
        return facts.objects[parent] > found
    if kind == "present":
        parent = path.removesuffix(f".{value}")
        return parent in facts.keys and facts.keys[parent][str(value)] > 0
    if kind in ("type", "value"):
        return (path, value) in (facts.types if kind == "type" else facts.values)
    if kind == "not":
        return (path, value) not in facts.values and any(p == path for p, _ in facts.values)
    least, greatest = (facts.ranges if kind in ("above", "below") else facts.lengths).get(
        path, (math.nan, math.nan)
    )
    limit = float(value or 0)
    return greatest > limit if kind in ("above", "longer") else least < limit


@dataclass(frozen=True, slots=True)
class Table:
    """Conditions of events, by position: a row of `truth` for each of `features`.

    `ranges` and `lengths` have the least and greatest number of each event, NaN if it has none.
    """

    features: Sequence[Feature]
    truth: Truth
    ranges: Mapping[str, tuple[Numbers, Numbers]]
    lengths: Mapping[str, tuple[Numbers, Numbers]]


def tabulated(facts: Sequence[Facts], is_failing: Truth, least: int) -> Table:
    """All conditions without numbers that at least `least` events meet, and the numbers."""
    holding: dict[Feature, list[int]] = defaultdict(list)
    at_path: dict[str, set[int]] = defaultdict(set)
    for number, each in enumerate(facts):
        for path, kind in each.types:
            holding[Feature("type", path, kind)].append(number)
        for path, value in each.values:
            holding[Feature("value", path, value)].append(number)
            at_path[path].add(number)
    usual = _USUAL * np.count_nonzero(~is_failing)
    columns: dict[Feature, Iterable[int]] = {
        feature: rows for feature, rows in holding.items() if len(rows) >= least
    }
    for feature, rows in list(columns.items()):
        if feature.kind == "value" and np.count_nonzero(~is_failing[list(rows)]) >= usual:
            others = at_path[feature.path].difference(rows)
            columns[feature._replace(kind="not")] = others
    columns |= _missing(facts) | _present(facts)
    kept = sorted(
        (
            (feature, rows)
            for feature, rows in columns.items()
            if least <= len(list(rows)) < len(facts)
        ),
        key=lambda each: (preference(each[0]), each[0].path, str(each[0].value)),
    )[:_MOST_FEATURES]
    truth = np.zeros((len(kept), len(facts)), dtype=np.bool_)
    for row, (_, numbers) in enumerate(kept):
        truth[row, list(numbers)] = True
    return Table(
        [feature for feature, _ in kept],
        truth,
        _by_path([each.ranges for each in facts], least),
        _by_path([each.lengths for each in facts], least),
    )


def _missing(facts: Sequence[Facts]) -> dict[Feature, Iterable[int]]:
    """The events with an object, one of several, that lacks a key which others have."""
    names: dict[str, set[str]] = defaultdict(set)
    for each in facts:
        for path, counts in each.keys.items():
            names[path].update(counts)
    return {
        Feature("missing", f"{path}.{name}", name): [
            number
            for number, each in enumerate(facts)
            if each.objects[path] > (each.keys[path][name] if path in each.keys else 0)
        ]
        for path, known in names.items()
        if len(known) <= 1_000  # else its keys are ids
        for name in known
    }


def _present(facts: Sequence[Facts]) -> dict[Feature, Iterable[int]]:
    """The events with a key."""
    found: dict[Feature, list[int]] = defaultdict(list)
    for number, each in enumerate(facts):
        for path, counts in each.keys.items():
            for name in counts:
                found[Feature("present", f"{path}.{name}", name)].append(number)
    return dict(found)


def _by_path(
    ranges: Sequence[Mapping[str, tuple[float, float]]], least: int
) -> dict[str, tuple[Numbers, Numbers]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for number, each in enumerate(ranges):
        for path in each:
            rows[path].append(number)
    found = {}
    for path in sorted(rows):
        if len(rows[path]) < least:
            continue
        low, high = np.full((2, len(ranges)), np.nan)
        for number in rows[path]:
            low[number], high[number] = ranges[number][path]
        found[path] = (low, high)
    return found


def cuts(table: Table, is_failing: Truth, is_live: Truth) -> Iterator[tuple[Feature, Truth, int]]:
    """For each number, the limit above which, and below which, most of the failing are and fewest
    of the succeeding; with the events beyond it, and how many limits there were.
    """
    named: tuple[tuple[Mapping[str, tuple[Numbers, Numbers]], Kind, Kind], ...] = (
        (table.ranges, "above", "below"),
        (table.lengths, "longer", "shorter"),
    )
    for numbers, above, below in named:
        for path, (low, high) in numbers.items():
            for kind, values, sign in ((above, high, 1), (below, low, -1)):
                found = _best_limit(sign * values, is_failing, is_live)
                if found is not None:
                    limit, limits = found
                    with np.errstate(invalid="ignore"):
                        truth = sign * values > limit
                    yield Feature(kind, path, float(sign * limit)), truth, limits


def _best_limit(values: Numbers, is_failing: Truth, is_live: Truth) -> tuple[float, int] | None:
    """The limit above which the difference of the shares is greatest, and the number of limits."""
    known = is_live & ~np.isnan(values)
    each, where = np.unique(values[known], return_inverse=True)
    if len(each) < 2:
        return None
    failing = np.bincount(where, is_failing[known], minlength=len(each))
    succeeding = np.bincount(where, ~is_failing[known], minlength=len(each))
    # How many are above each value but the greatest.
    above = failing[::-1].cumsum()[::-1][1:] / max(np.count_nonzero(is_failing & is_live), 1)
    others = succeeding[::-1].cumsum()[::-1][1:] / max(np.count_nonzero(~is_failing & is_live), 1)
    # The z-score of two shares; a plain difference would prefer wide limits.
    mean = (above + others) / 2
    best = int(np.argmax((above - others) / np.sqrt(np.maximum(mean * (1 - mean), 1e-9))))
    return float(each[best]), len(each) - 1
