"""Finds what separates failing events from succeeding ones.

The condition that separates best is taken first. Then the events that meet it are put aside, and
the next one is searched among the others: so nothing is told that is implied by a stronger
difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import scipy  # loads its parts on first use
from numpy.typing import NDArray

from sahool_dlq.analysis.marts.significance import adjusted, fisher_tail
from sahool_dlq.analysis.why.difference import Comparison, Difference
from sahool_dlq.analysis.why.features import (
    Feature,
    Table,
    Truth,
    cuts,
    is_background,
    preference,
    tabulated,
)
from sahool_dlq.analysis.why.observation import (
    CONSUMER_VERSION,
    PUBLISHER,
    Facts,
    Observation,
    is_origin,
)

__all__ = ["LEAST_SUCCEEDING", "compare"]

LEAST_FAILING = 5
LEAST_SUCCEEDING = 20
LEAST_SHARE = 0.05
"""Minimum share of the failing with a difference ..."""
LEAST_LIFT = 2.0
MOST_P = 0.001
MOST_DIFFERENCES = 5
_NEARLY = 0.98
"""Of the best score: what is as good is told by `preference`."""
_MOST_PARTS = 30
"""The best conditions of which pairs are tried."""
_SENT_BY = 0.9


class _Found(NamedTuple):
    conditions: tuple[Feature, ...]
    truth: Truth
    p: float
    score: float


def compare(failing: Sequence[Observation], succeeding: Sequence[Observation]) -> Comparison:
    """What the failing events have more often than the succeeding ones; always the same."""
    sizes = len(failing), len(succeeding)
    if sizes[0] < LEAST_FAILING or sizes[1] < LEAST_SUCCEEDING:
        why = (
            f"{sizes[0]:,} failing and {sizes[1]:,} succeeding events are too few to compare:"
            f" it needs {LEAST_FAILING} and {LEAST_SUCCEEDING}."
        )
        return Comparison(*sizes, (), why)
    events = [*failing, *succeeding]
    is_failing = np.arange(len(events)) < sizes[0]
    facts = [Facts.of(each) for each in events]
    least = max(LEAST_FAILING, round(LEAST_SHARE * sizes[0]))
    table = tabulated(facts, is_failing, least)
    seconds = np.array([each.at.timestamp() for each in events])
    differences: list[Difference] = []
    is_live = np.ones(len(events), dtype=np.bool_)
    while len(differences) < MOST_DIFFERENCES and np.count_nonzero(is_live & is_failing) >= least:
        best = _best(table, is_failing, is_live, least, is_first=not differences)
        if best is None:
            break
        differences.append(_difference(best, table, events, is_failing, seconds))
        is_live &= ~best.truth
        if np.count_nonzero(is_live & ~is_failing) < LEAST_SUCCEEDING:
            break
    why_none = None if differences else (
        f"Nothing separates {sizes[0]:,} failing events from {sizes[1]:,} succeeding ones: look"
        " for the cause outside of the events."
    )  # fmt: skip
    return Comparison(*sizes, tuple(differences), why_none)


def _best(
    table: Table, is_failing: Truth, is_live: Truth, least: int, *, is_first: bool
) -> _Found | None:
    """The condition, or the pair, that separates the live events best."""
    limits = list(cuts(table, is_failing, is_live))
    features = [*table.features, *(feature for feature, _, _ in limits)]
    truth = np.vstack([table.truth, *(row for _, row, _ in limits)])
    times = np.array([1] * len(table.features) + [count for *_, count in limits])
    is_allowed = np.ones(len(features), dtype=np.bool_)
    if not is_first:
        is_allowed = ~np.fromiter(map(is_background, features), dtype=np.bool_)
    counts = _Counts.of(truth, is_failing, is_live)
    p = _adjusted(np.minimum(counts.p() * times, 1))
    score = counts.score()
    is_telling = (
        is_allowed & (p < MOST_P) & (counts.lift() >= LEAST_LIFT) & (counts.failing >= least)
    )
    singles = [
        _Found((features[row],), truth[row], float(p[row]), float(score[row]))
        for row in np.flatnonzero(is_telling)
    ]
    order = np.argsort(np.where(is_allowed & (counts.lift() > 1), -score, 0), kind="stable")
    parts = [int(row) for row in order[:_MOST_PARTS] if counts.failing[row] >= least]
    found = singles + _pairs(features, truth, parts, is_failing, is_live, counts)
    if not found:
        return None
    most = max(each.score for each in found)
    as_good = [each for each in found if each.score >= _NEARLY * most]
    return min(
        as_good,
        key=lambda each: (len(each.conditions), sum(map(preference, each.conditions)), -each.score),
    )


class _Counts(NamedTuple):
    """How many live events meet each condition."""

    failing: NDArray[np.int64]
    succeeding: NDArray[np.int64]
    of_failing: int | NDArray[np.int64]
    of_succeeding: int | NDArray[np.int64]

    @classmethod
    def of(cls, truth: Truth, is_failing: Truth, is_live: Truth) -> "_Counts":
        """Of each row of `truth`."""
        weights = np.stack([is_failing & is_live, ~is_failing & is_live]).astype(np.float32)
        both = np.rint(truth.astype(np.float32) @ weights.T).astype(np.int64)
        sizes = np.count_nonzero(weights, axis=1)
        return cls(both[:, 0], both[:, 1], int(sizes[0]), int(sizes[1]))

    def p(self) -> NDArray[np.float64]:
        """Fisher's exact test: so many failing or more."""
        total = self.of_failing + self.of_succeeding
        columns = [
            pl.Series(np.broadcast_to(each, self.failing.shape))
            for each in (self.failing, self.of_failing, self.failing + self.succeeding, total)
        ]
        return fisher_tail(*columns).to_numpy() if len(self.failing) else np.zeros(0)

    def lift(self) -> NDArray[np.float64]:
        """The quotient of the shares, with half an event added."""
        failing = (self.failing + 0.5) / (self.of_failing + 1)
        result: NDArray[np.float64] = failing / ((self.succeeding + 0.5) / (self.of_succeeding + 1))
        return result

    def score(self) -> NDArray[np.float64]:
        """The statistic of the likelihood-ratio test of the two shares (G)."""
        total = self.of_failing + self.of_succeeding
        meeting = self.failing + self.succeeding
        score = np.zeros(len(self.failing))
        for seen, row, column in (
            (self.failing, meeting, self.of_failing),
            (self.succeeding, meeting, self.of_succeeding),
            (self.of_failing - self.failing, total - meeting, self.of_failing),
            (self.of_succeeding - self.succeeding, total - meeting, self.of_succeeding),
        ):
            expected = np.maximum(row * column / total, 1e-12)
            score += 2 * scipy.special.xlogy(seen, np.maximum(seen, 1e-12) / expected)
        return score


