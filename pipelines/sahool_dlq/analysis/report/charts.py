"""The charts, each a pure function of a mart's rows: for notebooks and for the report alike.

Each takes the frame of the mart that it is named after, and a `Look`. What a chart means, and how
to read it, is in docs/report.md.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import altair as alt
import polars as pl

from sahool_dlq.analysis.marts.resolution import CAUSES, IMPOSSIBLE
from sahool_dlq.analysis.report.axes import (
    colour_scale,
    duration_axis,
    from_first,
    largest,
    rank_of,
    row_axis,
    shade_scale,
    shaded,
    share_axis,
    step_minutes,
    time_axis,
    whole_parts,
    words,
)
from sahool_dlq.analysis.report.theme import WIDE, Look, styled

__all__ = [
    "contributors",
    "failures_by_type",
    "group_trends",
    "health_parts",
    "hour_of_week",
    "incidence",
    "redrive_outcomes",
    "service_heat_map",
    "survival",
]

MOST_SERIES = 6
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_ENDED = {
    "automatic_redrive": ("automatic redrive", "green"),
    "manual_redrive": ("redrive by hand", "sky"),
    "manual": ("resolved by hand", "blue"),
    "discarded": ("discarded", "purple"),
    "open": ("still open", "grey"),
}
_OUTCOMES = {
    "succeeded": ("succeeded", "green"),
    "failed_again": ("failed again", "red"),
    "unknown": ("not known", "orange"),
    "impossible": ("impossible", "grey"),
}


def failures_by_type(
    failures_minutely: pl.DataFrame, start: datetime, end: datetime, look: Look = WIDE
) -> Any:
    """Dead letters a minute from `start` to `end`, stacked by type; the rarer types are one."""
    step = step_minutes((end - start) / timedelta(minutes=1), 48 if look.is_narrow else 96)
    shown = failures_minutely.filter(pl.col("minute_at").is_between(start, end))
    parts = whole_parts(end, step)
    common = largest(shown, "error_class", "failure_count", MOST_SERIES)
    frame = (
        shown.group_by(
            parts.alias("from"),
            pl.when(pl.col("error_class").is_in(common))
            .then("error_class")
            .otherwise(pl.lit("other"))
            .alias("type"),
        )
        .agg(rate=pl.col("failure_count").sum() / step)
        .with_columns(to=pl.col("from") + timedelta(minutes=step))
    )
    types = [*common, *sorted(set(frame["type"]) - set(common))]
    colours = [*look.series[: len(common)], look["grey"]][: len(types)]
    ranks = {name: rank for rank, name in enumerate(types)}
    frame = frame.with_columns(rank=pl.col("type").replace_strict(ranks, default=0)).sort(
        "from", "rank"
    )
    chart = (
        alt.Chart(frame, height=200)
        .mark_bar(orient="vertical")
        .encode(
            x=time_axis("from", start, end, look),
            x2="to:T",
            y=alt.Y("rate:Q", stack="zero", axis=alt.Axis(tickCount=4)),
            color=alt.Color("type:N", scale=alt.Scale(domain=types, range=colours)),
            order="rank:Q",
            tooltip=["from:T", "type:N", alt.Tooltip("rate:Q", format=".2f")],
        )
    )
    return styled(chart, look, "Dead letters a minute, by type")


def group_trends(trends: pl.DataFrame, look: Look = WIDE) -> Any:
    """A small curve of each group: `trends` has name, at and failure_count, groups in order.

    Each curve has a height of its own: it shows when, the number beside it how many.
    """
    total = pl.col("failure_count").sum().over("name")
    most = pl.col("failure_count").max().over("name").clip(1)
    rows = trends.with_columns(
        base=1.0 - pl.col("name").rle_id(),
        label=pl.format(
            "{}  ({})", "name", total.map_elements("{:,}".format, return_dtype=pl.String)
        ),
    ).with_columns(top=pl.col("base") + 0.6 * pl.col("failure_count") / most)
    ends = rows.group_by("name", maintain_order=True).agg(  # the last step has its width too
        pl.col("at").last() + pl.col("at").diff().last(), pl.exclude("at").last()
    )
    rows = pl.concat([rows, ends.select(rows.columns)])
    height = max(44 * trends["name"].n_unique(), 44)
    lowest = 2.0 - trends["name"].n_unique()
    scale = alt.Scale(domain=[lowest, 2], nice=False)
    top, base = (alt.Y(f"{name}:Q", axis=None, scale=scale) for name in ("top", "base"))
    curves = (
        alt.Chart(rows, height=height)
        .mark_area(
            interpolate="step-after", color=look["blue"], opacity=0.35, line={"color": look["blue"]}
        )
        .encode(x=time_axis("at", None, None, look), y=top, y2="base:Q", detail="name:N")
    )
    labels = (
        alt.Chart(rows.unique("name", keep="first", maintain_order=True))
        .mark_text(align="left", baseline="bottom", dy=-28, color=look["ink"], fontSize=11)
        .encode(x="at:T", y=base, text="label:N")
    )
    return styled(curves + labels, look, "Failures of each group")


def service_heat_map(
    failures_minutely: pl.DataFrame, start: datetime, end: datetime, look: Look = WIDE
) -> Any:
    """When which service failed, and how much: services by time."""
    step = step_minutes((end - start) / timedelta(minutes=1), 28 if look.is_narrow else 84)
    shown = failures_minutely.filter(pl.col("minute_at").is_between(start, end))
    services = largest(shown, "service", "failure_count", 15)
    parts = whole_parts(end, step)
    cells = (
        shown.filter(pl.col("service").is_in(services))
        .group_by("service", parts.alias("from"))
        .agg(count=pl.col("failure_count").sum())
        .with_columns(to=pl.col("from") + timedelta(minutes=step))
        .sort("service", "from")
    )
    unit = f"{step} min" if step < 60 else f"{step // 60} h"
    chart = (
        alt.Chart(shaded(cells, "count"), height=max(22 * len(services), 22))
        .mark_rect()
        .encode(
            x=time_axis("from", start, end, look),
            x2="to:T",
            y=row_axis("service", services),
            color=shade_scale(cells, "count", look),
            tooltip=["service:N", "from:T", "count:Q"],
        )
    )
    return styled(chart, look, f"Dead letters in {unit}, by service")


def hour_of_week(hour_of_week: pl.DataFrame, value: str = "all", look: Look = WIDE) -> Any:
    """The mean week, UTC, of all failures or of one service."""
    cells = (
        hour_of_week.filter(pl.col("value") == value)
        .with_columns(
            day=pl.col("hour_of_week")
            .floordiv(24)
            .replace_strict(dict(enumerate(_DAYS)), default=""),
            hour=pl.col("hour_of_week") % 24,
            weekly=pl.col("failure_count") / pl.col("week_count"),
        )
        .sort("hour_of_week")
    )
    chart = (
        alt.Chart(shaded(cells, "weekly"), height=170)
        .mark_rect(stroke=look["paper"], strokeWidth=1)
        .encode(
            x=alt.X(
                "hour:O",
                title="hour of the day, UTC",
                axis=alt.Axis(values=list(range(0, 24, 3)), labelAngle=0, ticks=False),
            ),
            y=row_axis("day", _DAYS),
            color=shade_scale(cells, "weekly", look),
            tooltip=["day:N", "hour:O", alt.Tooltip("weekly:Q", format=".1f")],
        )
    )
    return styled(chart, look, "Dead letters in each hour of a mean week")


def survival(
    resolution_curves: pl.DataFrame,
    dimension: str = "error_class",
    values: Sequence[str] | None = None,
    look: Look = WIDE,
) -> Any:
    """Kaplan-Meier: the share still open after some time, for the largest of `dimension`."""
    curves = resolution_curves.filter(pl.col("dimension") == dimension)
    if values is None:
        values = largest(curves.filter(pl.col("t_seconds") == 0), "value", "at_risk", MOST_SERIES)
    frame = from_first(curves.filter(pl.col("value").is_in(list(values))))
    colours = alt.Scale(domain=list(values), range=look.series)
    lines = (
        alt.Chart(frame.select("value", "t_seconds", "survival"), height=220)
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=duration_axis(frame),
            y=share_axis("survival"),
            color=alt.Color("value:N", scale=colours),
        )
    )
    half = (
        alt.Chart(pl.DataFrame({"half": [0.5]}))
        .mark_rule(color=look["muted"], strokeDash=[3, 3])
        .encode(y="half:Q")
    )
    return styled(half + lines, look, "Share of cases still open")


def incidence(
    resolution_curves: pl.DataFrame,
    dimension: str = "overall",
    value: str = "all",
    look: Look = WIDE,
) -> Any:
    """How cases end, and when: cumulative incidence by cause, stacked; the rest is still open."""
    curve = resolution_curves.filter(
        (pl.col("dimension") == dimension) & (pl.col("value") == value)
    ).rename({"survival": "open"})
    rows = (
        from_first(curve)
        .unpivot([*CAUSES, "open"], index="t_seconds", variable_name="cause", value_name="share")
        .with_columns(pl.col("cause").replace_strict(words(_ENDED), default="other").alias("cause"))
        .with_columns(rank=rank_of("cause", _ENDED))
    )
    chart = (
        alt.Chart(rows, height=220)
        .mark_area(interpolate="step-after")
        .encode(
            x=duration_axis(rows),
            y=share_axis("share"),
            color=colour_scale("cause", _ENDED, look),
            order="rank:Q",
        )
    )
    return styled(chart, look, "Share of cases, by how they ended")


def contributors(
    contributors: pl.DataFrame, subject: str = "last 24 hours", look: Look = WIDE
) -> Any:
    """What a subject has more of than the rest: its share there, and elsewhere."""
    rows = (
        contributors.filter(pl.col("subject") == subject)
        .sort("share", descending=True)
        .with_columns(
            what=pl.concat_str(
                pl.col("attribute") + " = " + pl.col("value"),
                pl.col("other_attribute") + " = " + pl.col("other_value"),
                separator=" and ",
                ignore_nulls=True,
            )
        )
    )
    names = rows["what"].to_list()
    here, elsewhere = (
        (subject, "the week before")
        if subject == "last 24 hours"
        else ("this group", "other groups")
    )
    y = row_axis("what", names)
    shares = rows.select(
        "what", pl.col("share").alias(here), pl.col("baseline_share").alias(elsewhere)
    )
    long = shares.unpivot([here, elsewhere], index="what", variable_name="where", value_name="part")
    colours = alt.Scale(domain=[here, elsewhere], range=[look["red"], look["grey"]])
    x = alt.X(
        "part:Q",
        title=None,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", tickCount=4),
    )
    bars = (
        alt.Chart(rows.select("what", "share", "baseline_share"), height=max(26 * len(names), 26))
        .mark_rule(color=look["grey"], strokeWidth=2)
        .encode(x="share:Q", x2="baseline_share:Q", y=y)
    )
    dots = (
        alt.Chart(long)
        .mark_circle(size=110, opacity=1)
        .encode(x=x, y=y, color=alt.Color("where:N", scale=colours))
    )
    return styled(bars + dots, look, "Share of the failures that have this")


def health_parts(service_health: pl.DataFrame, look: Look = WIDE) -> Any:
    """What each service's score lost, by part; the largest part is what counts."""
    parts = {
        "traffic_part": ("too many failures", "orange"),
        "critical_part": ("critical errors", "red"),
        "age_part": ("old open cases", "purple"),
    }
    worst = service_health.sort("score", "service").head(15)
    worst = worst.with_columns(
        name=pl.format("{} ({})", "service", pl.col("score").round(0).cast(pl.Int64))
    )
    services = worst["name"].to_list()
    rows = (
        worst.unpivot(list(parts), index="name", variable_name="part", value_name="lost")
        .with_columns(
            pl.col("part").replace_strict(words(parts), default=""), lost=100 * pl.col("lost")
        )
        .with_columns(rank=rank_of("part", parts))
    )
    chart = (
        alt.Chart(rows, height=max(30 * len(services), 30))
        .mark_bar()
        .encode(
            x=alt.X(
                "lost:Q",
                title=None,
                scale=alt.Scale(domain=[0, 50]),
                axis=alt.Axis(tickCount=5),
            ),
            y=row_axis("name", services),
            yOffset=alt.YOffset("rank:O"),
            color=colour_scale("part", parts, look),
            tooltip=["name:N", "part:N", alt.Tooltip("lost:Q", format=".0f")],
        )
    )
    return styled(chart, look, "Points that each service lost; the longest bar counts")


