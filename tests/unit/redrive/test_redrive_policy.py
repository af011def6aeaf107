"""The policy of redrives: arithmetic, decisions, and its results where the chances are known."""

import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import comb
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.redrive.choose.backtest import Outcome, backtest
from sahool_dlq.redrive.choose.policy import (
    Belief,
    Cell,
    History,
    Policy,
    delay_before,
    is_hopeless,
    judge,
)
from support.policy_world import Group, Tally, always_three, by_policy

NOW = datetime(2026, 3, 8, tzinfo=UTC)
POLICY = Policy()
CELL = Cell("g", "TimeoutError", 1)


@given(st.integers(1, 300), st.integers(1, 300), st.fractions(0, 1, max_denominator=100))
@settings(deadline=None)
def test_the_chance_is_above_something_as_often_as_coins_say(
    a: int, b: int, chance: Fraction
) -> None:
    """P(Beta(a, b) ≥ x) = P(at most a - 1 heads of a + b - 1 coins with chance x), an identity."""
    coins = a + b - 1
    heads = (comb(coins, k) * chance**k * (1 - chance) ** (coins - k) for k in range(a))
    found = Belief(a, b, 0).probability_above(float(chance))
    assert found == pytest.approx(float(sum(heads)), rel=1e-9)


def history(*outcomes: tuple[Cell, float, float, datetime]) -> History:
    past = History(POLICY)
    for cell, successes, failures, at in outcomes:
        past.add(cell, successes, failures, at)
    return past


def test_without_outcomes_the_family_decides() -> None:
    assert history().belief(CELL, NOW, transient=True) == Belief(4, 2, 0)
    assert history().belief(CELL, NOW, transient=False) == Belief(1, 9, 0)


def test_an_outcome_weighs_half_after_a_week() -> None:
    past = history((CELL, 4, 8, NOW - timedelta(days=7)))
    assert past.belief(CELL, NOW, transient=True) == Belief(6, 6, 6)
    past.add(CELL, 1, 0, NOW)
    assert past.belief(CELL, NOW, transient=True) == Belief(7, 6, 7)


def test_attempts_and_groups_are_learned_apart_and_late_attempts_together() -> None:
    past = history((Cell("g", "x.TimeoutError", 3), 0, 3, NOW))
    assert past.belief(CELL, NOW, transient=True).trials == 0
    assert past.belief(Cell("h", "TimeoutError", 3), NOW, transient=True).trials == 0
    assert past.belief(Cell("g", "TimeoutError", 7), NOW, transient=True).trials == 3


def test_the_prior_comes_from_other_groups_of_the_type_by_the_method_of_moments() -> None:
    cells = [Cell(name, "TimeoutError", 1) for name in "abc"]
    rates = [0.2, 0.4, 0.6]
    past = history(*((c, 10 * r, 10 * (1 - r), NOW) for c, r in zip(cells, rates, strict=True)))
    weight = 0.4 * 0.6 / 0.04 - 1  # mean .4, variance .04
    belief = past.belief(CELL, NOW, transient=True)
    assert belief.a == pytest.approx(0.4 * weight)
    assert belief.a + belief.b == pytest.approx(weight)
    # A group is not its own prior, and one with few outcomes is no prior of others.
    assert past.belief(cells[0], NOW, transient=True).trials == pytest.approx(10)
    few = history(*((c, 2, 2, NOW) for c in cells))
    assert few.belief(CELL, NOW, transient=True) == Belief(4, 2, 0)
    same = history(*((c, 0, 40, NOW) for c in cells))
    belief = same.belief(CELL, NOW, transient=True)
    assert belief.a + belief.b == pytest.approx(POLICY.most_prior)
    assert belief.mean == pytest.approx(0.01)


