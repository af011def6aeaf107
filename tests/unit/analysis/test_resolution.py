"""Kaplan-Meier and Aalen-Johansen, against examples by hand and a direct implementation."""

from collections import Counter
from datetime import datetime
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahool_dlq.analysis.marts.resolution import (
    CAUSES,
    CURVE_POINTS,
    curves,
    observations,
    resolution_curves,
    resolution_times,
    summaries,
    thin,
)
from support.lake_log import NOW, before

HOUR, DAY, WEEK = 3_600.0, 86_400.0, 604_800.0
SCHEMA = {
    "duration_seconds": pl.Float64,
    "cause": pl.String,
    "value": pl.String,
    "case_count": pl.Int64,
}


def frame(*rows: tuple[float, str], value: str = "x") -> pl.DataFrame:
    """Observations (duration_seconds, cause) of one cohort."""
    return pl.DataFrame([(*row, value, 1) for row in rows], schema=SCHEMA, orient="row")


def summary(*rows: tuple[float, str]) -> dict[str, Any]:
    return summaries(curves(frame(*rows), ("value",)), ("value",)).row(0, named=True)


def durations(*rows: tuple[float | None, str, datetime | None, int]) -> pl.DataFrame:
    """Rows of `DURATIONS_SQL` (duration_seconds, cause, open_since, case_count) of all cases."""
    schema = {
        "dimension": pl.String,
        "value": pl.String,
        "duration_seconds": pl.Float64,
        "cause": pl.String,
        "open_since": pl.Datetime("us", "UTC"),
        "case_count": pl.Int64,
    }
    return pl.DataFrame([("overall", "all", *row) for row in rows], schema=schema, orient="row")


def test_a_curve_by_hand() -> None:
    """Five cases: at 10 s two end, at 20 s one is still open, at 30 s one of the last two ends."""
    curve = curves(
        frame(
            (10, "automatic_redrive"), (10, "manual"), (20, "open"), (30, "discarded"), (40, "open")
        ),
        ("value",),
    )
    assert curve.columns == ["value", "t_seconds", "at_risk", "ended", "survival", *CAUSES]
    got = curve.select("t_seconds", "at_risk", "ended").rows()
    assert got == [(10, 5, 2), (20, 3, 0), (30, 2, 1), (40, 1, 0)]
    assert curve["survival"].to_list() == pytest.approx([0.6, 0.6, 0.3, 0.3])
    assert curve["automatic_redrive"].to_list() == pytest.approx([0.2, 0.2, 0.2, 0.2])
    assert curve["manual_redrive"].to_list() == [0, 0, 0, 0]
    assert curve["manual"].to_list() == pytest.approx([0.2, 0.2, 0.2, 0.2])
    assert curve["discarded"].to_list() == pytest.approx([0, 0, 0.3, 0.3])


def test_incidence_is_not_one_minus_survival_per_cause() -> None:
    """If half end by each cause, each has 0.5; 1 - KM of one alone would give more."""
    curve = curves(
        frame((1, "manual"), (2, "discarded"), (3, "manual"), (4, "discarded")), ("value",)
    )
    last = curve.row(-1, named=True)
    assert (last["manual"], last["discarded"]) == pytest.approx((0.5, 0.5))


def test_summary_by_hand() -> None:
    got = summary((HOUR, "manual"), (2 * HOUR, "manual"), (2 * DAY, "open"), (3 * DAY, "manual"))
    assert got == {
        "value": "x",
        "n": 4,
        "events": 3,
        "open_share": 0.25,
        "median_seconds": 2 * HOUR,
        "p90_seconds": 3 * DAY,
        # 1 h at 1, 1 h at .75, 22 h at .5; then to 3 days at .5, and nothing is open after
        "rmst_24h_seconds": pytest.approx(HOUR * (1 + 0.75 + 22 * 0.5)),
        "rmst_7d_seconds": pytest.approx(HOUR * (1 + 0.75 + 70 * 0.5)),
        "follow_up_seconds": 3 * DAY,
    }


def test_what_was_not_reached_is_null() -> None:
    got = summary((HOUR, "manual"), (DAY, "open"), (DAY, "open"))
    assert (got["median_seconds"], got["p90_seconds"]) == (None, None)
    assert got["rmst_24h_seconds"] == pytest.approx(HOUR + 23 * HOUR * 2 / 3)
    assert got["rmst_7d_seconds"] == pytest.approx(HOUR + (WEEK - HOUR) * 2 / 3)


def test_a_quantile_is_not_missed_by_rounding() -> None:
    """After 9 of 10 the open share is 0.1, but as a product of floats slightly more."""
    got = summary(*((float(second), "manual") for second in range(1, 11)))
    assert (got["median_seconds"], got["p90_seconds"]) == (5, 9)


def test_cohorts_do_not_mix() -> None:
    both = pl.concat([frame((1, "manual"), (3, "open")), frame((2, "manual"), value="y")])
    alone = [
        curves(frame((1, "manual"), (3, "open")), ("value",)),
        curves(frame((2, "manual"), value="y"), ("value",)),
    ]
    assert curves(both, ("value",)).equals(pl.concat(alone))


