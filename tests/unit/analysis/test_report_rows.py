"""Special cases in the rows of the report's tables."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from sahool_dlq.analysis.report import patterns, standing
from sahool_dlq.analysis.report.advice import what_failed
from sahool_dlq.analysis.report.axes import whole_parts
from sahool_dlq.analysis.report.section import Section
from sahool_dlq.analysis.report.sections import printable_frames

END = datetime(2026, 3, 2, 15, 20, tzinfo=UTC)


def test_the_last_part_of_a_chart_is_as_long_as_the_others() -> None:
    minutes = pl.Series("minute_at", [END - timedelta(minutes=ago) for ago in (0, 1, 29, 31, 59)])
    parts = pl.DataFrame([minutes]).select(whole_parts(END, 1800)).to_series().to_list()
    assert [END - part for part in parts] == [timedelta(minutes=30)] * 3 + [timedelta(hours=1)] * 2


@pytest.mark.parametrize(
    ("follow_up", "open_share", "said"),
    [(90.0, 0.5, "not reached"), (90.0, 0.0, "1.0 min"), (90_000.0, 0.5, "1.0 min")],
)
def test_a_mean_of_24_hours_is_said_of_cases_that_were_watched_so_long(
    follow_up: float, open_share: float, said: str
) -> None:
    row: dict[str, Any] = {
        "dimension": "overall", "value": "all", "n": 4, "events": 2, "open_share": open_share,
        "median_seconds": 60.0, "p90_seconds": None, "rmst_24h_seconds": 60.0,
        "follow_up_seconds": follow_up,
    }  # fmt: skip
    part = standing.resolution_times(pl.DataFrame([row]), 12)
    told = dict(zip(part.columns, part.rows[0], strict=True))
    assert told["mean of the first 24 h"] == said


def test_a_list_of_ids_is_never_cut_and_a_name_is() -> None:
    many = ", ".join(f"{number:016x}" for number in range(40))
    frames = {"": pl.DataFrame({"groups": [many], "brought": [many], "services": [many]})}
    row = printable_frames(frames)[""].row(0, named=True)
    assert row["groups"] == row["brought"] == many
    assert len(row["services"]) == 255


def test_the_number_of_an_event_is_a_name_and_no_amount() -> None:
    row: dict[str, Any] = {
        "kind": "several_consumers",
        "failure_id": "f",
        "error_class": "ValueError",
        "tenant_id": "t",
        "original_sequence": 1084,
        "consumer_count": 3,
        "redrive_count": None,
        "cured_count": None,
    }
    part = patterns.poison_messages(pl.DataFrame([row]), 12)
    assert dict(zip(part.columns, part.rows[0], strict=True))["event"] == "1084"
    assert "may be at fault" in part.note


def test_a_rate_has_digits_enough_for_its_interval_and_no_negative_zero() -> None:
    def rate(*shares: float) -> str:
        names = ("failure_rate_24h", "failure_rate_24h_low", "failure_rate_24h_high")
        return standing._rate(dict(zip(names, shares, strict=True)))

    assert rate(0.0, -1e-19, 0.0076) == "0.00% (0.00% to 0.76%)"
    assert rate(0.00023, 0.00019, 0.00028) == "0.023% (0.019% to 0.028%)"
    assert rate(0.163, 0.141, 0.188) == "16.3% (14.1% to 18.8%)"


def test_amounts_with_their_units_stand_right_and_names_do_not() -> None:
    rows = (("a", 1, "1.8%", "+227", "1084", "14.2 d"), ("b", None, "–", "-37", "9", "not reached"))
    part = Section("t", ("name", "n", "share", "change", "event", "age"), rows)
    assert part.numeric == [False, True, True, True, False, True]


def test_a_message_is_cut_after_a_word() -> None:
    group = {"error_class": "E", "template": "one two three", "frames": ""}
    assert what_failed(group, 12) == "E: one two…"
    assert what_failed(group, 16) == "E: one two three"
    assert what_failed({**group, "template": "x" * 99}, 9) == "E:…"