def test_a_group_that_never_succeeds_gets_one_canary_a_day() -> None:
    past = history((CELL, 0, 80, NOW))
    belief = past.belief(CELL, NOW, transient=True)
    assert belief.probability_above(POLICY.worth) < POLICY.confidence
    soon = judge(belief, NOW, NOW + timedelta(hours=1), POLICY)
    assert soon.kind == "wait"
    assert soon.why.endswith("the next canary is due 2026-03-09 00:00Z")
    assert judge(belief, NOW, NOW + timedelta(days=1), POLICY).kind == "canary"
    assert judge(belief, None, NOW, POLICY).kind == "canary"
    past.add(CELL, 20, 0, NOW)  # cured
    assert judge(past.belief(CELL, NOW, transient=True), NOW, NOW, POLICY).kind == "redrive"


def test_a_ramp_is_hopeless_only_after_enough_outcomes_of_its_own() -> None:
    bad = Belief(1, 9, 0)
    assert [n for n in range(8) if is_hopeless(bad, 0, n, POLICY)] == [5, 6, 7]
    assert not is_hopeless(Belief(4, 2, 0), 0, 11, POLICY)
    assert not is_hopeless(bad, 5, 5, POLICY)


@pytest.mark.parametrize(
    ("error_type", "message", "expected"),
    [
        ("TimeoutError", "tile 17 is slow", True),
        ("requests.exceptions.ReadTimeout", "read timed out", True),
        ("ConnectionRefusedError", "refused", True),
        ("TimeoutError", "Permissions Violation for Publish", False),
        ("TimeoutError", "access denied", False),
        ("ConnectionError", "HTTP 403 Forbidden", False),
        ("TimeoutError", "after 4030 ms", True),
        ("ValueError", "bad", False),
    ],
)
def test_a_timeout_that_is_a_denied_permission_is_not_transient(
    error_type: str, message: str, expected: bool
) -> None:
    assert POLICY.is_transient(error_type, message) is expected


def test_delays_grow_at_random_within_their_bounds_and_can_be_repeated() -> None:
    delays = {n: [delay_before(f"f{i}", n, POLICY) for i in range(300)] for n in (1, 2, 3, 30)}
    assert delays[1] == [delay_before(f"f{i}", 1, POLICY) for i in range(300)]
    assert all(timedelta(seconds=30) <= d <= timedelta(seconds=90) for d in delays[1])
    assert all(timedelta(seconds=30) <= d <= timedelta(hours=1) for d in delays[30])
    means = [sum(d, timedelta()) / 300 for d in delays.values()]
    assert means == sorted(means)
    assert delay_before("f", 2, Policy(base_delay_seconds=0)) == timedelta()


def test_a_budget_is_a_share_of_what_a_service_handles_and_never_less_than_the_floor() -> None:
    assert Policy(floor_per_second=1).budget_per_second(100) == pytest.approx(20)
    assert Policy(floor_per_second=1).budget_per_second(0) == 1


# Where the chances are known


def steady(value: float) -> Any:
    return lambda _: value


def in_outage(hour: float) -> bool:
    """Half an hour, on the second day."""
    return 30 <= hour < 30.5


WORLD = [
    Group("good", "TimeoutError", steady(0.2), steady(0.95)),
    Group("fair", "TimeoutError", steady(0.2), steady(0.6)),
    Group("quick", "ConnectionError", steady(0.2), steady(0.85)),
    Group("bug", "TimeoutError", steady(0.2), steady(0.0)),
    Group("other bug", "ConnectionError", steady(0.1), steady(0.0)),
    Group(
        "outage",
        "ConnectionError",
        lambda hour: 120.0 if in_outage(hour) else 0.05,  # all that its service handles
        lambda hour: 0.0 if in_outage(hour) else 0.95,
    ),
    Group("flapping", "TimeoutError", steady(0.2), lambda hour: 0.9 if hour % 12 < 6 else 0.05),
]
DAYS = 5
RUNS = DAYS * 96
SIMULATED = Policy(floor_per_second=0.2)


@pytest.fixture(scope="module")
def worlds() -> list[tuple[Tally, Tally]]:
    return [
        (by_policy(WORLD, RUNS, seed, SIMULATED), always_three(WORLD, RUNS, seed))
        for seed in (1, 2)
    ]


