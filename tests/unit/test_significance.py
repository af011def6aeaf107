"""Tail probabilities against their definitions in exact fractions, and published values."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.analysis.significance import (
    adjusted,
    chi_square_tail,
    fisher_tail,
    poisson_tail,
    spike_limits,
)


@given(st.integers(0, 60), st.fractions(0, 40, max_denominator=50))
@settings(deadline=None)
def test_poisson_tail_is_one_minus_the_sum_below(count: int, mean: Fraction) -> None:
    below = sum(mean**k / math.factorial(k) for k in range(count))
    exact = 1 - float(below) * math.exp(-float(mean))
    assert poisson_tail(count, float(mean)) == pytest.approx(exact, abs=1e-12)


def test_poisson_tail_keeps_its_digits_far_out() -> None:
    exact = sum(Fraction(2) ** k / math.factorial(k) for k in range(80, 140))
    assert poisson_tail(80, 2.0) == pytest.approx(float(exact) * math.exp(-2), rel=1e-9)
    assert poisson_tail(100_000, 20_000) == 0.0
    assert poisson_tail(20_000, 20_000.0) == pytest.approx(0.5, abs=0.005)


@given(st.integers(1, 60), st.data())
@settings(deadline=None)
def test_fisher_tail_counts_the_tables(total: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, total))
    second = data.draw(st.integers(0, total))
    both = data.draw(st.integers(0, total))
    tables = sum(
        math.comb(first, k) * math.comb(total - first, second - k)
        for k in range(max(both, 0, first + second - total), min(first, second) + 1)
    )
    exact = float(Fraction(tables, math.comb(total, second)))
    assert fisher_tail(both, first, second, total) == pytest.approx(exact, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("statistic", "degrees", "p"),
    [(3.841458820694124, 1, 0.05), (5.991464547107979, 2, 0.05), (198.1537, 167, 0.05)],
)
def test_chi_square_tail_has_the_tables_values(statistic: float, degrees: int, p: float) -> None:
    assert chi_square_tail(statistic, degrees) == pytest.approx(p, rel=1e-3)


@given(st.integers(1, 100), st.floats(0.01, 400))
@settings(deadline=None)
def test_chi_square_tail_of_even_degrees_is_a_poisson_sum(half: int, statistic: float) -> None:
    """P(χ² with 2k degrees ≥ x) = P(Poisson(x/2) < k), an identity."""
    below = 1 - poisson_tail(half, statistic / 2)
    assert chi_square_tail(statistic, 2 * half) == pytest.approx(below, abs=1e-9)


def test_adjusted_p_values_by_hand() -> None:
    assert adjusted([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjusted([0.01], tests=10) == pytest.approx([0.1])
    assert adjusted([]) == []


def test_the_spike_limits_are_the_rule() -> None:
    limits = dict(spike_limits())
    for count in range(10, 200):
        limit = limits.get(count, count / 3)
        assert poisson_tail(count, limit) <= 1e-4
        assert limit <= count / 3
        if count in limits:
            assert poisson_tail(count, limit * 1.0001) > 1e-4
