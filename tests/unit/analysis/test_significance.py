"""Tail probabilities against their definitions in exact fractions, and published values."""

import json
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from math import comb, exp, factorial, fsum

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.analysis.marts.contributors import SAMPLE
from sahool_dlq.analysis.marts.significance import (
    LEAST_SPIKE,
    OUTBREAK,
    SPIKE,
    SpikeRule,
    adjusted,
    chi_square_tail,
    fisher_tail,
    spike_limits,
)


def fisher(both: int, first: int, second: int, total: int) -> float:
    (tail,) = fisher_tail(pl.Series([both]), first, pl.Series([second]), total)
    return tail


def tables(both: int, first: int, second: int, total: int) -> Iterator[int]:
    """In how many ways `both`, and one more each time, are marked twice: exact."""
    ways = comb(first, both) * comb(total - first, second - both)
    while ways:
        yield ways
        ways *= (first - both) * (second - both)
        ways //= (both + 1) * (total - first - second + both + 1)
        both += 1


def exact_fisher(both: int, first: int, second: int, total: int) -> float:
    least = max(0, first + second - total)
    if both > min(first, second):
        return 0.0
    ways = sum(tables(max(both, least), first, second, total))
    return float(Fraction(ways, comb(total, second)))


@st.composite
def any_table(draw: st.DrawFn, most: int) -> tuple[int, int, int, int]:
    """Both, first, second and total; `both` is mostly near the expected number."""
    total = draw(st.integers(1, most))
    first, second = draw(st.integers(0, total)), draw(st.integers(0, total))
    both = first * second // total + draw(st.integers(-60, 60))
    return draw(st.sampled_from([min(max(both, 0), total), draw(st.integers(0, total))])), *(
        first,
        second,
        total,
    )


@given(any_table(most=3_000))
@settings(deadline=None)
def test_fisher_tail_counts_the_tables(table: tuple[int, int, int, int]) -> None:
    assert fisher(*table) == pytest.approx(exact_fisher(*table), rel=1e-9, abs=1e-300)


@given(any_table(most=SAMPLE))
@settings(deadline=None)
def test_the_tail_of_a_large_table_is_one_less_the_other(table: tuple[int, int, int, int]) -> None:
    """P(K ≥ both) + P(first - K ≥ first - both + 1) = 1, if the other half is marked."""
    both, first, second, total = table
    tail, other = fisher(*table), fisher(first - both + 1, first, total - second, total)
    assert 0 <= tail <= 1
    assert tail + other == pytest.approx(1, abs=1e-9)
    assert fisher(both, second, first, total) == pytest.approx(tail, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize(
    "table",
    [
        (250, 5_000, 25_250, 50_000),  # the first of many terms is below the smallest float
        (0, 25_000, 25_000, 50_000),
        (12_800, 25_000, 25_000, 50_000),
        (400, 500, 30_000, 50_000),
    ],
)
def test_large_tables_are_exact(table: tuple[int, int, int, int]) -> None:
    assert fisher(*table) == pytest.approx(exact_fisher(*table), rel=1e-9)


@pytest.mark.parametrize(
    ("statistic", "degrees", "p"),
    [(3.841458820694124, 1, 0.05), (5.991464547107979, 2, 0.05), (198.1537, 167, 0.05)],
)
def test_chi_square_tail_has_the_tables_values(statistic: float, degrees: int, p: float) -> None:
    assert chi_square_tail(pl.Series([statistic]), degrees)[0] == pytest.approx(p, rel=1e-3)


@given(st.lists(st.floats(0, 1), max_size=50))
def test_adjusted_p_values_are_benjamini_and_hochbergs(p_values: list[float]) -> None:
    """The smallest adjusted value of all p-values of this size or larger."""
    assert adjusted(pl.Series(p_values, dtype=pl.Float64)).to_list() == pytest.approx(
        [
            min(
                min(1, other * len(p_values) / sum(p <= other for p in p_values))
                for other in p_values
                if other >= p_value
            )
            for p_value in p_values
        ]
    )


@pytest.mark.parametrize("rule", [SPIKE, OUTBREAK])
def test_the_spike_limits_are_the_rule(rule: SpikeRule) -> None:
    limits = dict(spike_limits(rule))
    assert min(limits) == LEAST_SPIKE
    for count in range(LEAST_SPIKE, 200):
        limit = limits.get(count, count / rule.times)
        assert limit <= count / rule.times
        chance = poisson_tail(count, limit)
        assert (chance == pytest.approx(rule.chance, rel=1e-9)) == (count in limits)
        assert chance <= rule.chance * (1 + 1e-9)


def poisson_tail(count: int, mean: float) -> float:
    terms = [float(Fraction(mean) ** count / factorial(count))]
    for k in range(count + 1, count + 200):
        terms.append(terms[-1] * mean / k)
    return fsum(terms) * exp(-mean)


def test_no_verb_waits_for_distributions_that_it_does_not_ask() -> None:
    code = """
import importlib, json, pkgutil, sys
import sahool_dlq.cli
for module in pkgutil.iter_modules(sahool_dlq.cli.__path__, "sahool_dlq.cli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(json.loads(found.stdout))
    assert {"sahool_dlq.analysis.marts.significance", "sahool_dlq.redrive.choose.policy"} <= loaded
    assert not loaded & {"scipy.special", "scipy.stats"}
