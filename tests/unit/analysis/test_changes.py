"""What changed since yesterday, from marts."""

from datetime import UTC, datetime, timedelta

import polars as pl

from sahool_dlq.analysis.report.changes import changes
from sahool_dlq.analysis.report.section import Links, Section, as_markdown

NOW = datetime(2026, 3, 2, 12, 30, tzinfo=UTC)
HOUR = datetime(2026, 3, 2, 12, tzinfo=UTC)


def group(
    group_id: str, state: str, ended: datetime | None = None, failed_in: str | None = None
) -> dict[str, object]:
    return {
        "group_id": group_id,
        "state": state,
        "last_resolved_at": ended,
        "failure_count": 7,
        "failure_count_24h": 3,
        "error_class": "TimeoutError",
        "template": "no answer",
        "frames": "",
        "resolved_in_version": failed_in and "2.4",
        "regressed_in_version": failed_in,
    }


def marts(groups: list[dict[str, object]], hours: list[tuple[datetime, str, int]]) -> dict:
    failures = {
        "hour_at": [at for at, _, _ in hours],
        "service": [service for _, service, _ in hours],
        "failure_count": [count for _, _, count in hours],
    }
    schema = {"hour_at": pl.Datetime("us", "UTC"), "service": pl.String, "failure_count": pl.Int64}
    return {
        "failure_groups": pl.DataFrame(groups, infer_schema_length=None),
        "failures_hourly": pl.DataFrame(failures, schema=schema),
    }


def test_groups_that_came_came_back_grow_or_ended_are_reported_and_no_others() -> None:
    told, _ = changes(
        marts(
            [
                group("a", "new"),
                group("b", "regressed"),
                group("c", "escalating"),
                group("d", "resolved", NOW - timedelta(hours=3)),
                group("e", "resolved", NOW - timedelta(hours=30)),
                group("f", "ongoing"),
                group("g", "regressed", failed_in="2.5"),
                group("h", "fixed"),
            ],
            [],
        ),
        NOW,
    )
    assert {row[0]: row[1] for row in told.rows} == {
        "a": "new",
        "b": "came back after a person resolved it",
        "g": "failed in 2.5 after a person resolved it in 2.4",
        "c": "comes more often than ever",
        "d": "resolved, nothing is open",
    }


def test_a_service_is_compared_over_equal_times() -> None:
    """The unfinished hour counts on neither side, nor anything older than two days."""
    hours = [
        (HOUR, "fields", 50),
        (HOUR - timedelta(hours=1), "fields", 4),
        (HOUR - timedelta(hours=24), "fields", 2),
        (HOUR - timedelta(hours=25), "fields", 10),
        (HOUR - timedelta(hours=48), "fields", 1),
        (HOUR - timedelta(hours=49), "fields", 100),
        (HOUR - timedelta(hours=30), "tiles", 5),
    ]
    _, services = changes(marts([group("a", "new")], hours), NOW)
    assert services.rows == (("fields", 11, 6, "-5"), ("tiles", 5, 0, "-5"))


def test_a_link_is_a_link_and_what_messages_say_is_text() -> None:
    wild = "[x](javascript:alert(1)) <img src=x> | `y`"
    part = Section("Groups", ("what", "go to"), ((wild, Links((("form", "/run?group=a1"),))),))
    page = as_markdown([part], NOW)
    assert "| [form](/run?group=a1) |" in page
    assert r"\[x\](javascript:alert(1)) \<img src=x\> \| \`y\`" in page