def redrive_outcomes(redrive_outcomes: pl.DataFrame, look: Look = WIDE) -> Any:
    """How the redrives of each group ended, the most redriven first."""
    shown = (
        redrive_outcomes.sort("attempt_count", "group_id", descending=[True, False])
        .head(12)
        .with_columns(
            name=pl.format(
                "{} {} ({})",
                "error_class",
                pl.col("group_id").str.head(4),
                pl.col("attempt_count").map_elements("{:,}".format, return_dtype=pl.String),
            ),
            failed_again=pl.col("failed_again_count"),
            succeeded=pl.col("succeeded_count"),
            unknown=pl.col("outcome_unknown_count") + pl.col("waiting_count"),
            impossible=pl.sum_horizontal(*IMPOSSIBLE),
        )
    )
    names = shown["name"].to_list()
    rows = (
        shown.unpivot(list(_OUTCOMES), index="name", variable_name="outcome", value_name="count")
        .with_columns(pl.col("outcome").replace_strict(words(_OUTCOMES), default=""))
        .with_columns(rank=rank_of("outcome", _OUTCOMES))
    )
    chart = (
        alt.Chart(rows, height=max(24 * len(names), 24))
        .mark_bar()
        .encode(
            x=alt.X(
                "count:Q",
                stack="normalize",
                title=None,
                axis=alt.Axis(format="%", tickCount=4),
            ),
            y=row_axis("name", names),
            color=colour_scale("outcome", _OUTCOMES, look),
            order="rank:Q",
            tooltip=["name:N", "outcome:N", "count:Q"],
        )
    )
    return styled(chart, look, "Share of the redrives, by how they ended")
