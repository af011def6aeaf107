"""How well `dlq why` finds planted differences: `python benchmarks/differences.py [seeds]`.

For each seed and each planted reason, some events fail because of it, and a few for other reasons;
others succeed, a few of them although they meet the condition. Small and large groups take turns.
Then the labels are shuffled: nothing is to be found.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import NamedTuple

from sahool_dlq.analysis.why.compare import compare
from sahool_dlq.analysis.why.difference import Difference
from sahool_dlq.simulation.planted import (
    PLANTED,
    Sample,
    is_found,
    planted_sample,
    shuffled,
)

_SIZES = ((40, 400), (200, 800), (600, 1_000))
"""Failing and succeeding events."""


class Agreement(NamedTuple):
    """Differences beside what was planted."""

    planted: int
    told: int
    right: int  # of those that were told
    found: int  # of those that were planted

    @property
    def precision(self) -> float:
        """The share of what was told that is right; 1 if nothing was told."""
        return self.right / self.told if self.told else 1.0

    @property
    def recall(self) -> float:
        """The share of what was planted that was found; 1 if nothing was planted."""
        return self.found / self.planted if self.planted else 1.0


def agreement(seed: int, *kinds: str) -> Agreement:
    """The differences of one sample."""
    failing, succeeding = _size(seed)
    return _graded(planted_sample(seed, *kinds, failing=failing, succeeding=succeeding), kinds)


def chance(seed: int, kind: str) -> Agreement:
    """The same events with shuffled labels."""
    failing, succeeding = _size(seed)
    sample = planted_sample(seed, kind, failing=failing, succeeding=succeeding)
    return _graded(shuffled(sample, seed), ())


def _size(seed: int) -> tuple[int, int]:
    return _SIZES[seed % len(_SIZES)]


def _graded(sample: Sample, kinds: Sequence[str]) -> Agreement:
    told: Sequence[Difference] = compare(*sample).differences
    right = [each for each in told if any(is_found(each, kind) for kind in kinds)]
    found = [kind for kind in kinds if any(is_found(each, kind) for each in told)]
    return Agreement(len(kinds), len(told), len(right), len(found))


def total(each: Sequence[Agreement]) -> Agreement:
    """The sums."""
    return Agreement(*map(sum, zip(*each, strict=True)))


def main() -> None:
    """Print a line for each planted reason, for two in one group, and for shuffled labels."""
    seeds = range(1, (int(sys.argv[1]) if len(sys.argv) > 1 else 20) + 1)
    print(f"{'planted':<32}{'samples':>8}{'told':>6}{'precision':>11}{'recall':>8}")
    sums = []
    for kind in PLANTED:
        sums.append(total([agreement(seed, kind) for seed in seeds]))
        _print(kind, len(seeds), sums[-1])
    two = list(itertools.combinations(PLANTED, 2))
    both = [agreement(seed, *two[seed * 7 % len(two)]) for seed in seeds]
    sums.append(total(both))
    _print("two reasons in one group", len(seeds), sums[-1])
    _print("all", len(seeds) * (len(PLANTED) + 1), total(sums))
    nothing = [chance(seed, kind) for seed in seeds for kind in PLANTED]
    _print("nothing: labels are shuffled", len(nothing), total(nothing))


def _print(name: str, samples: int, one: Agreement) -> None:
    recall = f"{one.recall:>8.3f}" if one.planted else ""
    print(f"{name:<32}{samples:>8}{one.told:>6}{one.precision:>11.3f}{recall}", flush=True)


if __name__ == "__main__":
    main()
