"""Charts of incidents: all of them, and one: who failed when, and what was done."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import altair as alt
import polars as pl

from sahool_dlq.analysis.report.axes import (
    at,
    duration_name,
    largest,
    row_axis,
    step_seconds,
    time_axis,
    with_legend,
    with_zoom,
)
from sahool_dlq.analysis.report.section import seconds_as_text
from sahool_dlq.analysis.report.theme import WIDE, Look, styled

__all__ = ["all_incidents", "incident"]

_MOST_SERVICES = 12
_ROLES = ("failed first", "joined")
_FAILED, _DONE = 1.0, 0.64  # heights of lanes
_OF_LANE = 0.5  # how high its highest bar is; the rest is for its name
_PIXELS = 60  # of a lane of height 1
_NAME_LIMITS = (56, 26)  # characters, on a wide and on a narrow chart
_COLOURS = {
    "alerted": "orange",
    "redrive.published": "sky",
    "redrive.succeeded": "green",
    "redrive.failed_again": "purple",
}
_WORDS = {"redrive.published": "redriven", "redrive.succeeded": "redrives that succeeded"}


def all_incidents(incidents: pl.DataFrame, now: datetime, look: Look = WIDE) -> Any:
    """Which services were in which incident, and which one was first: services by time.

    A circle's size is the number of failures of the whole incident.
    """
    is_first = pl.col("service") == pl.col("services").list.first()
    rows = (
        incidents.select(
            "incident_id",
            "failure_count",
            pl.col("from_at").alias("from"),
            pl.col("until_at").fill_null(now).alias("to"),
            pl.col("services").str.split(", "),
        )
        .with_columns(pl.col("services").alias("service"))
        .explode("service")
        .with_columns(role=pl.when(is_first).then(pl.lit(_ROLES[0])).otherwise(pl.lit(_ROLES[1])))
        .drop("services")
    )
    services = largest(rows, "service", "failure_count", _MOST_SERVICES)
    oldest = rows["from"].min()
    assert isinstance(oldest, datetime)
    margin = max((now - oldest) / 30, timedelta(minutes=5))  # for half a circle
    x = time_axis("from", oldest - margin, now + margin, look)
    colours = alt.Scale(domain=list(_ROLES), range=[look["red"], look["sky"]])
    chart = (
        alt.Chart(rows.filter(pl.col("service").is_in(services)), height=30 * len(services))
        .mark_circle(opacity=0.75)
        .encode(
            x=x,
            y=row_axis("service", services),
            size=alt.Size("failure_count:Q", scale=alt.Scale(range=[30, 600]), legend=None),
            color=alt.Color("role:N", scale=colours),
            tooltip=[
                "incident_id:N",
                at("from"),
                at("to"),
                alt.Tooltip("failure_count:Q", format=","),
            ],
        )
    )
    return styled(with_zoom(with_legend(chart, "role", look), look), look, "Incidents, by service")


def incident(minutes: pl.DataFrame, deploys: pl.DataFrame, end: datetime, look: Look = WIDE) -> Any:
    """Failures a minute of each service, in the order in which they joined, and what was done.

    `minutes` has minute_at, kind (`failed`, or of a message of the log), service (of failures),
    count, first_at, and is_in: whether the failures are part of the incident. `deploys` is the
    mart. Each lane has its own scale, and at its right its sum. `end` is the end of the incident,
    or now; an eighth of its time is shown before it, and up to a half after it.
    """
    own = minutes.filter("is_in", kind="failed")
    services = _joined(own)
    first = services["first_at"].min()
    assert isinstance(first, datetime)
    times = pl.concat([minutes["minute_at"], deploys["first_seen_at"]])
    start, stop = _window(times, first, end)
    step = max(step_seconds((stop - start).total_seconds(), 80 if look.is_narrow else 160), 60)
    shown = minutes.filter(pl.col("minute_at").is_between(start, stop, closed="left"))
    lanes = _lanes(services, own, shown, look)
    bars = _bars(shown, lanes, start, step, look)
    heights = float(lanes["height"].sum())
    x = time_axis("from", start, stop, look)
    scale = alt.Scale(domain=[0, heights], nice=False, zero=False)

    def y(name: str) -> alt.Y:
        return alt.Y(f"{name}:Q", axis=None, scale=scale)

    base = alt.Chart(lanes, height=_PIXELS * heights)
    text: dict[str, Any] = {"baseline": "top", "fontSize": 11, "dy": 4}
    layers = [
        base.mark_rule(color=look["grid"]).encode(y=y("base")),
        base.mark_text(align="left", color=look["ink"], **text).encode(
            x=alt.value(2), y=y("top"), text="name:N"
        ),
        base.mark_text(align="right", color=look["muted"], **text).encode(
            x=alt.value("width"), y=y("top"), text="note:N"
        ),
        with_zoom(
            alt.Chart(bars)
            .mark_bar(orient="vertical")
            .encode(
                x=x,
                x2="to:T",
                y=y("low"),
                y2="high:Q",
                color=alt.Color("colour:N", scale=None),
                tooltip=["name:N", at("from"), alt.Tooltip("count:Q", format=",")],
            ),
            look,
        ),
        *_versions(deploys, lanes, start, stop, look, y),
    ]
    more = own["service"].n_unique() - services.height
    which = f" (the first {_MOST_SERVICES} of {_MOST_SERVICES + more})" if more else ""
    done = "" if look.is_narrow and which else ", and what was done"
    what = f"Failures in {duration_name(step)}, by service{which}{done}"
    return styled(alt.LayerChart(layer=layers), look, what)


def _joined(own: pl.DataFrame) -> pl.DataFrame:
    """The services in the order in which they joined, and when."""
    joined = own.group_by("service").agg(pl.col("first_at").min())
    return joined.sort("first_at", "service").head(_MOST_SERVICES)


def _window(times: pl.Series, first: datetime, end: datetime) -> tuple[datetime, datetime]:
    """What is shown: whole minutes, up to the last of `times` that is soon after the end."""
    lasted = end - first
    margin = max(lasted / 8, timedelta(minutes=5))
    start = (first - margin).replace(second=0, microsecond=0)
    last = times.filter(times <= end + max(lasted / 2, margin)).max()
    assert isinstance(last, datetime)
    return start, max(end, last + timedelta(minutes=1)) + margin / 4


def _lanes(
    services: pl.DataFrame, own: pl.DataFrame, shown: pl.DataFrame, look: Look
) -> pl.DataFrame:
    """One row for each service, and for each kind of what was done: name, note, place, colour."""
    limit = _NAME_LIMITS[look.is_narrow]
    done = (
        shown.filter(pl.col("kind") != "failed")
        .group_by("kind")
        .agg(pl.col("first_at").min(), pl.col("count").sum())
        .sort("first_at", "kind")
    )
    rows: list[dict[str, Any]] = []
    for service, joined_at in services.iter_rows():
        after = (joined_at - services["first_at"][0]).total_seconds()
        of_it = own.filter(service=service)["count"]
        when = f"{seconds_as_text(after)} later · " if rows else "first · "
        note = (when if services.height > 1 else "") + f"{of_it.sum():,}"
        name = service if len(service) <= limit else f"{service[: limit - 1]}…"
        row = {"kind": "failed", "service": service, "name": name, "note": note}
        rows.append(row | {"height": _FAILED, "colour": look["red"]})
    for kind, _, count in done.iter_rows():
        words = _WORDS.get(kind, kind.rpartition(".")[2].replace("_", " "))
        row = {"kind": kind, "service": None, "name": words, "note": f"{count:,}"}
        colour = look[_COLOURS.get(kind.removeprefix("triage."), "blue")]
        rows.append(row | {"height": _DONE, "colour": colour})
    frame = pl.DataFrame(rows, schema_overrides={"service": pl.String})
    below = frame["height"].sum() - pl.col("height").cum_sum()
    return frame.with_columns(base=below, top=below + pl.col("height"))


def _bars(
    shown: pl.DataFrame, lanes: pl.DataFrame, start: datetime, step: int, look: Look
) -> pl.DataFrame:
    """What the bars of each lane are: from, to, low, high, count, colour."""
    parts = (pl.col("minute_at") - pl.lit(start)).dt.total_seconds() // step
    begin = pl.lit(start) + pl.duration(seconds=parts * step)
    counted = shown.group_by("kind", "service", begin.alias("from"), "is_in").agg(
        pl.col("count").sum()
    )
    placed = counted.join(lanes, on=["kind", "service"], nulls_equal=True)
    lane = ["kind", "service"]
    together = pl.col("count").sum().over(*lane, "from")
    unit = _OF_LANE * pl.col("height") / together.max().over(lane)
    below = pl.col("count").cum_sum().over(*lane, "from", order_by="is_in") - pl.col("count")
    return placed.with_columns(
        to=pl.col("from") + timedelta(seconds=step),
        low=pl.col("base") + below * unit,
        high=pl.col("base") + (below + pl.col("count")) * unit,
        colour=pl.when("is_in").then("colour").otherwise(pl.lit(look["grey"])),
    ).sort("base", "from", descending=[True, False])


def _versions(
    deploys: pl.DataFrame,
    lanes: pl.DataFrame,
    start: datetime,
    stop: datetime,
    look: Look,
    y: Callable[[str], alt.Y],
) -> Sequence[alt.Chart]:
    """A line for each version of a service, in its lane, from when it ran."""
    came = (
        deploys.select(
            "service", pl.col("first_seen_at").alias("from"), pl.col("consumer_version").alias("v")
        )
        .filter(pl.col("from").is_between(start, stop))
        .join(lanes.filter(kind="failed"), on="service")
    )
    came = came.with_columns(edge=pl.col("base") + _OF_LANE * pl.col("height")).sort("from")
    if came.is_empty():
        return []
    x = time_axis("from", start, stop, look)
    lines = alt.Chart(came).mark_rule(color=look["ink"], strokeDash=[3, 3])
    layers = [lines.encode(x=x, y=y("base"), y2="edge:Q", tooltip=["v:N", at("from")])]
    text: dict[str, Any] = {"baseline": "bottom", "dy": -1, "fontSize": 10, "color": look["muted"]}
    named = _named(came, start, stop, look)
    for side in ("left", "right"):
        rows = named.filter(side=side)
        if rows.height:
            names = alt.Chart(rows).mark_text(align=side, **text)
            layers.append(names.encode(x=x, y=y("edge"), text="v:N"))
    return layers


def _named(came: pl.DataFrame, start: datetime, stop: datetime, look: Look) -> pl.DataFrame:
    """The versions whose names have room, and at which side of them the name begins."""
    free: dict[str, float] = {}  # by service: where its last name ends, as a share of the width
    sides: list[str | None] = []
    for service, begin, version in came.select("service", "from", "v").iter_rows():
        place, width = (begin - start) / (stop - start), (6 * len(version) + 6) / look.width
        side = "left" if place + width <= 1 else "right"
        left = place if side == "left" else place - width
        has_room = left >= free.get(service, 0)
        if has_room:
            free[service] = left + width
        sides.append(side if has_room else None)
    return came.with_columns(side=pl.Series(sides, dtype=pl.String)).drop_nulls("side")
