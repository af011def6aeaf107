"""Charts of failures: when, which type, which service, and their common values."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import altair as alt
import polars as pl

from sahool_dlq.analysis.report.axes import (
    at,
    duration_name,
    largest,
    row_axis,
    shade_scale,
    shaded,
    step_seconds,
    time_axis,
    whole_parts,
    whole_start,
    with_legend,
    with_zoom,
)
from sahool_dlq.analysis.report.theme import WIDE, Look, styled

__all__ = [
    "MOST_SERIES",
    "contributors",
    "failures_by_type",
    "group_trends",
    "hour_of_week",
    "open_failures",
    "service_heat_map",
    "shares_apart",
    "timeline",
]

MOST_SERIES = 6
_OTHERS = "other"
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def failures_by_type(
    failures_minutely: pl.DataFrame, start: datetime, end: datetime, look: Look = WIDE
) -> Any:
    """Dead letters by time from `start` to `end`, stacked by type; rare types are combined.

    They are counted per minute, or per second if a bar is shorter than a minute.
    """
    step = step_seconds((end - start).total_seconds(), 48 if look.is_narrow else 96)
    start = whole_start(start, end, step)
    shown = failures_minutely.filter(pl.col("minute_at").is_between(start, end, closed="right"))
    unit, seconds = ("second", 1) if step < 60 else ("minute", 60)
    types, colours = _types(shown, "failure_count", look)
    frame = (
        shown.group_by(whole_parts(end, step).alias("from"), _type_of(types).alias("type"))
        .agg(rate=pl.col("failure_count").sum() * seconds / step)
        .with_columns(to=pl.col("from") + timedelta(seconds=step), rank=_rank(types))
        .sort("from", "rank")
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
            tooltip=[
                at("from"),
                alt.Tooltip("type:N"),
                alt.Tooltip("rate:Q", format=".2f", title=f"a {unit}"),
            ],
        )
    )
    return styled(
        with_zoom(with_legend(chart, "type", look), look), look, f"Dead letters a {unit}, by type"
    )


def timeline(events: pl.DataFrame, start: datetime, end: datetime, look: Look = WIDE) -> Any:
    """Messages about failures over time: `events` has at (UTC), kind and count."""
    step = step_seconds((end - start).total_seconds(), 120)
    kinds = events.group_by("kind").agg(pl.col("at").min()).sort("at", "kind")["kind"].to_list()
    frame = (
        events.group_by(pl.col("at").dt.truncate(f"{step}s").alias("from"), "kind")
        .agg(pl.col("count").sum())
        .sort("from", "kind")
    )
    chart = (
        alt.Chart(frame, height=max(28 * len(kinds), 28))
        .mark_circle(opacity=0.8, color=look["blue"])
        .encode(
            x=time_axis("from", start, end, look),
            y=row_axis("kind", kinds),
            size=alt.Size("count:Q", scale=alt.Scale(range=[20, 500]), legend=None),
            tooltip=[at("from"), "kind:N", alt.Tooltip("count:Q", format=",")],
        )
    )
    return styled(with_zoom(chart, look), look, f"What happened in each {duration_name(step)}")


def open_failures(
    moments: pl.DataFrame,
    start: datetime,
    end: datetime,
    look: Look = WIDE,
    marks: pl.DataFrame | None = None,
) -> Any:
    """How many failures were open at each time from `start` to `end`, stacked by type.

    `marks` are times at which something else happened: at (UTC) and what, each with a line.
    """
    types, colours = _types(moments, "opened_count", look)
    step = step_seconds((end - start).total_seconds(), 240)
    changed = (
        moments.group_by(
            pl.col("at").dt.truncate(f"{step}s").alias("at"), _type_of(types).alias("type")
        )
        .agg(change=pl.col("opened_count").sum() - pl.col("closed_count").sum())
        .rename({"at": "time"})
    )
    times = pl.concat([changed.select("time"), pl.DataFrame({"time": [start, end]})]).unique()
    frame = (
        times.join(pl.DataFrame({"type": types}), how="cross")
        .join(changed, on=["time", "type"], how="left")
        .sort("time")
        .with_columns(
            open=pl.col("change").fill_null(0).cum_sum().over("type"),
            rank=_rank(types),
        )
        .sort("time", "rank")
    )
    lines = [] if marks is None else _marked(marks, start, end, look)
    most = max(frame.group_by("time").agg(pl.col("open").sum())["open"].to_list())
    room = alt.Scale(domainMax=1.15 * most) if lines else alt.Scale()  # for their names
    chart = (
        alt.Chart(frame.select("time", "type", "open", "rank"), height=200)
        .mark_area(interpolate="step-after")
        .encode(
            x=time_axis("time", start, end, look),
            y=alt.Y("open:Q", stack="zero", axis=alt.Axis(tickCount=4), scale=room),
            color=alt.Color("type:N", scale=alt.Scale(domain=types, range=colours)),
            order=alt.Order("rank:Q", sort="descending"),
            tooltip=[at("time"), "type:N", alt.Tooltip("open:Q", format=",")],
        )
    )
    chart = with_zoom(with_legend(chart, "type", look), look)
    whole = alt.LayerChart(layer=[chart, *lines]) if lines else chart
    return styled(whole, look, "Open failures, by type")


def _marked(marks: pl.DataFrame, start: datetime, end: datetime, look: Look) -> list[alt.Chart]:
    """A line for each of the marks from `start` to `end`, with its name on top."""
    shown = alt.Chart(marks.filter(pl.col("at").is_between(start, end)))
    lines = shown.encode(x=time_axis("at", start, end, look), tooltip=[at("at"), "what:N"])
    return [
        lines.mark_rule(strokeDash=[4, 3], color=look["muted"]),
        lines.mark_text(align="left", dx=4, baseline="top", color=look["ink"]).encode(
            text="what:N", y=alt.value(0)
        ),
    ]


def service_heat_map(
    failures_minutely: pl.DataFrame, start: datetime, end: datetime, look: Look = WIDE
) -> Any:
    """Which service failed when, and how much: services by time."""
    step = step_seconds((end - start).total_seconds(), 28 if look.is_narrow else 84)
    start = whole_start(start, end, step)
    shown = failures_minutely.filter(pl.col("minute_at").is_between(start, end, closed="right"))
    services = largest(shown, "service", "failure_count", 15)
    parts = whole_parts(end, step)
    cells = (
        shown.filter(pl.col("service").is_in(services))
        .group_by("service", parts.alias("from"))
        .agg(count=pl.col("failure_count").sum())
        .with_columns(to=pl.col("from") + timedelta(seconds=step))
        .sort("service", "from")
    )
    unit = duration_name(step)
    chart = (
        alt.Chart(shaded(cells, "count"), height=max(22 * len(services), 22))
        .mark_rect()
        .encode(
            x=time_axis("from", start, end, look),
            x2="to:T",
            y=row_axis("service", services),
            color=shade_scale(cells, "count", look),
            tooltip=["service:N", at("from"), alt.Tooltip("count:Q", format=",")],
        )
    )
    return styled(with_zoom(chart, look), look, f"Dead letters in {unit}, by service")


def group_trends(trends: pl.DataFrame, look: Look = WIDE) -> Any:
    """A small curve of each group: `trends` has name, at and failure_count, groups in order.

    Each curve has its own scale: it shows when, the number beside it how many.
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


