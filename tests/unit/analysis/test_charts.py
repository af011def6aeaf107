"""The rows that the charts draw. How the charts look is not tested."""

from datetime import UTC, datetime, timedelta
from typing import Any

import altair as alt
import polars as pl
import pytest

from sahool_dlq.analysis.marts.resolution import CAUSES, curves, thin
from sahool_dlq.analysis.report import charts, incidents
from sahool_dlq.analysis.report.drawing import draw
from sahool_dlq.analysis.report.sections import printable_frames
from sahool_dlq.analysis.report.theme import DARK, LIGHT, NOTEBOOK, PHONE, WIDE, Look, as_svgs
from sahool_dlq.analysis.why.compare import compare
from sahool_dlq.deadletter.sanitize import UNPRINTABLE, readable
from sahool_dlq.simulation.planted import planted_sample

END = datetime(2026, 3, 4, 12, tzinfo=UTC)


def drawn(chart: Any) -> list[dict[str, Any]]:
    """All rows of all data of a chart."""
    return drawn_of(chart.to_dict())


def drawn_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for rows in spec["datasets"].values() for row in rows]


def minutes(*rows: tuple[int, str, str, int]) -> pl.DataFrame:
    """failures_minutely: minutes before END, service, error_class, failure_count."""
    return pl.DataFrame(
        {
            "minute_at": [END - timedelta(minutes=row[0]) for row in rows],
            "service": [row[1] for row in rows],
            "error_class": [row[2] for row in rows],
            "group_id": ["g" + row[2] for row in rows],
            "failure_count": [row[3] for row in rows],
        }
    )


def test_rates_are_a_minute_and_add_up_to_what_failed() -> None:
    frame = minutes((3, "a", "X", 30), (7, "a", "X", 15), (1430, "a", "Y", 5), (2000, "a", "Y", 9))
    rows = drawn(charts.failures_by_type(frame, END - timedelta(days=1), END))
    assert sum(row["rate"] * 15 for row in rows) == 50  # the fourth is too old
    assert {row["type"] for row in rows} == {"X", "Y"}
    assert max(row["rate"] for row in rows) == 3


def test_rare_types_are_one() -> None:
    frame = minutes(*((1, "a", f"T{n}", 10 - n) for n in range(9)))
    chart = charts.failures_by_type(frame, END - timedelta(hours=1), END)
    totals = {row["type"]: row["rate"] for row in drawn(chart)}
    assert list(totals) == ["T0", "T1", "T2", "T3", "T4", "T5", "other"]
    assert totals["other"] == 4 + 3 + 2
    scale = chart.to_dict()["encoding"]["color"]["scale"]
    assert scale["range"][-1] == LIGHT["grey"]
    assert len(set(scale["range"])) == 7


def test_the_heat_map_counts_each_service_and_shades_by_round_numbers() -> None:
    frame = minutes((1, "a", "X", 3), (2, "a", "Y", 60), (3, "b", "X", 1), (700, "b", "X", 9))
    rows = drawn(charts.service_heat_map(frame, END - timedelta(days=1), END))
    assert sorted((row["service"], row["count"], row["shade"]) for row in rows) == [
        ("a", 63, "50 and more"),
        ("b", 1, "below 2"),
        ("b", 9, "5 to 10"),
    ]


def test_a_young_log_is_drawn_by_seconds() -> None:
    at = pl.Series("minute_at", [END - timedelta(seconds=ago) for ago in (1, 1, 40)])
    frame = pl.DataFrame([at]).with_columns(
        service=pl.lit("a"), error_class=pl.lit("X"), failure_count=pl.Series([5, 3, 2])
    )
    start = END - timedelta(seconds=41)
    chart = charts.failures_by_type(frame, start, END)
    assert sorted(row["rate"] for row in drawn(chart)) == [2, 8]
    assert chart.to_dict()["title"]["text"] == "Dead letters a second, by type"
    heat = charts.service_heat_map(frame, start, END)
    begins, _ = heat.to_dict()["encoding"]["x"]["scale"]["domain"]
    assert min(row["from"] for row in drawn(heat)) == iso(begins)  # no cell before the axis


