"""The report as one HTML page that needs nothing else: no script, no network, charts included.

All texts are escaped, by Jinja or by the drawing of the charts. There are two versions of each
chart, for a wide screen and for a phone, and one for light and dark: see `look`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from sahool_dlq.analysis.report import charts, incidents
from sahool_dlq.analysis.report.section import Section, cell_text
from sahool_dlq.analysis.report.tables import needed_width
from sahool_dlq.analysis.report.theme import DARK, LIGHT, PHONE, WIDE, Look, as_svgs

__all__ = ["Figure", "as_html", "as_page", "as_table", "figures", "incident_page"]

_Draw = Callable[[Look], Any]
_NOT_DRAWN = Markup("<p>This chart could not be drawn; the table below it has the numbers.</p>")


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with its explanation."""

    draw: _Draw
    caption: str


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A figure for a wide screen and print, and for a phone."""

    wide: Markup
    narrow: Markup
    caption: str


def as_html(
    frames: Mapping[str, pl.DataFrame],
    parts: Sequence[Section],
    now: datetime,
    headline: str = "",
    course: incidents.Course | None = None,
) -> str:
    """The page: a sentence, the sections, and the charts of the same frames and of an incident."""
    found = figures(frames, now)
    if course and "moments" not in frames:  # of a young log it would be a few bars
        found["Incidents"] = [_of_incident(course, now)]
    return as_page("Dead letters", parts, now, _drawn(found), headline)


def incident_page(incident: incidents.Incident, now: datetime) -> str:
    """The page of one incident: what it was, its chart, its timeline and groups."""
    timeline = incidents.timeline(incident)
    drawn = _drawn({timeline.title: [_of_incident(incident.course, now)]})
    parts = [incidents.figures(incident, now), timeline, incidents.groups(incident)]
    title = f"Incident {incident.row['incident_id']}"
    return as_page(title, parts, now, drawn, incidents.in_words(incident.row))


def _of_incident(course: incidents.Course, now: datetime) -> Figure:
    row = course.row
    return Figure(
        lambda look: charts.incident(course.minutes, course.deploys, row["until_at"] or now, look),
        f"{row['incident_id']}: services in the order in which they joined, and what was done"
        " about these failures. Each row has its own scale; the number is the sum of its bars."
        " Grey: failures of the same groups before and after. A dashed line is a version that"
        " began to run.",
    )


def as_page(
    title: str,
    parts: Sequence[Section],
    now: datetime,
    drawn: Mapping[str, Sequence[_Drawn]] | None = None,
    headline: str = "",
) -> str:
    """A page of sections with charts; the first section is a strip of numbers."""
    now_part, *rest = parts
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            now=now,
            headline=headline,
            strip=now_part,
            sections=[(part, form) for part, form in _forms(rest, drawn or {}) if form],
            unfound=[part for part, form in _forms(rest, drawn or {}) if not form],
            figures=drawn or {},
            widths=sorted({needed_width(part) for part in rest if part.rows}),
            light=LIGHT,
            dark=DARK,
        )
    )


def as_table(part: Section) -> str:
    """One section's table, with its title, for a page of others."""
    return _environment().get_template("alone.html").render(part=part)


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": cell_text, "width": needed_width}
    return environment


def _forms(
    parts: Sequence[Section], drawn: Mapping[str, Sequence[_Drawn]]
) -> list[tuple[Section, str]]:
    """Each section and its place on a wide screen; none if it has neither rows nor charts.

    Sections without charts are in pairs, a last one alone; one with a single chart is beside it.
    """
    found: list[tuple[Section, str]] = []
    is_left = True
    for part in parts:
        charts_of = len(drawn.get(part.title, ()))
        if not part.rows and not charts_of:
            found.append((part, ""))
            continue
        form = "half" if drawn and not charts_of else "beside" if charts_of == 1 else "whole"
        if form != "half" and not is_left:
            _widen(found)
        is_left = not is_left if form == "half" else True
        found.append((part, form))
    if not is_left:
        _widen(found)
    return found


