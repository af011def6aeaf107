"""How surprising a count is: exact tail probabilities, in plain Python.

The marts count in SQL; what is left to judge is a few hundred numbers. Each tail is a sum from the
observed value outwards, whose terms soon fall geometrically.
"""

import math
from collections.abc import Iterable, Sequence

__all__ = [
    "adjusted",
    "chi_square_tail",
    "fisher_tail",
    "poisson_tail",
    "spike_limits",
]

LEAST_SPIKE = 10
"""A spike has at least so many events, and three times the expected."""

CHANCE = 1e-4
"""... and a Poisson process would show so many less often than this."""

_NEGLIGIBLE = 1e-17


def poisson_tail(count: int, mean: float) -> float:
    """P(X ≥ count) of a Poisson variable."""
    if count <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    if count <= mean:  # the other tail is shorter
        return 1.0 - _poisson_below(count, mean)
    term = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    total = 0.0
    while term > total * _NEGLIGIBLE:
        total += term
        count += 1
        term *= mean / count
    return total


def _poisson_below(count: int, mean: float) -> float:
    number = count - 1
    term = math.exp(number * math.log(mean) - mean - math.lgamma(number + 1))
    total = 0.0
    while number >= 0 and term > total * _NEGLIGIBLE:
        total += term
        term *= number / mean
        number -= 1
    return min(total, 1.0)


def fisher_tail(both: int, first: int, second: int, total: int) -> float:
    """P(K ≥ both) where `first` and `second` of `total` are marked independently (Fisher, exact).

    For a table of a window against a baseline: both = hits in the window, first = the window,
    second = hits in all, total = all.
    """
    least, most = max(0, first + second - total), min(first, second)
    if both <= least:
        return 1.0
    if both > most:
        return 0.0
    term = math.exp(
        _log_choose(first, both)
        + _log_choose(total - first, second - both)
        - _log_choose(total, second)
    )
    tail, number = 0.0, both
    while number <= most and (term > tail * _NEGLIGIBLE or number <= first * second / total):
        tail += term
        term *= (first - number) * (second - number)
        term /= (number + 1) * (total - first - second + number + 1)
        number += 1
    return min(tail, 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def chi_square_tail(statistic: float, degrees: int) -> float:
    """P(X ≥ statistic) of a chi-square variable: the upper regularized gamma function."""
    shape, x = degrees / 2, statistic / 2
    if x <= 0:
        return 1.0
    scale = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1:  # series of the lower part
        term = total = 1 / shape
        step = shape
        while term > total * _NEGLIGIBLE:
            step += 1
            term *= x / step
            total += term
        return max(1 - scale * total, 0.0)
    # Lentz's continued fraction of the upper part
    b = x + 1 - shape
    c, d = 1e300, 1 / b
    fraction = d
    for step in range(1, 10_000):
        factor = -step * (step - shape)
        b += 2
        d = 1 / (factor * d + b)
        c = b + factor / c
        fraction *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return scale * fraction


def adjusted(p_values: Sequence[float], tests: int | None = None) -> list[float]:
    """p-values after Benjamini and Hochberg, in the given order.

    `tests` is how many were made where only some are passed; the others count as larger.
    """
    made = max(tests or 0, len(p_values))
    result = [1.0] * len(p_values)
    least = 1.0
    for rank, index in reversed(list(enumerate(_by_size(p_values), start=1))):
        least = min(least, p_values[index] * made / rank)
        result[index] = least
    return result


def _by_size(values: Sequence[float]) -> Iterable[int]:
    return sorted(range(len(values)), key=values.__getitem__)


def spike_limits() -> list[tuple[int, float]]:
    """The spike rule as a table: (events, the largest expected count that they are a spike over).

    Up to some count chance (`CHANCE`) is the stricter condition; the table ends where three times
    the expected is, and stays so for every larger count.
    """
    rows = []
    count = LEAST_SPIKE
    while poisson_tail(count, count / 3) >= CHANCE:
        low, high = 0.0, count / 3
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if poisson_tail(count, middle) < CHANCE else (low, middle)
        rows.append((count, low))
        count += 1
    return rows