def test_open_cases_have_lasted_until_now() -> None:
    observed = observations(
        durations(
            (2 * HOUR, "manual", None, 3),
            (None, "open", before(hours=2), 1),
            (None, "open", before(hours=-1), 1),  # clocks differ
        ),
        NOW,
    )
    assert observed.select("duration_seconds", "cause", "case_count").rows() == [
        (2 * HOUR, "manual", 3),
        (2 * HOUR, "open", 1),
        (0.0, "open", 1),
    ]


def test_counted_cases_are_as_many_cases() -> None:
    """A row that counts three cases gives the same curve as three rows."""
    counted = durations((HOUR, "manual", None, 3), (None, "open", before(hours=5), 2))
    each = durations(*[(HOUR, "manual", None, 1)] * 3, *[(None, "open", before(hours=5), 1)] * 2)
    assert resolution_times(counted, NOW).equals(resolution_times(each, NOW))
    assert resolution_times(counted, NOW).row(0, named=True)["n"] == 5


def test_resolution_curves_start_with_all_open_and_last_to_the_end_of_follow_up() -> None:
    drawn = resolution_curves(
        durations((2 * HOUR, "manual", None, 1), (None, "open", before(hours=3), 1)), NOW
    )
    got = drawn.filter(dimension="overall").drop("dimension", "value", "ended")
    assert got.columns == ["t_seconds", "at_risk", "survival", *CAUSES]
    assert got.rows() == [
        (0.0, 2, 1.0, 0.0, 0.0, 0.0, 0.0),
        (2 * HOUR, 2, 0.5, 0.0, 0.0, 0.5, 0.0),
        (3 * HOUR, 1, 0.5, 0.0, 0.0, 0.5, 0.0),
    ]


def test_a_case_that_ended_at_once_leaves_no_second_row_at_zero() -> None:
    drawn = thin(curves(frame((0, "manual"), (5, "open")), ("value",)), ("value",))
    assert drawn.select("t_seconds", "survival").rows() == [(0, 0.5), (5, 0.5)]


def test_a_long_curve_is_thinned_to_exact_points() -> None:
    curve = curves(frame(*((float(n), "manual") for n in range(1, 5_001))), ("value",))
    drawn = thin(curve, ("value",))
    assert CURVE_POINTS <= len(drawn) <= CURVE_POINTS + 2
    assert drawn.row(-1) == curve.row(-1)
    assert drawn.slice(1).join(curve, on=curve.columns, how="anti").is_empty()


def test_no_cases_give_empty_marts_with_their_columns() -> None:
    assert resolution_times(durations(), NOW).shape == (0, 10)
    assert resolution_curves(durations(), NOW).shape == (0, 10)


OBSERVATIONS = st.lists(
    st.tuples(st.integers(0, 12).map(float), st.sampled_from(["open", "open", *CAUSES])),
    min_size=1,
    max_size=30,
)


def naive(rows: list[tuple[float, str]]) -> list[tuple[float, Fraction, list[Fraction]]]:
    """(t, S(t), incidence per cause at t) by the definitions, in exact fractions."""
    survival, incidence, points = Fraction(1), [Fraction(0)] * len(CAUSES), []
    for t in sorted({t for t, _ in rows}):
        at_risk = sum(1 for duration, _ in rows if duration >= t)
        ended = Counter(cause for duration, cause in rows if duration == t and cause != "open")
        incidence = [
            so_far + survival * Fraction(ended[cause], at_risk)
            for so_far, cause in zip(incidence, CAUSES, strict=True)
        ]
        survival *= 1 - Fraction(ended.total(), at_risk)
        points.append((t, survival, incidence))
    return points


@given(OBSERVATIONS)
@settings(deadline=None)
def test_curves_and_summaries_agree_with_the_definitions(rows: list[tuple[float, str]]) -> None:
    curve = curves(frame(*rows), ("value",))
    points = naive(rows)
    assert curve["t_seconds"].to_list() == [t for t, _, _ in points]
    assert curve["survival"].to_list() == pytest.approx([float(s) for _, s, _ in points])
    for index, cause in enumerate(CAUSES):
        expected = [float(incidence[index]) for _, _, incidence in points]
        assert curve[cause].to_list() == pytest.approx(expected)
    assert all(s + sum(incidence) == 1 for _, s, incidence in points)

    got = summaries(curve, ("value",)).row(0, named=True)
    for column, share in (("median_seconds", Fraction(1, 2)), ("p90_seconds", Fraction(1, 10))):
        assert got[column] == next((t for t, s, _ in points if s <= share), None)
    area, since, open_share = Fraction(0), 0.0, Fraction(1)
    for t, survival, _ in points:
        area, since, open_share = area + open_share * Fraction(t - since), t, survival
    for column, horizon in (("rmst_24h_seconds", DAY), ("rmst_7d_seconds", WEEK)):
        assert got[column] == pytest.approx(float(area + open_share * Fraction(horizon - since)))
