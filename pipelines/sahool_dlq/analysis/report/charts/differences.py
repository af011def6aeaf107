"""Charts of what separates failing events from succeeding ones."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from sahool_dlq.analysis.report.axes import (
    Meaning,
    at,
    colour_scale,
    duration_name,
    rank_of,
    step_seconds,
    time_axis,
    with_legend,
    with_zoom,
    words,
)
from sahool_dlq.analysis.report.charts.failures import shares_apart
from sahool_dlq.analysis.report.theme import WIDE, Look, styled
from sahool_dlq.analysis.why.difference import Comparison, Difference, conditions_in_words
from sahool_dlq.analysis.why.features import holds
from sahool_dlq.analysis.why.observation import Facts, Observation

__all__ = ["difference_shares", "difference_times"]

_EVENTS: Meaning = {
    "True True": ("failing, and meets it", "red"),
    "True False": ("failing", "orange"),
    "False True": ("succeeding, and meets it", "purple"),
    "False False": ("succeeding", "grey"),
}


def difference_shares(comparison: Comparison, look: Look = WIDE) -> Any:
    """The share of the failing, and of the succeeding, that meet each difference."""
    found = comparison.differences
    shares = pl.DataFrame(
        {
            "what": [conditions_in_words(each.conditions) for each in found],
            "failing": [each.share_of_failing for each in found],
            "succeeding": [each.share_of_succeeding for each in found],
        },
        schema={"what": pl.String, "failing": pl.Float64, "succeeding": pl.Float64},
    )
    return shares_apart(shares, "Share of the events that meet this", look)


def difference_times(
    difference: Difference,
    failing: Sequence[Observation],
    succeeding: Sequence[Observation],
    look: Look = WIDE,
) -> Any:
    """When the compared events were stored, and which of them meet the difference.

    A dashed line is the time before which none does.
    """
    times = [each.at for each in (*failing, *succeeding)]
    start, end = min(times), max(times)
    step = step_seconds((end - start).total_seconds(), 48)
    named = [
        (each.at, f"{is_failing} {_meets(difference, each)}")
        for is_failing, events in ((True, failing), (False, succeeding))
        for each in events
    ]
    frame = (
        pl.DataFrame(named, schema=["at", "kind"], orient="row")
        .group_by(
            pl.col("at").dt.truncate(f"{step}s").alias("from"),
            pl.col("kind").replace_strict(words(_EVENTS)),
        )
        .agg(count=pl.len())
        .with_columns(to=pl.col("from").dt.offset_by(f"{step}s"), rank=rank_of("kind", _EVENTS))
        .sort("from", "rank")
    )
    bars = (
        alt.Chart(frame, height=160)
        .mark_bar(orient="vertical")
        .encode(
            x=time_axis("from", start, end, look),
            x2="to:T",
            y=alt.Y("count:Q", stack="zero", axis=alt.Axis(tickCount=4)),
            color=colour_scale("kind", _EVENTS, look),
            order="rank:Q",
            tooltip=[at("from"), "kind:N", alt.Tooltip("count:Q", format=",")],
        )
    )
    since = pl.Series("since", [difference.since], pl.Datetime("us", "UTC")).drop_nulls()
    line = (
        alt.Chart(since.to_frame())
        .mark_rule(color=look["ink"], strokeDash=[3, 3])
        .encode(x="since:T")
    )
    chart = with_zoom(with_legend(bars, "kind", look), look) + line
    return styled(chart, look, f"Compared events in each {duration_name(step)}")


def _meets(difference: Difference, event: Observation) -> bool:
    facts = Facts.of(event)
    return all(holds(each, facts) for each in difference.conditions)