def test_its_chances_are_better_than_one_rate_and_than_always_expecting_success(
    worlds: list[tuple[Tally, Tally]],
) -> None:
    for ours, theirs in worlds:
        brier = ours.squares / ours.redrives
        assert brier < 0.8 * ours.square_of_one_rate / ours.redrives
        assert brier < 0.5 * theirs.squares / theirs.redrives


def test_it_recovers_nearly_as_much_with_far_fewer_redrives(
    worlds: list[tuple[Tally, Tally]],
) -> None:
    for ours, theirs in worlds:
        assert ours.recovered > 0.9 * theirs.recovered
        assert ours.redrives_per_recovered < 0.75 * theirs.redrives_per_recovered
        assert ours.redrives_per_recovered < 1.5


def test_a_permanent_bug_costs_ever_fewer_redrives(
    worlds: list[tuple[Tally, Tally]],
) -> None:
    for ours, theirs in worlds:
        for name in ("bug", "other bug"):
            assert ours.by_group[name] < 0.3 * theirs.by_group[name]
            last_day = [redrives_on_last_day(tally, name) for tally in (ours, theirs)]
            assert last_day[0] < 0.25 * last_day[1]


def redrives_on_last_day(tally: Tally, name: str) -> int:
    start = (DAYS - 1) * 1_440
    return sum(
        count
        for (group, minute), count in tally.by_minute.items()
        if group == name and minute > start
    )


def test_an_outage_is_not_made_worse(worlds: list[tuple[Tally, Tally]]) -> None:
    """The load is what the service receives: its own events, and redrives."""
    normal = 2.0 * 1_800  # events in half an hour
    minutes = range(30 * 60, 30 * 60 + 30)
    for ours, theirs in worlds:
        ours_in_outage = sum(ours.by_minute["outage", minute] for minute in minutes)
        theirs_in_outage = sum(theirs.by_minute["outage", minute] for minute in minutes)
        assert (normal + ours_in_outage) / normal <= 1.3
        assert (normal + theirs_in_outage) / normal > 1.3
        assert max(n for (name, _), n in ours.by_minute.items() if name == "outage") <= 0.4 * 60 + 1


# Stored outcomes


def outcomes(rng: random.Random) -> list[Outcome]:
    """Two groups, redriven every hour for ten days: redrives cure one and never the other."""
    rows = []
    for hour in range(240):
        at = NOW + timedelta(hours=hour)
        for group, chance in (("good", 0.9), ("bug", 0.0)):
            rows.append(
                Outcome(
                    f"{group}-{hour}",
                    Cell(group, "TimeoutError", 1),
                    rng.random() < chance,
                    at,
                    at + timedelta(minutes=1),
                )
            )
    return rows


def test_a_backtest_says_what_a_policy_would_have_spared_and_missed() -> None:
    rows = outcomes(random.Random(7))
    report = backtest(rows, POLICY)
    good = sum(row.is_success for row in rows)
    assert (report.redrives, report.successes) == (480, good)
    assert (report.successes_taken, report.successes_missed) == (good, 0)
    assert report.failures_spared > 120
    assert report.failures_spared + report.taken == 480
    assert report.brier is not None
    assert report.brier_of_one_rate is not None
    assert report.brier < 0.6 * report.brier_of_one_rate
    long_memory = backtest(rows, Policy(half_life=timedelta(days=365)))
    assert 5 <= long_memory.canaries <= 10  # one a day, once it is stopped
    assert long_memory.groups_stopped == ("bug",)
    stern = backtest(rows, Policy(worth=0.95))
    assert stern.successes_missed > report.successes_missed
    assert backtest([], POLICY).brier is None


def test_a_backtest_learns_nothing_from_what_was_not_known_yet() -> None:
    at = NOW
    late = [
        Outcome(f"f{n}", CELL, False, at + timedelta(minutes=n), at + timedelta(days=30))
        for n in range(200)
    ]
    assert backtest(late, POLICY).taken == 200
