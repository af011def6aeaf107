"""Axes, scales and colours that several charts share."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil
from typing import Any

import altair as alt
import polars as pl

from sahool_dlq.analysis.report.theme import Look

__all__ = [
    "Meaning",
    "at",
    "colour_scale",
    "duration_axis",
    "duration_name",
    "from_first",
    "largest",
    "rank_of",
    "row_axis",
    "shade_scale",
    "shaded",
    "share_axis",
    "step_seconds",
    "time_axis",
    "whole_parts",
    "whole_start",
    "with_legend",
    "with_zoom",
    "words",
]

_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080)
_STEPS = (1, 2, 5, 10, 15, 30, *(60 * minutes for minutes in _MINUTES))  # seconds
_DURATIONS = [0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400]
_FINE_DURATIONS = [0.01, 0.1, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600]
_FEW_TICKS = 3  # a shorter axis has the fine ones
_AS_DURATION = (
    "datum.value < 60 ? datum.value + ' s' : datum.value < 3600 ? datum.value / 60 + ' min'"
    " : datum.value < 86400 ? datum.value / 3600 + ' h' : datum.value / 86400 + ' d'"
)
_AS_TIME = (
    "utcFormat(datum.value, utcseconds(datum.value) ? '%H:%M:%S'"
    " : utchours(datum.value) || utcminutes(datum.value) ? '%H:%M' : '%e %b')"
)


def step_seconds(seconds: float, most: int) -> int:
    """The smallest round number of seconds that gives at most this many parts."""
    return next((step for step in _STEPS if seconds / step <= most), _STEPS[-1])


def duration_name(seconds: int) -> str:
    """A round number of seconds in its largest unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def whole_parts(end: datetime, step: int) -> pl.Expr:
    """The start of the part of `step` seconds that contains minute_at; the last part ends at `end`.

    Counted back from the end, so that the last part is as long as the others.
    """
    parts = (pl.lit(end) - pl.col("minute_at")).dt.total_seconds() // step + 1
    return pl.lit(end) - pl.duration(seconds=parts * step)


def whole_start(start: datetime, end: datetime, step: int) -> datetime:
    """The start of the part that contains `start`."""
    return end - timedelta(seconds=step * ceil((end - start).total_seconds() / step))


def largest(frame: pl.DataFrame, name: str, count: str, most: int) -> list[str]:
    """The values with the largest sums, the largest first."""
    sums = frame.group_by(name).agg(pl.col(count).sum()).sort(count, name, descending=[True, False])
    return sums[name].head(most).to_list()


def time_axis(name: str, start: datetime | None, end: datetime | None, look: Look) -> alt.X:
    scale = alt.Scale(type="utc", nice=False)
    if start and end:
        scale.domain = [1000 * start.timestamp(), 1000 * end.timestamp()]
    return alt.X(
        f"{name}:T",
        title=None,
        scale=scale,
        axis=alt.Axis(
            tickCount=4 if look.is_narrow else 8,
            labelExpr=_AS_TIME,
            grid=False,
            labelOverlap=True,
            labelSeparation=8,
        ),
    )


def duration_axis(frame: pl.DataFrame) -> alt.X:
    """Time since a case opened: seconds to weeks on one axis."""
    low, high = _number(frame["t_seconds"].min()), _number(frame["t_seconds"].max())
    ticks = [tick for tick in _DURATIONS if low <= tick <= high]
    if len(ticks) < _FEW_TICKS:
        ticks = [tick for tick in _FINE_DURATIONS if low <= tick <= high]
    return alt.X(
        "t_seconds:Q",
        title="time since it failed",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=ticks, labelExpr=_AS_DURATION, grid=False, labelOverlap=True),
    )


