"""The significance of counts: scipy's distributions for the marts, row by row."""

import itertools
from typing import NamedTuple

import polars as pl
import scipy  # loads scipy.special or scipy.stats, which is very slow, on first use

__all__ = [
    "OUTBREAK",
    "SPIKE",
    "SpikeRule",
    "adjusted",
    "chi_square_tail",
    "fisher_tail",
    "spike_limits",
]

LEAST_SPIKE = 10
"""Minimum events of a spike, which also has several times the expected number ..."""


class SpikeRule(NamedTuple):
    """... and is not chance."""

    times: int  # the expected number, at least
    chance: float  # maximum probability of so many in a Poisson process


SPIKE = SpikeRule(3, 1e-4)
"""Of the last hour."""

OUTBREAK = SpikeRule(6, 1e-8)
"""Of every hour of every group: so many are looked at that rare chances occur, and what is expected
is known less well, because a day has quiet and busy hours."""


def fisher_tail(
    both: pl.Series, first: pl.Series | int, second: pl.Series, total: pl.Series | int
) -> pl.Series:
    """P(K ≥ both) where `first` and `second` of `total` are marked independently (Fisher, exact).

    For a table of a window against a baseline: both = hits in the window, first = the window,
    second = hits in all, total = all.
    """
    return pl.Series(scipy.stats.hypergeom.sf(both - 1, total, first, second))


def chi_square_tail(statistic: pl.Series, degrees: int) -> pl.Series:
    """P(X ≥ statistic) of a chi-square variable."""
    return pl.Series(scipy.special.chdtrc(degrees, statistic))


def adjusted(p_values: pl.Series) -> pl.Series:
    """p-values adjusted by Benjamini-Hochberg, in the given order."""
    return pl.Series(scipy.stats.false_discovery_control(p_values))


def spike_limits(rule: SpikeRule) -> list[tuple[int, float]]:
    """The spike rule as a table: (events, the largest expected count that they are a spike over).

    Up to some count, chance is the stricter condition; the table ends where the multiple of the
    expected becomes stricter, for all larger counts.
    """
    # "A Poisson process of mean m has k or more events" and "its k-th event (a Gamma variable)
    # comes before m" are the same.
    rows = (
        (count, float(scipy.special.gammaincinv(count, rule.chance)))
        for count in itertools.count(LEAST_SPIKE)
    )
    return list(itertools.takewhile(lambda row: row[1] <= row[0] / rule.times, rows))