def _pairs(
    features: Sequence[Feature],
    truth: Truth,
    parts: Sequence[int],
    is_failing: Truth,
    is_live: Truth,
    counts: _Counts,
) -> list[_Found]:
    """The pairs in which each part adds something to the other."""
    first, second = (np.array(parts)[rows] for rows in np.triu_indices(len(parts), 1))
    if not len(first):
        return []
    both = truth[first] & truth[second]
    of_both = _Counts.of(both, is_failing, is_live)
    given = np.maximum(
        *(
            _Counts(
                of_both.failing, of_both.succeeding, counts.failing[one], counts.succeeding[one]
            ).p()
            for one in (first, second)
        )
    )
    p = np.minimum(given * len(first) * 2, 1)
    score = of_both.score()
    return [
        _Found(
            _ordered(features[first[row]], features[second[row]]),
            both[row],
            float(p[row]),
            float(score[row]),
        )
        for row in np.flatnonzero((p < MOST_P) & (of_both.lift() >= LEAST_LIFT))
    ]


def _ordered(*features: Feature) -> tuple[Feature, ...]:
    return tuple(sorted(features, key=lambda each: (preference(each), each.path, each.kind)))


def _adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return adjusted(pl.Series(p)).to_numpy() if len(p) else p


def _difference(
    found: _Found,
    table: Table,
    events: Sequence[Observation],
    is_failing: Truth,
    seconds: NDArray[np.float64],
) -> Difference:
    counts = [int(np.count_nonzero(found.truth & which)) for which in (is_failing, ~is_failing)]
    first = int(np.flatnonzero(found.truth)[np.argmin(seconds[found.truth])])
    return Difference(
        found.conditions,
        counts[0],
        int(np.count_nonzero(is_failing)),
        counts[1],
        int(np.count_nonzero(~is_failing)),
        found.p,
        events[first].at if _is_new(found, is_failing, seconds, seconds[first]) else None,
        _origin(found, table),
    )


def _is_new(found: _Found, is_failing: Truth, seconds: NDArray[np.float64], first: float) -> bool:
    """Whether it is no chance that none of the events before `first` meets the conditions."""
    if any(is_background(each) for each in found.conditions):
        return False
    before = np.count_nonzero(~is_failing & (seconds < first)) / np.count_nonzero(~is_failing)
    return bool(before > 0 and (1 - before) ** np.count_nonzero(found.truth) < MOST_P)


def _origin(found: _Found, table: Table) -> tuple[Feature, ...]:
    """Who sends nearly all that meets the conditions, and seldom other events."""
    told = {each.path for each in found.conditions}
    meeting, others = np.count_nonzero(found.truth), np.count_nonzero(~found.truth)
    return tuple(
        feature
        for feature, truth in zip(table.features, table.truth, strict=True)
        if feature.kind == "value"
        and feature.path not in told
        and (feature.path in (PUBLISHER, CONSUMER_VERSION) or is_origin(feature.path))
        and np.count_nonzero(truth & found.truth) >= _SENT_BY * meeting
        and np.count_nonzero(truth & ~found.truth) <= others / 2
    )