def iso(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


def test_open_failures_rise_when_they_fail_and_fall_when_they_are_closed() -> None:
    def moment(ago: int, name: str, opened: int, closed: int) -> dict[str, Any]:
        at = END - timedelta(seconds=ago)
        return {"at": at, "error_class": name, "opened_count": opened, "closed_count": closed}

    rows = [moment(30, "X", 9, 0), moment(20, "Y", 4, 0), moment(10, "X", 0, 7)]
    chart = charts.open_failures(pl.DataFrame(rows), END - timedelta(seconds=40), END)
    shown = {(row["time"], row["type"]): row["open"] for row in drawn(chart)}
    times = sorted({time for time, _ in shown})
    assert [shown[time, "X"] for time in times] == [0, 9, 9, 2, 2]
    assert [shown[time, "Y"] for time in times] == [0, 0, 4, 4, 4]


def test_open_failures_have_a_line_where_something_else_happened() -> None:
    rows = [{"at": END, "error_class": "X", "opened_count": 1, "closed_count": 0}]
    marks = pl.DataFrame({"at": [END - timedelta(hours=ago) for ago in (1, 3)], "what": ["b", "a"]})
    chart = charts.open_failures(pl.DataFrame(rows), END - timedelta(hours=2), END, marks=marks)
    _, lines, names = chart.to_dict()["layer"]
    assert (lines["mark"]["type"], names["encoding"]["text"]["field"]) == ("rule", "what")
    data = chart.to_dict()["datasets"]
    assert [row["what"] for row in data[lines["data"]["name"]]] == ["b"]  # a was before
    assert as_svgs([chart])[0]


def test_a_timeline_counts_each_kind_of_event_in_order_of_their_first() -> None:
    at = [END - timedelta(minutes=ago) for ago in (50, 40, 40, 5)]
    kinds = ["failed", "redrive.published", "redrive.published", "failed"]
    frame = pl.DataFrame({"at": at, "kind": kinds, "count": [1, 2, 3, 4]})
    chart = charts.timeline(frame, END - timedelta(hours=1), END)
    assert [(row["kind"], row["count"]) for row in drawn(chart)] == [
        ("failed", 1),
        ("redrive.published", 5),
        ("failed", 4),
    ]
    assert chart.to_dict()["encoding"]["y"]["sort"] == ["failed", "redrive.published"]


def course(*rows: tuple[int, str, str | None, int, bool]) -> pl.DataFrame:
    """Minutes of an incident: minutes before END, kind, service, count, is_in."""
    at = [END - timedelta(minutes=row[0]) for row in rows]
    columns = zip(*(row[1:] for row in rows), strict=True)
    values = dict(zip(("kind", "service", "count", "is_in"), columns, strict=True))
    return pl.DataFrame({"minute_at": at, "first_at": at, **values})


NO_DEPLOY = pl.DataFrame(
    schema={
        "service": pl.String,
        "consumer_version": pl.String,
        "first_seen_at": pl.Datetime("us", "UTC"),
    }
)


def test_an_incident_has_its_services_as_they_joined_then_what_was_done() -> None:
    minutes = course(
        (60, "failed", "b", 10, True),
        (58, "failed", "a", 4, True),
        (57, "failed", "a", 8, True),
        (57, "failed", "a", 2, False),  # another group's failures of that minute
        (66, "failed", "c", 99, False),  # only before: no part of it
        (40, "redrive.published", None, 22, True),
    )
    rows = drawn(charts.incident(minutes, NO_DEPLOY, END - timedelta(minutes=30)))
    lanes = [row for row in rows if "note" in row and "from" not in row]
    assert [(row["name"], row["note"]) for row in lanes] == [
        ("b", "first · 10"),
        ("a", "2.0 min later · 12"),
        ("redriven", "22"),
    ]
    tops = [row["top"] for row in lanes]
    assert tops == sorted(tops, reverse=True)
    bars = [row for row in rows if "low" in row]
    assert {(row["name"], row["count"], row["colour"]) for row in bars} == {
        ("b", 10, LIGHT["red"]),
        ("a", 4, LIGHT["red"]),
        ("a", 8, LIGHT["red"]),
        ("a", 2, LIGHT["grey"]),
        ("redriven", 22, LIGHT["sky"]),
    }
    for row in bars:
        assert row["base"] <= row["low"] < row["high"] < row["top"]
    both = sorted((r["low"], r["high"]) for r in bars if r["from"] == iso_ago(57))
    assert both[0][1] == pytest.approx(both[1][0])  # one on the other


def iso_ago(minutes: int) -> str:
    return iso(1000 * (END - timedelta(minutes=minutes)).timestamp())


def test_a_version_is_marked_in_the_lane_of_its_service_while_the_incident_is_shown() -> None:
    minutes = course(*((ago, "failed", "a", 5, True) for ago in range(30, 60)))
    ago = [45, 27, 600]
    deploys = pl.DataFrame(
        {
            "service": ["a", "a", "a"],
            "consumer_version": ["2.0", "2.1", "1.0"],
            "first_seen_at": [END - timedelta(minutes=minutes) for minutes in ago],
        }
    )
    for look in (WIDE, PHONE):
        chart = charts.incident(minutes, deploys, END - timedelta(minutes=30), look)
        assert {row["v"] for row in drawn(chart) if "v" in row} == {"2.0", "2.1"}
        assert as_svgs([chart])[0]


def test_names_of_versions_that_would_lie_over_another_are_left_to_the_pointer() -> None:
    minutes = course(*((ago, "failed", "a", 5, True) for ago in range(30, 60)))
    ago = [50.0, 49.0, 40.0, 29.5]
    deploys = pl.DataFrame(
        {
            "service": ["a"] * 4,
            "consumer_version": ["2.0.0", "2.0.1-rc.1", "2.0.2", "2.1.0-beta.12"],
            "first_seen_at": [END - timedelta(minutes=minutes) for minutes in ago],
        }
    )
    chart = charts.incident(minutes, deploys, END - timedelta(minutes=30)).to_dict()
    named = [row for row in drawn_of(chart) if "side" in row]
    assert {(row["v"], row["side"]) for row in named} == {
        ("2.0.0", "left"),
        ("2.0.2", "left"),
        ("2.1.0-beta.12", "right"),  # at the edge
    }
    assert {row["v"] for row in drawn_of(chart) if "v" in row} == set(deploys["consumer_version"])


def test_of_many_services_the_first_twelve_are_drawn_and_the_title_says_so() -> None:
    minutes = course(*((60 - n, "failed", f"s{n:02}", 5, True) for n in range(15)))
    chart = charts.incident(minutes, NO_DEPLOY, END - timedelta(minutes=30)).to_dict()
    assert "(the first 12 of 15)" in chart["title"]["text"]
    names = {row["name"] for row in drawn_of(chart) if "note" in row}
    assert names == {f"s{n:02}" for n in range(12)}


def test_all_incidents_have_a_circle_for_each_service_and_the_first_stands_out() -> None:
    begins = [END - timedelta(days=day) for day in (3, 1)]
    frame = pl.DataFrame(
        {
            "incident_id": ["i1", "i2"],
            "from_at": begins,
            "until_at": [begins[0] + timedelta(hours=1), None],
            "services": ["a, b", "b"],
            "failure_count": [30, 5],
        }
    )
    rows = drawn(charts.all_incidents(frame, END))
    assert {(row["incident_id"], row["service"], row["role"]) for row in rows} == {
        ("i1", "a", "failed first"),
        ("i1", "b", "joined"),
        ("i2", "b", "failed first"),
    }
    assert {row["to"] for row in rows if row["incident_id"] == "i2"} == {iso_ago(0)}


def test_the_incident_that_is_drawn_lasts_or_was_the_most_costly_of_a_week() -> None:
    def row(id_: str, days: float, delay: int, lasts: bool = False) -> dict[str, Any]:
        begin = END - timedelta(days=days)
        until = None if lasts else begin + timedelta(hours=1)
        return {"incident_id": id_, "from_at": begin, "until_at": until, "delay_seconds": delay}

    rows = [row("new", 1, 10), row("costly", 3, 500), row("old", 9, 9000), row("older", 20, 1)]
    types: dict[str, Any] = {"until_at": pl.Datetime("us", "UTC")}
    frame = pl.DataFrame(rows, schema_overrides=types)
    assert incidents.shown(frame, END) == "costly"
    assert incidents.shown(frame.filter(pl.col("incident_id").str.starts_with("old")), END) == "old"
    lasting = pl.DataFrame([*rows, row("lasts", 9, 1, True)], schema_overrides=types)
    assert incidents.shown(lasting, END) == "lasts"
    assert incidents.shown(frame.clear(), END) is None


def test_a_chart_answers_to_the_pointer_only_where_it_is_asked_to() -> None:
    arguments = (minutes((3, "a", "X", 30)), END - timedelta(hours=1), END)
    assert "params" not in charts.failures_by_type(*arguments).to_dict()
    binds = [
        p.get("bind") for p in charts.failures_by_type(*arguments, NOTEBOOK).to_dict()["params"]
    ]
    assert binds == ["legend", "scales"]


def resolution() -> pl.DataFrame:
    """One type, half of whose four cases ended."""
    lasted = [(0.0, "manual"), (60.0, "automatic_redrive"), (90.0, "open"), (900.0, "open")]
    rows = [
        {"dimension": dimension, "value": value, "duration_seconds": seconds, "cause": cause}
        for dimension, value in (("overall", "all"), ("error_class", "X"))
        for seconds, cause in lasted
    ]
    return thin(curves(pl.DataFrame(rows).with_columns(case_count=pl.lit(1))))


def test_the_survival_curve_ends_at_the_share_that_is_still_open() -> None:
    rows = [row for row in drawn(charts.survival(resolution())) if "value" in row]
    assert {row["value"] for row in rows} == {"X"}
    assert (rows[-1]["t_seconds"], rows[-1]["survival"]) == (900.0, 0.5)
    assert all(row["t_seconds"] > 0 for row in rows)  # the axis is logarithmic


def test_at_each_time_the_causes_and_what_is_open_add_up_to_all() -> None:
    rows = drawn(charts.incidence(resolution()))
    assert len({row["cause"] for row in rows}) == len(CAUSES) + 1
    times = {row["t_seconds"] for row in rows}
    assert len(times) > 2
    for time in times:
        assert sum(r["share"] for r in rows if r["t_seconds"] == time) == pytest.approx(1)


def test_the_week_begins_on_monday() -> None:
    frame = pl.DataFrame(
        {
            "value": ["all"] * 168,
            "hour_of_week": range(168),
            "week_count": [4] * 168,
            "failure_count": [8 * (hour == 25) for hour in range(168)],
        }
    )
    [cell] = drawn(charts.hour_of_week(frame))
    assert (cell["day"], cell["hour"], cell["weekly"]) == ("Tue", 1, 2)


def test_every_chart_has_each_colour_of_its_look_alone_and_as_a_name_in_svg() -> None:
    assert len(set(LIGHT.values())) == len(set(DARK.values())) == len(LIGHT) == len(DARK)
    frame = minutes((3, "a", "X", 30))
    arguments = (frame, END - timedelta(hours=1), END)
    assert LIGHT["blue"] not in str(
        charts.failures_by_type(*arguments, Look(is_dark=True)).to_dict()
    )
    svg, narrow = as_svgs([charts.failures_by_type(*arguments, look) for look in (WIDE, PHONE)])
    assert svg
    assert narrow
    assert "var(--blue)" in svg
    assert "#0072b2" not in svg
    assert 'width="340"' in narrow


def test_a_chart_that_can_not_be_drawn_or_takes_too_long_costs_no_other() -> None:
    version = "_".join(alt.SCHEMA_VERSION.split(".")[:2])
    good = {"data": {"values": [{"x": 1}]}, "mark": "bar", "encoding": {"x": {"field": "x"}}}
    points = [{"x": n, "y": n * n % 1009} for n in range(400_000)]
    axes = {axis: {"field": axis, "type": "quantitative"} for axis in ("x", "y")}
    long = {"data": {"values": points}, "mark": "point", "encoding": axes}
    first, none, last = draw([good, {"mark": "no such"}, good], version)
    assert first == last
    assert first is not None
    assert first.startswith("<svg")
    assert none is None
    assert draw([long], version, seconds=1) == [None]


def test_a_name_of_any_length_and_characters_is_drawn() -> None:
    every = "".join(map(chr, [*range(1, 0xA0), *range(0x2000, 0x2070), *range(0xFDD0, 0x10000)]))
    names = [every[start : start + 80] for start in range(0, len(every), 80)]
    frames = printable_frames({"m": minutes(*((3, name, "X", 30) for name in names))})
    assert not any(UNPRINTABLE.search(name) for name in frames["m"]["service"])
    long = printable_frames({"m": minutes((3, "x" * 20_000, "X", 30))})["m"]
    assert long["service"][0] == readable("x" * 20_000) == "x" * 254 + "…"
    begin = END - timedelta(hours=1)
    svgs = as_svgs([charts.service_heat_map(m, begin, END) for m in (frames["m"], long)])
    assert all(svgs)


def test_trends_have_a_row_for_each_group() -> None:
    at = [END - timedelta(hours=6 * (2 - part)) for part in range(2)]
    frame = pl.DataFrame(
        {"name": ["a", "a", "b", "b"], "at": at * 2, "failure_count": [1, 4, 0, 0]}
    )
    rows = [row for row in drawn(charts.group_trends(frame)) if "top" in row]
    assert {row["label"] for row in rows} == {"a  (5)", "b  (0)"}
    assert all(row["top"] >= row["base"] for row in rows)


def test_a_difference_is_shown_by_its_shares_and_over_time() -> None:
    sample = planted_sample(1, "missing in an array", since=timedelta(days=2.7))
    comparison = compare(*sample)
    [difference] = comparison.differences
    rows = {
        row["where"]: row for row in drawn(charts.difference_shares(comparison)) if "where" in row
    }
    assert rows["failing"]["what"] == "`data.items[].price` is missing"
    assert rows["failing"]["part"] == difference.share_of_failing
    assert rows["succeeding"]["part"] == difference.share_of_succeeding
    every = drawn(charts.difference_times(difference, *sample))
    counts: dict[str, int] = {}
    for row in (row for row in every if "kind" in row):
        counts[row["kind"]] = counts.get(row["kind"], 0) + row["count"]
    assert counts["failing, and meets it"] == difference.failing
    assert sum(counts.values()) == len(sample.failing) + len(sample.succeeding)
    assert [row["since"] for row in every if "since" in row] != []
    assert drawn(charts.difference_shares(compare([], []))) == []
