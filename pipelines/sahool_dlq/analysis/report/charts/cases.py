"""Charts of cases: how long they last, how they end, the results of redrives, the health of
services.
"""

from collections.abc import Sequence
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
    share_axis,
    with_legend,
    words,
)
from sahool_dlq.analysis.report.charts.failures import MOST_SERIES
from sahool_dlq.analysis.report.theme import WIDE, Look, styled

__all__ = ["health_parts", "incidence", "redrive_outcomes", "survival"]

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
            color=alt.Color("value:N", scale=colours, legend=alt.Legend(symbolType="stroke")),
        )
    )
    half = (
        alt.Chart(pl.DataFrame({"half": [0.5]}))
        .mark_rule(color=look["muted"], strokeDash=[3, 3])
        .encode(y="half:Q")
    )
    return styled(half + with_legend(lines, "value", look), look, "Share of cases still open")


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
    return styled(with_legend(chart, "cause", look), look, "Share of cases, by how they ended")


def health_parts(service_health: pl.DataFrame, look: Look = WIDE) -> Any:
    """The parts that reduce each service's score; the largest part counts."""
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
    what = "Points that each service lost; the longest bar counts"
    return styled(with_legend(chart, "part", look), look, what)


def redrive_outcomes(redrive_outcomes: pl.DataFrame, look: Look = WIDE) -> Any:
    """How the redrives of each group ended, the most redriven first."""
    count = pl.col("attempt_count").map_elements("{:,}".format, return_dtype=pl.String)
    names = [pl.col("error_class"), pl.lit(" "), pl.col("group_id").str.head(4)]
    if not look.is_narrow:
        names += [pl.lit(" ("), count, pl.lit(")")]
    shown = (
        redrive_outcomes.sort("attempt_count", "group_id", descending=[True, False])
        .head(12)
        .with_columns(
            name=pl.concat_str(names),
            failed_again=pl.col("failed_again_count"),
            succeeded=pl.col("succeeded_count"),
            unknown=pl.col("outcome_unknown_count") + pl.col("waiting_count"),
            impossible=pl.sum_horizontal(*IMPOSSIBLE),
        )
    )
    order = shown["name"].to_list()
    rows = (
        shown.unpivot(list(_OUTCOMES), index="name", variable_name="outcome", value_name="count")
        .with_columns(pl.col("outcome").replace_strict(words(_OUTCOMES), default=""))
        .with_columns(rank=rank_of("outcome", _OUTCOMES))
    )
    chart = (
        alt.Chart(rows, height=max(24 * len(order), 24))
        .mark_bar()
        .encode(
            x=alt.X(
                "count:Q",
                stack="normalize",
                title=None,
                axis=alt.Axis(format="%", tickCount=4),
            ),
            y=row_axis("name", order),
            color=colour_scale("outcome", _OUTCOMES, look),
            order="rank:Q",
            tooltip=["name:N", "outcome:N", "count:Q"],
        )
    )
    what = "Share of the redrives, by how they ended"
    return styled(with_legend(chart, "outcome", look), look, what)
