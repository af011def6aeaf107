"""What separates failing events from succeeding ones: planted differences, and chance."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sahool_dlq.analysis.why.compare import compare
from sahool_dlq.analysis.why.difference import Difference
from sahool_dlq.analysis.why.features import Feature, holds
from sahool_dlq.analysis.why.observation import TIME, Facts, Observation
from sahool_dlq.simulation.planted import FROM, PLANTED, planted_sample
from support import ROOT

sys.path.append(str(ROOT / "benchmarks"))
import differences

AT = datetime(2026, 3, 4, 14, 2, tzinfo=UTC)


def event(number: int = 0, **body: Any) -> Observation:
    """An event; each comes a minute after the one before."""
    return Observation(AT + timedelta(minutes=number), "a.b", body, {}, 10)


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_planted_is_found_and_nothing_else(kind: str) -> None:
    graded = differences.total([differences.agreement(seed, kind) for seed in (3, 6)])
    assert graded == (2, 2, 2, 2)


def test_precision_and_recall_are_what_is_promised() -> None:
    """`make bench-why` says the same of twenty seeds."""
    two = [("unit", "length"), ("tenant", "missing key"), ("hour", "range")]
    one = [differences.agreement(9, kind) for kind in PLANTED]
    both = [differences.agreement(seed, *kinds) for seed, kinds in zip((3, 6, 9), two, strict=True)]
    graded = differences.total([*one, *both])
    assert graded.precision >= 0.95
    assert graded.recall >= 0.9


def test_nothing_is_found_in_shuffled_labels() -> None:
    told = [differences.chance(3, kind).told for kind in PLANTED]
    assert sum(told) == 0


@pytest.mark.parametrize("kind", PLANTED)
def test_a_condition_holds_for_the_events_that_were_counted(kind: str) -> None:
    sample = planted_sample(9, kind, failing=40, succeeding=400)
    for difference in compare(*sample).differences:
        counts = [
            sum(
                all(holds(condition, Facts.of(each)) for condition in difference.conditions)
                for each in events
            )
            for events in sample
        ]
        assert counts == [difference.failing, difference.succeeding]


def test_who_sent_it_is_told_after_what_is_in_it() -> None:
    good = [event(n, unit="ha", n=n) for n in range(200)]
    bad = [event(n, unit="acre", producer_version="3.1", n=n) for n in range(0, 200, 4)]
    [difference] = compare(bad, good).differences
    assert str(difference) == (
        "`data.unit` = acre in 100 % of the failing, 0 % of the succeeding;"
        " with data.producer_version 3.1"
    )
    more = [event(n, unit="ha", extra=n, n=n) for n in range(0, 200, 4)]
    assert str(compare(more, good).differences[0]).startswith("`data.extra` is present in 100 %")
    assert holds(Feature("present", "data.extra", "extra"), Facts.of(more[0]))


def test_it_says_since_when_and_by_which_producer() -> None:
    day = timedelta(days=1)
    sample = planted_sample(5, "unit", since=2.7 * day)
    [difference] = compare(*sample).differences
    assert difference.since is not None
    assert FROM + 2.7 * day <= difference.since < FROM + 2.8 * day
    assert difference.origin == (Feature("value", "headers.Producer-Version", "3.1"),)
    assert f"; since {difference.since:%Y-%m-%d %H:%M} UTC, with headers.Prod" in str(difference)
    always = compare(*planted_sample(5, "unit")).differences[0]
    assert (always.since, always.origin) == (None, ())


def test_the_same_events_give_the_same_answer_in_any_order() -> None:
    failing, succeeding = planted_sample(1, "two at once")
    assert compare(failing, succeeding) == compare(failing[::-1], succeeding[::-1])


def test_a_burst_of_failures_is_told_by_its_time() -> None:
    succeeding = [event(n, a=n % 7) for n in range(300)]
    failing = [event(n, a=n % 7) for n in range(100, 130)]
    others = [each for number, each in enumerate(succeeding) if not 100 <= number < 130]
    [difference] = compare(failing, others).differences
    assert {each.path for each in difference.conditions} == {TIME}
    assert "stored after" in str(difference)


def test_too_few_events_are_not_compared() -> None:
    few = compare([event(a=1)] * 4, [event(a=2)] * 100)
    assert few.differences == ()
    assert few.why_none is not None
    assert "4 failing and 100 succeeding events are too few" in few.why_none
    same = compare([event(a=1)] * 40, [event(a=1)] * 100)
    assert "Nothing separates 40 failing events from 100 succeeding ones" in (same.why_none or "")


def test_bodies_of_any_kind_have_facts() -> None:
    deep: Any = 1
    for _ in range(50):
        deep = {"a": [deep]}
    for body in (None, [], [1, [2]], "text", 10**400, float("nan"), deep, {"": {"": None}}, True):
        Facts.of(Observation(AT, "a.b", body, {"A": ["1", "2"]}, 1))
    facts = Facts.of(event(items=[{"unit": "kg", "n": 3}, {"n": 9}]))
    assert ("data.items[].unit", "kg") in facts.values
    assert facts.ranges["data.items[].n"] == (3, 9)
    assert facts.lengths["data.items"] == (2, 2)
    assert facts.objects["data.items[]"] == 2
    assert facts.keys["data.items[]"] == {"unit": 1, "n": 2}
    wide = Facts.of(event(**{f"key{n}": n for n in range(5_000)}))
    assert len(wide.types) + len(wide.values) < 1_100


@pytest.mark.parametrize(
    ("feature", "words"),
    [
        (Feature("missing", "data.crop"), "`data.crop` is missing"),
        (Feature("present", "data.crop", "crop"), "`data.crop` is present"),
        (Feature("type", "data.area", "array"), "`data.area` is an array"),
        (Feature("value", "data.unit", "acre"), "`data.unit` = acre"),
        (Feature("value", "data.unit", ""), "`data.unit` = (empty)"),
        (Feature("value", "data.is", True), "`data.is` = true"),
        (Feature("not", "headers.Unit", "ha"), "`headers.Unit` is not ha"),
        (Feature("above", "data.area", 1234.5), "`data.area` > 1,234.5"),
        (Feature("longer", "data.note", 80.0), "`data.note` is longer than 80"),
        (Feature("below", TIME, AT.timestamp()), "stored before 2026-03-04 14:02:00 UTC"),
        (Feature("value", "tenant", "farm-7"), "tenant = farm-7"),
    ],
)
def test_a_difference_is_a_sentence(feature: Feature, words: str) -> None:
    difference = Difference((feature,), 94, 100, 2, 1_000, 1e-9)
    assert str(difference) == f"{words} in 94 % of the failing, 0.2 % of the succeeding"
    origin = (Feature("value", "headers.Producer-Version", "3.1"),)
    assert str(replace(difference, since=AT, origin=origin)).endswith(
        "; since 2026-03-04 14:02 UTC, with headers.Producer-Version 3.1"
    )
    assert difference.as_dict()["sentence"] == str(difference)
    assert difference.lift == pytest.approx(94.5 / 101 / (2.5 / 1001))