def contributors(
    contributors: pl.DataFrame, subject: str = "last 24 hours", look: Look = WIDE
) -> Any:
    """Values that a subject has more often than the rest: their share there, and elsewhere."""
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
    here, elsewhere = (
        (subject, "the week before")
        if subject == "last 24 hours"
        else ("this group", "other groups")
    )
    shares = rows.select(
        "what", pl.col("share").alias(here), pl.col("baseline_share").alias(elsewhere)
    )
    return shares_apart(shares, "Share of the failures that have this", look)


def shares_apart(shares: pl.DataFrame, title: str, look: Look) -> Any:
    """Two shares of each of `what`, joined by a line; the other columns have their names."""
    what, here, elsewhere = shares.columns
    names = shares[what].to_list()
    y = row_axis(what, names)
    long = shares.unpivot([here, elsewhere], index=what, variable_name="where", value_name="part")
    colours = alt.Scale(domain=[here, elsewhere], range=[look["red"], look["grey"]])
    x = alt.X(
        "part:Q",
        title=None,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", tickCount=4),
    )
    ends = shares.select(what, share=here, baseline_share=elsewhere)
    bars = (
        alt.Chart(ends, height=max(26 * len(names), 26))
        .mark_rule(color=look["grey"], strokeWidth=2)
        .encode(x="share:Q", x2="baseline_share:Q", y=y)
    )
    # Names of common values are long: there is no space for two charts side by side.
    legend = alt.Legend(columns=1) if look.is_narrow else alt.Legend()
    dots = (
        alt.Chart(long)
        .mark_circle(size=110, opacity=1)
        .encode(x=x, y=y, color=alt.Color("where:N", scale=colours, legend=legend))
    )
    return styled(bars + dots, look, title)


def _types(frame: pl.DataFrame, count: str, look: Look) -> tuple[list[str], list[str]]:
    """The largest types and, if there are more, one for the others; and their colours."""
    common = largest(frame, "error_class", count, MOST_SERIES)
    has_others = frame["error_class"].n_unique() > len(common)
    types = [*common, _OTHERS] if has_others else common
    return types, [*look.series[: len(common)], look["grey"]][: len(types)]


def _type_of(types: Sequence[str]) -> pl.Expr:
    is_common = pl.col("error_class").is_in([name for name in types if name != _OTHERS])
    return pl.when(is_common).then("error_class").otherwise(pl.lit(_OTHERS))


def _rank(types: Sequence[str]) -> pl.Expr:
    return pl.col("type").replace_strict({name: n for n, name in enumerate(types)}, default=0)
