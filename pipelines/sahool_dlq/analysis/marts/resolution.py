"""How long failures take to end, and how they end, including open ones.

A mean over resolved failures only is too short, because the slow ones are still open. Kaplan-Meier
treats an open case as one that lasted at least this long; Aalen-Johansen splits the ended share by
cause. All cohorts are computed in one pass over sorted durations.
"""

from datetime import datetime

import polars as pl

__all__ = [
    "CAUSES",
    "DURATIONS_SQL",
    "IMPOSSIBLE",
    "curves",
    "observations",
    "resolution_curves",
    "resolution_times",
    "summaries",
    "thin",
]

CAUSES = ("automatic_redrive", "manual_redrive", "manual", "discarded")
"""How a case ends; `open` for an open one."""

IMPOSSIBLE = ("unroutable_count", "refused_count", "expired_count", "too_late_count")
"""Columns of the mart redrive_outcomes: nothing could be published."""

DURATIONS_SQL = """
SELECT
    dimension,
    value,
    cause,
    duration_seconds,
    open_since,
    CAST(SUM(case_count) AS BIGINT) AS case_count
FROM durations_daily
GROUP BY dimension, value, cause, duration_seconds, open_since
"""

CURVE_POINTS = 100
"""Approximate number of points of one cohort's curve for drawing."""

_COHORT = ("dimension", "value")
_HORIZONS = {"rmst_24h_seconds": 86_400.0, "rmst_7d_seconds": 604_800.0}
_ROUNDING = 1e-9  # larger than the rounding error of a product that should be 0.1


def resolution_times(durations: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The mart `resolution_times`: one row per cohort (dimension, value), see `summaries`."""
    return summaries(curves(observations(durations, now)))


def resolution_curves(durations: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The mart `resolution_curves`: the curve of every cohort (dimension, value), see `thin`."""
    return thin(curves(observations(durations, now)))


def observations(durations: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The durations of cases up to `now`: dimension, value, duration_seconds, cause, case_count.

    `durations` has the columns of `DURATIONS_SQL`. An open case has lasted since `open_since`; one
    that begins after `now` (clocks differ) 0 s.
    """
    open_for = (pl.lit(now) - pl.col("open_since")).dt.total_microseconds() / 1e6
    return durations.select(
        *_COHORT,
        pl.coalesce("duration_seconds", open_for.clip(0)).alias("duration_seconds"),
        "cause",
        "case_count",
    )


def curves(frame: pl.DataFrame, cohort: tuple[str, ...] = _COHORT) -> pl.DataFrame:
    """Survival and cumulative incidence of every cohort, a row per distinct duration.

    `frame` has duration_seconds (float), cause (one of `CAUSES`, anything else is open), case_count
    and the `cohort` columns. The result is sorted by cohort and time:

    * t_seconds; at_risk: cases that lasted at least this long; ended: cases that ended at this time
    * survival: share still open just after, S(t) = ∏ (1 - ended / at_risk)
    * one column per cause: share that ended by it until then, Σ S(t⁻) · ended by it / at_risk. They
      and survival add up to 1.
    """
    ended_by = {
        cause: pl.col("case_count").filter(pl.col("cause") == cause).sum() for cause in CAUSES
    }
    cohorts = frame.select(cohort).unique().sort(cohort).with_row_index("cohort")
    steps = (
        frame.join(cohorts, on=cohort, nulls_equal=True)
        .group_by("cohort", pl.col("duration_seconds").alias("t_seconds"))
        .agg(left=pl.col("case_count").sum(), **ended_by)
        .sort("cohort", "t_seconds")
    )
    ended = pl.sum_horizontal(CAUSES)
    at_risk = pl.col("left").cum_sum(reverse=True).over("cohort")
    survival = (1 - pl.col("ended") / pl.col("at_risk")).cum_prod().over("cohort")
    survival_before = pl.col("survival").shift(1, fill_value=1.0).over("cohort")
    share = survival_before / pl.col("at_risk")  # of all cases, that one case at risk stands for
    return (
        steps.with_columns(at_risk=at_risk, ended=ended)
        .with_columns(survival=survival)
        .with_columns((pl.col(cause) * share).cum_sum().over("cohort") for cause in CAUSES)
        .join(cohorts, on="cohort", maintain_order="left")
        .select(
            *cohort, "t_seconds", pl.col("at_risk", "ended").cast(pl.Int64), "survival", *CAUSES
        )
    )


def summaries(curve: pl.DataFrame, cohort: tuple[str, ...] = _COHORT) -> pl.DataFrame:
    """One row per cohort of `curves`, sorted by cohort.

    * n cases, events: cases that ended, open_share: the share of the others
    * median_seconds, p90_seconds: when half, nine tenths had ended; null if not reached in
      follow_up_seconds, the longest duration
    * rmst_24h_seconds, rmst_7d_seconds: mean open time within the horizon, ∫ S; if the follow-up is
      shorter, as if nothing ended after it (an upper bound)
    """
    time, survival = pl.col("t_seconds"), pl.col("survival")

    def reached(share_open: float) -> pl.Expr:
        return time.filter(survival <= share_open + _ROUNDING).min()

    def area(horizon: float) -> pl.Expr:
        # S is 1 up to the first time, then each value holds up to the next time or the horizon
        start = time.clip(upper_bound=horizon)
        width = start.shift(-1).fill_null(horizon) - start
        return start.min() + (survival * width).sum()

    return curve.group_by(cohort, maintain_order=True).agg(
        n=pl.col("at_risk").max(),
        events=pl.col("ended").sum(),
        open_share=1 - pl.col("ended").sum() / pl.col("at_risk").max(),
        median_seconds=reached(0.5),
        p90_seconds=reached(0.1),
        **{name: area(horizon) for name, horizon in _HORIZONS.items()},
        follow_up_seconds=time.max(),
    )


def thin(curve: pl.DataFrame, cohort: tuple[str, ...] = _COHORT) -> pl.DataFrame:
    """The curves for drawing: about CURVE_POINTS exact points of each, evenly by rank.

    It keeps times at which a case ended and each cohort's last time; before them it adds one row at
    0 s, where all are open, unless a case ended at once. The columns are those of `curves`.
    """
    last = pl.int_range(pl.len(), dtype=pl.Int64).over(cohort) == pl.len().over(cohort) - 1
    points = curve.filter((pl.col("ended") > 0) | last)
    rank = pl.int_range(pl.len(), dtype=pl.Int64)
    bucket = (rank * CURVE_POINTS // pl.len()).over(cohort)
    is_new = (bucket != bucket.shift(1, fill_value=-1)).over(cohort)
    kept = points.filter(last | is_new)
    starts = curve.group_by(cohort).agg(
        t_seconds=pl.lit(0.0),
        at_risk=pl.col("at_risk").max(),
        ended=pl.lit(0, dtype=pl.Int64),
        survival=pl.lit(1.0),
        **dict.fromkeys(CAUSES, pl.lit(0.0)),
    )
    keys = [*cohort, "t_seconds"]
    return pl.concat([kept, starts.join(kept, on=keys, how="anti")]).sort(keys)