def from_first(curves: pl.DataFrame) -> pl.DataFrame:
    """The curves from just before the first end, because a logarithm has no zero."""
    low = max(0.1, _number(curves.filter(pl.col("t_seconds") > 0)["t_seconds"].min()) / 2)
    longest = pl.lit(max(_number(curves["t_seconds"].max()), 2 * low))
    cohort = ["dimension", "value"]
    ends = curves.group_by(cohort, maintain_order=True).last().with_columns(t_seconds=longest)
    whole = pl.concat([curves.with_columns(pl.col("t_seconds").clip(low)), ends])
    return whole.unique([*cohort, "t_seconds"], keep="last", maintain_order=True)


def _number(value: Any) -> float:
    """A column's minimum or maximum, 0 if it has no rows."""
    return float(value or 0)


def share_axis(name: str) -> alt.Y:
    return alt.Y(
        f"{name}:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", tickCount=4),
    )


def row_axis(name: str, values: Sequence[str]) -> alt.Y:
    """One row for each, in this order, without lines."""
    return alt.Y(
        f"{name}:N",
        title=None,
        sort=list(values),
        scale=alt.Scale(domain=list(values)),
        axis=alt.Axis(ticks=False, grid=False, labelPadding=8),
    )


Meaning = dict[str, tuple[str, str]]
"""The names of a column's values and of their colours, in order."""


def words(meaning: Meaning) -> dict[str, str]:
    return {value: word for value, (word, _) in meaning.items()}


def rank_of(name: str, meaning: Meaning) -> pl.Expr:
    ranks = {word: rank for rank, (word, _) in enumerate(meaning.values())}
    return pl.col(name).replace_strict(ranks, default=0)


def colour_scale(name: str, meaning: Meaning, look: Look) -> alt.Color:
    words = [word for word, _ in meaning.values()]
    colours = [look[colour] for _, colour in meaning.values()]
    return alt.Color(f"{name}:N", scale=alt.Scale(domain=words, range=colours))


def _limits(most: float) -> list[float]:
    """The class limits of a heat map: 1, 2, 5, 10, … up to below the largest value."""
    limits = [factor * 10**power for power in range(9) for factor in (1, 2, 5)]
    return [limit for limit in limits if limit <= most][-5:]


def _labels(most: float) -> list[str]:
    limits = _limits(most)
    if not limits:
        return ["below 1"]
    between = [f"{low:,} to {high:,}" for low, high in pairwise(limits)]
    return [f"below {limits[0]:,}", *between, f"{limits[-1]:,} and more"]


def shaded(cells: pl.DataFrame, name: str) -> pl.DataFrame:
    """The cells that are not empty, each with its colour."""
    most = _number(cells[name].max())
    limits, labels = _limits(most), _labels(most)
    shade = pl.sum_horizontal(pl.lit(0), *(pl.col(name) >= limit for limit in limits))
    return cells.filter(pl.col(name) > 0).with_columns(
        shade=shade.replace_strict(dict(enumerate(labels)), default="")
    )


def shade_scale(cells: pl.DataFrame, name: str, look: Look) -> alt.Color:
    labels = _labels(_number(cells[name].max()))
    return alt.Color(
        "shade:N",
        scale=alt.Scale(domain=labels, range=look.ramp[-len(labels) :]),
        legend=alt.Legend(columns=3 if look.is_narrow else 6),
    )


def at(name: str) -> alt.Tooltip:
    """The time, UTC, at the pointer."""
    return alt.Tooltip(f"utcyearmonthdatehoursminutesseconds({name}):T", title="time, UTC")


def with_legend(chart: alt.Chart, name: str, look: Look) -> alt.Chart:
    """In an interactive look, a click in the legend fades the other series."""
    if not look.is_interactive:
        return chart
    chosen = alt.selection_point(fields=[name], bind="legend")
    opacity = alt.when(chosen).then(alt.value(1)).otherwise(alt.value(0.12))
    return chart.add_params(chosen).encode(opacity=opacity)


def with_zoom(chart: alt.Chart, look: Look) -> alt.Chart:
    """In an interactive look, the wheel zooms the time axis and dragging moves it."""
    return chart.interactive(bind_y=False) if look.is_interactive else chart