def _widen(found: list[tuple[Section, str]]) -> None:
    """Give the latest visible section the full width."""
    last = max(nth for nth, (_, form) in enumerate(found) if form)
    found[last] = (found[last][0], "whole")


def _drawn(found: Mapping[str, Sequence[Figure]]) -> dict[str, list[_Drawn]]:
    """The figures by section, drawn together, because a drawing process starts slowly."""
    every = [figure for those in found.values() for figure in those]
    svgs = as_svgs([figure.draw(look) for figure in every for look in (WIDE, PHONE)])
    # Vega escapes all texts.
    shown = iter([Markup(svg) if svg else _NOT_DRAWN for svg in svgs])  # noqa: S704  (the drawing library escapes)
    return {
        title: [_Drawn(next(shown), next(shown), figure.caption) for figure in those]
        for title, those in found.items()
    }


def figures(frames: Mapping[str, pl.DataFrame], now: datetime) -> dict[str, list[Figure]]:
    """The charts by the title of their section; none for an empty frame."""
    failures = frames["failures_minutely"]
    if "moments" in frames:  # its seconds are drawn like minutes
        failures = frames["moments"].rename({"at": "minute_at", "opened_count": "failure_count"})
        failures = failures.filter(pl.col("failure_count") > 0)
    oldest = failures["minute_at"].min()
    if not isinstance(oldest, datetime):
        return {}  # there is nothing to be drawn

    def since(days: float) -> datetime:
        # A young log fills the width of its chart.
        before = oldest - timedelta(seconds=1)
        return max(now - timedelta(days=days), min(before, now - timedelta(seconds=10)))

    by_type = Figure(
        lambda look: charts.failures_by_type(failures, since(1), now, look),
        "How fast failures came, and of which kind. A step up in one colour is one cause.",
    )
    by_service = Figure(
        lambda look: charts.service_heat_map(failures, since(7), now, look),
        "Each row is a service. A column of strong colour through several rows is an outage"
        " that they share; a row of it is one service's own trouble.",
    )
    found = {
        "Failure groups": [by_type, by_service],
        "Health per service": [
            Figure(
                lambda look: charts.health_parts(frames["service_health"], look),
                "A score is 100 less the longest bar, so it says which part to mend first.",
            )
        ],
        "Time to resolution": [
            Figure(
                lambda look: charts.survival(frames["resolution_curves"], look=look),
                "Where a curve crosses the dashed line, half of its cases were closed. A curve"
                " that ends above zero has cases that are still open. The time axis is"
                " logarithmic.",
            ),
            Figure(
                lambda look: charts.incidence(frames["resolution_curves"], look=look),
                "Read upwards at a time: the share of all cases closed by then, by each cause; the"
                " grey rest was still open.",
            ),
        ],
    }
    if "moments" in frames:
        backlog = Figure(
            lambda look: charts.open_failures(frames["moments"], since(1), now, look),
            "What rises has failed; what falls was cured, by a redrive or by hand. What stays"
            " waits for a person.",
        )
        found["Failure groups"] = [backlog, by_service]
    if not frames["redrive_outcomes"].is_empty():
        found["Redrive outcomes"] = [
            Figure(
                lambda look: charts.redrive_outcomes(frames["redrive_outcomes"], look),
                "Mostly green: redrive it. Mostly red: mend the cause first.",
            )
        ]
    if not frames["contributors"].filter(pl.col("subject") == "last 24 hours").is_empty():
        found["More frequent than before"] = [
            Figure(
                lambda look: charts.contributors(frames["contributors"], look=look),
                "The wider the gap between the dots, the more this stands out.",
            )
        ]
    if not frames["hour_of_week"].is_empty():
        found["Hours of the week"] = [
            Figure(
                lambda look: charts.hour_of_week(frames["hour_of_week"], look=look),
                "Working hours show as a block. A lone strong cell may be a single outage: the"
                " table names only hours that stood out in three quarters of the weeks.",
            )
        ]
    return found
