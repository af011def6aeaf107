"""What the report's tables say of rows that are easy to say wrongly: pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from sahool_dlq.analysis.report import patterns, standing
from sahool_dlq.analysis.report.axes import whole_parts

END = datetime(2026, 3, 2, 15, 20, tzinfo=UTC)


def test_the_last_part_of_a_chart_is_as_long_as_the_others() -> None:
    minutes = pl.Series("minute_at", [END - timedelta(minutes=ago) for ago in (0, 1, 29, 31, 59)])
    parts = pl.DataFrame([minutes]).select(whole_parts(END, 30)).to_series().to_list()
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
