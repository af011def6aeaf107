"""Each mart on a small log: expected rows written out, the time passed in."""

import re
from datetime import UTC, datetime, timedelta
from math import log2
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sahool_dlq.analysis.marts import build as marts
from sahool_dlq.analysis.marts.build import MARTS, SUMMARIES, build_marts
from sahool_dlq.analysis.marts.views import GENERATED_VIEWS, VIEWS, create_views, view_statements
from sahool_dlq.errors import QueryError
from sahool_dlq.sqlfiles import read_sql, sql_folder
from support.lake_log import NOW, Log, before, failure


@pytest.fixture
def log() -> Log:
    return Log()


def mart(log: Log, name: str, *columns: str) -> list[dict[str, Any]]:
    """The rows of one mart as of NOW, with the chosen columns or all."""
    table = build_marts(log.connection, NOW, [name])[name]
    return (table.select(list(columns)) if columns else table).to_pylist()


def redrive(log: Log, name: str, attempt: int, outcome: str | None, **columns: Any) -> None:
    """A published redrive of the failure `name`, and its outcome."""
    log.event("redrive.published", name, attempt=attempt, **columns)
    if outcome == "failed_again":
        log.dead_letter(f"{name}{attempt}", root=name, redrive_attempt=attempt)
    elif outcome:
        log.event(f"redrive.{outcome}", name, attempt=attempt)


def test_failures_by_type(log: Log) -> None:
    log.dead_letter("a", dlq_timestamp=before(hours=3))
    log.dead_letter("b", dlq_timestamp=before(hours=1), group_id="g2", tenant_id="t2")
    log.dead_letter("c", dlq_timestamp=before(hours=2), service="soil")
    log.dead_letter("d", dlq_timestamp=before(hours=2), error_class="TimeoutError")
    redrive(log, "a", 1, "failed_again")
    log.event("triage.resolved", "b")
    log.event("triage.discarded", "c")
    expected = {
        "error_class": "ValueError",
        "service": "ndvi",
        "failure_count": 2,
        "group_count": 2,
        "tenant_count": 2,
        "first_seen_at": before(hours=3),
        "last_seen_at": before(hours=1),
        "open_count": 1,
        "resolved_count": 1,
    }
    single = {"failure_count": 1, "group_count": 1, "tenant_count": 1}
    at_two = dict.fromkeys(("first_seen_at", "last_seen_at"), before(hours=2))
    assert mart(log, "failures_by_type") == [
        expected,
        expected | single | at_two | {"error_class": "TimeoutError", "resolved_count": 0},
        expected | single | at_two | {"service": "soil", "open_count": 0, "resolved_count": 0},
    ]


def test_failures_hourly(log: Log) -> None:
    for name, minute in (("a", 0), ("b", 59)):
        log.dead_letter(name, dlq_timestamp=NOW.replace(hour=9, minute=minute), tenant_id=name)
    log.dead_letter("c", dlq_timestamp=NOW.replace(hour=10))
    row = {"service": "ndvi", "error_class": "ValueError", "group_count": 1}
    assert mart(log, "failures_hourly") == [
        row | {"hour_at": NOW.replace(hour=9), "failure_count": 2},
        row | {"hour_at": NOW.replace(hour=10), "failure_count": 1},
    ]


def test_hours_are_utc_whatever_the_time_zone_of_the_connection(log: Log) -> None:
    log.connection.execute("SET TimeZone = 'Asia/Kolkata'")  # half an hour off
    log.dead_letter("a", dlq_timestamp=NOW.replace(hour=9, minute=45))
    table = build_marts(log.connection, NOW, ["failures_hourly"])["failures_hourly"]
    assert table.schema.field("hour_at").type == pa.timestamp("us", tz="UTC")
    assert table["hour_at"].to_pylist() == [NOW.replace(hour=9)]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/New_York"])
def test_no_mart_hears_of_a_change_of_the_clocks_where_the_session_is(zone: str) -> None:
    now = datetime(2026, 11, 1, 12, 0, 7, 654321, tzinfo=UTC)  # Berlin's had a week before
    built = []
    for session in ("UTC", zone):
        log = Log()
        log.connection.execute(f"SET TimeZone = '{session}'")
        for number in [1_200, *range(300, 0, -1)]:
            at = now - timedelta(minutes=37.3 * number)
            place = {"published_at": at, "dlq_date": at.date()}
            service = "ndvi" if number % 3 else "soil"
            log.dead_letter(str(number), **place, dlq_timestamp=at, service=service)
            if number % 4 == 0:
                log.event("triage.resolved", str(number), **place | {"at": at + timedelta(hours=9)})
            counts = {
                "handled": 3_000 - number,
                "succeeded": 1_500 - number,
                "dead_lettered": 1_500,
            }
            log.totals("ndvi", published_at=at, **counts, started_at=before(days=99))
        built.append(build_marts(log.connection, now))
    assert built[0]["failures_hourly"].num_rows > 180
    assert built[0]["hour_of_week"].num_rows > 0
    assert built[1] == built[0]


def test_no_newest_value_is_taken_by_a_function_of_which_engines_disagree() -> None:
    for folder in ("views", "marts"):
        for file in (sql_folder() / folder).glob("*.sql"):
            skips_nulls = r"(?i)\b(max_by|min_by|arg_max|arg_min|any_value|first|last)\("
            assert not re.search(skips_nulls, file.read_text()), f"{file}: use ARG_MAX_NULL"


def test_a_group_is_as_its_latest_case_also_in_what_that_lacks(log: Log) -> None:
    log.dead_letter("a", template="old", frames="", parent_id="p0")
    lacking = dict.fromkeys(("template", "frames", "parent_id", "error_class"))
    log.dead_letter("b", **lacking, error_type="?")
    names = ["sample_failure_id", *lacking]
    assert mart(log, "failure_groups", *names) == [{"sample_failure_id": failure("b"), **lacking}]
    assert log.rows(f"SELECT {', '.join(lacking)} FROM groups") == [lacking]
    log.dead_letter("c", template="", frames="f", parent_id="p2")  # no message is no lack of one
    of_c = {"template": "", "frames": "f", "parent_id": "p2", "error_class": "ValueError"}
    assert mart(log, "failure_groups", *of_c) == [of_c]
    assert log.rows(f"SELECT {', '.join(of_c)} FROM groups") == [of_c]


def test_failure_groups(log: Log) -> None:
    log.dead_letter("a", dlq_timestamp=before(days=9), template="old", consumer_name="x")
    log.dead_letter("b", dlq_timestamp=before(days=2), service="soil", tenant_id=None)
    log.dead_letter("c", dlq_timestamp=before(hours=30))
    log.dead_letter("d", dlq_timestamp=before(hours=2), first_attempt_at=before(hours=9))
    redrive(log, "c", 1, "failed_again")
    redrive(log, "c", 2, None)
    log.event("redrive.succeeded", "c", attempt=2, at=before(hours=20))
    log.event("redrive.refused", "a", attempt=1)
    log.event("triage.discarded", "b")
    assert mart(log, "failure_groups") == [
        {
            "group_id": "g1",
            "parent_id": "p1",
            "state": "ongoing",  # it was not reported as over
            "is_escalating": False,
            "escalation_limit": 2.0 * 1,  # as often in an hour as ever: not yet
            "error_class": "ValueError",
            "template": "boom",
            "frames": "app:handle",
            "sample_failure_id": failure("d"),
            "failure_count": 4,
            "failure_count_1h": 0,
            "failure_count_24h": 1,
            "first_seen_at": before(days=9),
            "last_seen_at": before(hours=2),
            "last_resolved_at": before(hours=20),
            "services": "ndvi, soil",
            "consumers": "ndvi, x",
            "tenant_count": 1,
            "open_count": 2,
            "resolved_count": 1,
            "parked_count": 1,
            "discarded_count": 1,
            "reopened_count": 0,
            "redrive_count": 2,
            "redrive_succeeded_count": 1,
            "redrive_chance": pytest.approx(0.163, abs=0.01),
            "versions": None,
            "resolved_in_version": None,
            "regressed_in_version": None,
            "cause_id": "c1",
        }
    ]


@pytest.mark.parametrize(
    ("first_attempt_hours_ago", "resolved_hours_ago", "state"),
    [
        ([30], [None], "ongoing"),
        ([30, 2], [None, None], "ongoing"),
        ([24], [None], "ongoing"),
        ([23], [None], "new"),
        ([30, 2], [20, 1], "resolved"),
        ([30, 2], [20, None], "regressed"),
        ([30, 21], [20, None], "ongoing"),  # it was under way before the resolution
        ([9, 2], [5, None], "regressed"),
        ([40, 30, 2], [None, 20, None], "ongoing"),  # the oldest was open all the time
    ],
)
def test_the_state_of_a_group(
    log: Log,
    first_attempt_hours_ago: list[float],
    resolved_hours_ago: list[float | None],
    state: str,
) -> None:
    for index, hours in enumerate(first_attempt_hours_ago):
        log.dead_letter(str(index), dlq_timestamp=before(hours=hours))
    for index, hours in enumerate(resolved_hours_ago):
        if hours is not None:
            log.event("triage.resolved", str(index), at=before(hours=hours))
    assert mart(log, "failure_groups", "state") == [{"state": state}]


@pytest.mark.parametrize(
    ("kind", "state"),
    [("triage.resolved", "regressed"), ("triage.discarded", "regressed"),
     ("redrive.succeeded", "ongoing")],  # it was not reported as over
)  # fmt: skip
def test_a_group_whose_only_case_was_closed_and_failed_again(
    log: Log, kind: str, state: str
) -> None:
    log.dead_letter("a", dlq_timestamp=before(hours=40))
    attempt = 1 if kind.startswith("redrive") else None
    log.event(kind, "a", attempt=attempt, at=before(hours=38))
    log.dead_letter("a", dlq_timestamp=before(hours=4), template="now")
    assert mart(
        log, "failure_groups", "state", "failure_count", "open_count", "resolved_count",
        "discarded_count", "reopened_count", "first_seen_at", "template",
    ) == [
        {
            "state": state, "failure_count": 2, "open_count": 1, "resolved_count": 0,
            "discarded_count": 0, "reopened_count": 1, "first_seen_at": before(hours=40),
            "template": "now",
        }
    ]  # fmt: skip


def test_a_resolution_that_did_not_last_ends_nothing_and_the_case_continues(log: Log) -> None:
    log.dead_letter("a", dlq_timestamp=before(hours=40))
    log.event("triage.resolved", "a", at=before(hours=38))
    log.dead_letter("a", dlq_timestamp=before(hours=4))
    durations = mart(log, "durations_daily", "dimension", "cause", "duration_seconds", "open_since")
    assert [row for row in durations if row["dimension"] == "overall"] == [
        {
            "dimension": "overall", "cause": "open", "duration_seconds": None,
            "open_since": before(hours=4),
        },
        {
            "dimension": "overall", "cause": "reopened", "duration_seconds": 7_200,
            "open_since": None,
        },
    ]  # fmt: skip
    [times] = [
        row
        for row in mart(log, "resolution_times", "dimension", "n", "events", "follow_up_seconds")
        if row["dimension"] == "overall"
    ]
    assert (times["n"], times["events"], times["follow_up_seconds"]) == (2, 0, 4 * 3_600)


def test_redrives_of_a_reopened_case_count_for_what_is_wrong_with_it_now(log: Log) -> None:
    log.dead_letter("a")
    log.event("redrive.published", "a", attempt=1)
    log.event("redrive.succeeded", "a", attempt=1)
    log.dead_letter("a", group_id="g2")
    log.event("redrive.published", "a", attempt=1001)
    log.event("redrive.outcome_unknown", "a", attempt=1001)
    assert mart(log, "redrive_outcomes", "group_id", "case_count", "attempt_count") == [
        {"group_id": "g1", "case_count": 1, "attempt_count": 1},
        {"group_id": "g2", "case_count": 1, "attempt_count": 1},
    ]


def test_a_redrive_that_fails_again_does_not_make_a_group_regressed(log: Log) -> None:
    log.dead_letter("a", dlq_timestamp=before(hours=30))
    log.dead_letter("b", dlq_timestamp=before(hours=30))
    log.event("triage.resolved", "a", at=before(hours=3))
    log.dead_letter("b1", root="b", redrive_attempt=1, dlq_timestamp=before(hours=1))
    assert mart(log, "failure_groups", "state") == [{"state": "ongoing"}]


def test_pending_transient(log: Log) -> None:
    timeout = {"error_class": "TimeoutError", "group_id": "g2"}
    log.dead_letter("a", dlq_timestamp=before(minutes=10), **timeout)
    log.dead_letter("b", dlq_timestamp=before(minutes=20), **timeout)
    log.dead_letter("c", dlq_timestamp=before(minutes=30), **timeout)
    log.dead_letter("d", dlq_timestamp=before(minutes=40), **timeout)
    log.dead_letter("e", error_class="ConnectionRefusedError", consumer_name=None)
    log.dead_letter("f")  # a ValueError does not pass by itself
    redrive(log, "b", 1, None)
    log.event("triage.parked", "c")
    log.event("triage.resolved", "d")
    log.event("triage.discarded", "e")
    log.dead_letter(
        "g", error_class="ConnectionRefusedError", consumer_name=None, dlq_timestamp=NOW
    )
    assert mart(log, "pending_transient") == [
        {
            "group_id": "g2",
            "error_class": "TimeoutError",
            "service": "ndvi",
            "consumer_name": "ndvi",
            "open_count": 3,
            "pending_count": 1,
            "retried_count": 1,
            "parked_count": 1,
            "oldest_opened_at": before(minutes=30),
            "oldest_age_seconds": 1800,
        },
        {
            "group_id": "g1",
            "error_class": "ConnectionRefusedError",
            "service": "ndvi",
            "consumer_name": None,
            "open_count": 1,
            "pending_count": 1,
            "retried_count": 0,
            "parked_count": 0,
            "oldest_opened_at": NOW,
            "oldest_age_seconds": 0,
        },
    ]


def test_service_health_without_totals_knows_no_rate(log: Log) -> None:
    log.dead_letter("a", dlq_timestamp=before(minutes=30))
    log.dead_letter("b", dlq_timestamp=before(hours=2), error_class="DatabaseError")
    log.dead_letter("c", dlq_timestamp=before(days=3), error_class="DatabaseError")
    log.event("triage.resolved", "c")
    (row,) = mart(log, "service_health")
    assert {name: value for name, value in row.items() if value is not None} == {
        "service": "ndvi",
        "failure_count_1h": 1,
        "failure_count_24h": 2,
        "failure_count": 3,
        "critical_count_1h": 0,
        "critical_count_24h": 1,
        "open_count": 2,
        "open_share": pytest.approx(2 / 3),
        "oldest_open_age_seconds": 7200,
        "p90_open_age_seconds": 7200,
        "has_totals": False,
        "expected_count_1h": pytest.approx(1 / 24),  # the mean of the day before the hour
        "pressure": pytest.approx(log2(2 / (1 + 1 / 24))),
        "traffic_part": pytest.approx(log2(2 / (1 + 1 / 24)) / 8),
        "critical_part": 0.0,
        "age_part": pytest.approx(0.2 / 12),
        "score": pytest.approx(100 * (1 - log2(2 / (1 + 1 / 24)) / 8)),
    }


def test_service_health_sums_the_last_value_of_every_process(log: Log) -> None:
    """Two samples of one process, one of the process after its restart, one of another consumer."""
    first, again = {"started_at": before(hours=5)}, {"started_at": before(hours=2)}
    log.totals("ndvi", published_at=before(hours=4), handled=50, succeeded=50, **first)
    log.totals("ndvi", published_at=before(hours=3), handled=60, succeeded=55, **first)
    log.totals("ndvi", published_at=before(hours=1), handled=30, succeeded=26, **again)
    log.totals("ndvi", consumer="other", handled=21, succeeded=9, dead_lettered=10)
    (row,) = mart(log, "service_health")
    counts = {"handled_count": 111, "succeeded_count": 90, "dead_lettered_count": 10}
    assert row == {
        "service": "ndvi",
        "failure_count_1h": 0,
        "failure_count_24h": 0,
        "failure_count": 0,
        "critical_count_1h": 0,
        "critical_count_24h": 0,
        "open_count": 0,
        "open_share": None,
        "oldest_open_age_seconds": None,
        "p90_open_age_seconds": None,
        "expected_count_1h": 0.0,
        "pressure": 0.0,
        "traffic_part": 0.5,
        "critical_part": 0.0,
        "age_part": 0.0,
        "score": 50.0,
        "alert": "page",
        "has_totals": True,
        **counts,
        **{f"{name}_24h": count for name, count in counts.items()},
        "failure_rate_24h": pytest.approx(0.1),
        "failure_rate_24h_low": pytest.approx(0.0552291, abs=1e-7),  # Wilson, 10 of 100
        "failure_rate_24h_high": pytest.approx(0.1743657, abs=1e-7),
        # ten of the nineteen that ended within the hour: 526 times what the objective allows
        **dict.fromkeys(("burn_5m", "burn_30m", "burn_1h"), pytest.approx(10 / 19 / 0.001)),
        **dict.fromkeys(("burn_6h", "burn_3d"), pytest.approx(100.0)),
        "versions": None,
    }


def test_the_interval_of_a_rate_of_none_or_all_ends_at_it_exactly(log: Log) -> None:
    """Rounding would say -0.000 %."""
    counts = [*range(1, 60), 997, 31_337]
    for n in counts:
        log.totals(f"well-{n}", handled=n, succeeded=n, dead_lettered=0)
        log.totals(f"ill-{n}", handled=n, succeeded=0, dead_lettered=n)
    rows = {row["service"]: row for row in mart(log, "service_health")}
    assert {rows[f"well-{n}"]["failure_rate_24h_low"] for n in counts} == {0.0}
    assert {rows[f"ill-{n}"]["failure_rate_24h_high"] for n in counts} == {1.0}


def test_service_health_counts_the_last_24_hours_of_an_old_process(log: Log) -> None:
    process = {"started_at": before(days=3)}
    log.totals("ndvi", published_at=before(hours=25), succeeded=100, dead_lettered=50, **process)
    log.totals("ndvi", published_at=before(hours=1), succeeded=109, dead_lettered=51, **process)
    (row,) = mart(log, "service_health")
    assert (row["succeeded_count"], row["dead_lettered_count"]) == (109, 51)
    assert (row["succeeded_count_24h"], row["dead_lettered_count_24h"]) == (9, 1)
    assert row["failure_rate_24h"] == pytest.approx(0.1)


def test_service_health_of_an_idle_service_has_totals_and_no_rate(log: Log) -> None:
    log.totals("ndvi")
    (row,) = mart(log, "service_health")
    assert (row["has_totals"], row["handled_count"], row["failure_rate_24h"]) == (True, 0, None)


def test_service_traffic_hourly(log: Log) -> None:
    process = {"started_at": NOW.replace(hour=8)}
    log.totals("ndvi", published_at=NOW.replace(hour=9), handled=5, succeeded=4, **process)
    log.totals("ndvi", published_at=NOW.replace(hour=10), handled=9, succeeded=8, **process)
    log.totals("ndvi", published_at=NOW.replace(hour=10), consumer="other", handled=1, skipped=1)
    none = {"retried_count": 0, "dead_lettered_count": 0, "service": "ndvi"}
    nine = {"handled_count": 5, "succeeded_count": 4, "skipped_count": 0}
    ten = {"handled_count": 5, "succeeded_count": 4, "skipped_count": 1}
    assert mart(log, "service_traffic_hourly") == [
        {"hour_at": NOW.replace(hour=9)} | nine | none,
        {"hour_at": NOW.replace(hour=10)} | ten | none,
    ]


def test_redrive_outcomes(log: Log) -> None:
    for name in "abcdefgi":
        log.dead_letter(name)
    redrive(log, "a", 1, "failed_again", trigger="automatic")
    redrive(log, "a", 2, "succeeded", trigger="manual")
    redrive(log, "b", 1, "succeeded")
    redrive(log, "c", 1, "outcome_unknown")
    redrive(log, "d", 1, "unroutable")
    log.event("redrive.refused", "e", attempt=1)
    log.event("redrive.expired", "f", attempt=1)
    log.event("redrive.too_late", "i", attempt=1)
    redrive(log, "g", 1, None)
    log.dead_letter("h", group_id="g2")
    redrive(log, "h", 1, None)
    expected = {
        "group_id": "g1",
        "error_class": "ValueError",
        "case_count": 8,
        "attempt_count": 9,
        "automatic_count": 8,
        "succeeded_count": 2,
        "failed_again_count": 1,
        "unroutable_count": 1,
        "refused_count": 1,
        "expired_count": 1,
        "too_late_count": 1,
        "outcome_unknown_count": 1,
        "waiting_count": 1,
        "success_rate": pytest.approx(2 / 3),
    }
    nothing_yet = {name: 0 for name in expected if name.endswith("_count")}
    one = dict.fromkeys(("case_count", "attempt_count", "automatic_count", "waiting_count"), 1)
    assert mart(log, "redrive_outcomes") == [
        expected,
        expected | nothing_yet | one | {"group_id": "g2", "success_rate": None},
    ]


def test_a_late_outcome_replaces_an_unknown_one_and_the_first_definite_one_counts(log: Log) -> None:
    log.dead_letter("a")
    redrive(log, "a", 1, "outcome_unknown")
    log.event("redrive.succeeded", "a", attempt=1)
    log.event("redrive.outcome_unknown", "a", attempt=1)
    log.dead_letter("a1", root="a", redrive_attempt=1)
    create_views(log.connection)
    assert log.rows("SELECT attempt, outcome FROM redrives") == [
        {"attempt": 1, "outcome": "succeeded"}
    ]


def test_an_outcome_of_another_consumer_is_none(log: Log) -> None:
    log.dead_letter("a")
    redrive(log, "a", 1, None)
    log.event("redrive.succeeded", "a", attempt=1, consumer="SAHOOL_EVENTS/other")
    log.dead_letter("b", root="a", redrive_attempt=1, consumer_name="other")
    create_views(log.connection)
    assert log.rows("SELECT outcome FROM redrives") == [{"outcome": "waiting"}]


def test_resolution_marts_come_from_the_cases(log: Log) -> None:
    log.connection.execute("SET TimeZone = 'Asia/Kolkata'")
    log.dead_letter("a", dlq_timestamp=before(hours=3))
    log.event("triage.resolved", "a", at=before(hours=1))
    log.dead_letter("b", dlq_timestamp=before(hours=3))
    times = mart(log, "resolution_times", "dimension", "value", "n", "median_seconds")
    assert {"dimension": "overall", "value": "all", "n": 2, "median_seconds": 7200.0} in times
    curve = mart(log, "resolution_curves", "dimension", "t_seconds", "survival", "manual")
    assert {"dimension": "overall", "t_seconds": 7200.0, "survival": 0.5, "manual": 0.5} in curve


def test_an_empty_lake_gives_every_mart_with_its_columns(log: Log) -> None:
    built = build_marts(log.connection, NOW)
    assert tuple(built) == MARTS
    assert {table.num_rows for table in built.values()} == {0}
    assert not [
        (name, field.name)
        for name, table in built.items()
        if name in SUMMARIES
        for field in table.schema
        if pa.types.is_null(field.type) or pa.types.is_decimal(field.type)
    ]


def test_building_twice_gives_the_same_and_leaves_only_views(log: Log) -> None:
    log.dead_letter("a")
    assert build_marts(log.connection, NOW) == build_marts(log.connection, NOW)
    left = log.rows("SELECT table_name, table_type FROM information_schema.tables")
    assert {row["table_name"] for row in left if row["table_type"] == "VIEW"} == set(VIEWS)
    assert not [row for row in left if row["table_type"] == "LOCAL TEMPORARY"]


def test_every_view_file_is_made_and_every_file_says_its_grain() -> None:
    assert {file.stem for file in (sql_folder() / "views").glob("*.sql")} == set(VIEWS) - set(
        GENERATED_VIEWS
    )
    files = [
        file
        for part in ("views", "marts", "monitoring")
        for file in sql_folder().glob(f"{part}/*.sql")
    ]
    assert not [file.name for file in files if "-- Grain: " not in file.read_text()]
    owned = [file for file in files if file.parent.name != "monitoring"]
    assert not [file.name for file in owned if "-- Owner: " not in file.read_text()]


def test_the_view_statements_run_in_a_plain_connection(log: Log) -> None:
    for statement in view_statements():
        log.connection.execute(statement)
    assert log.rows("SELECT COUNT(*) AS n FROM redrives") == [{"n": 0}]


def test_an_unknown_mart_is_refused_by_name(log: Log) -> None:
    with pytest.raises(QueryError, match="no mart nonsense"):
        build_marts(log.connection, NOW, ["nonsense"])


def test_a_lake_without_a_table_names_the_view_that_needs_it() -> None:
    with duckdb.connect() as connection, pytest.raises(QueryError, match="The view epochs"):
        build_marts(connection, NOW)


def test_a_mart_that_fails_is_named(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(relative: str) -> str:
        return "SELECT 1 // 0 + nowhere" if "failures_hourly" in relative else read_sql(relative)

    monkeypatch.setattr(marts, "read_sql", broken)
    with pytest.raises(QueryError, match="The mart failures_hourly failed: "):
        build_marts(log.connection, NOW)
    assert not log.rows("SELECT 1 FROM information_schema.tables WHERE table_type LIKE '%TEMP%'")


def test_a_naive_now_is_refused(log: Log) -> None:
    with pytest.raises(ValueError, match="aware"):
        build_marts(log.connection, datetime(2026, 3, 8, tzinfo=UTC).replace(tzinfo=None))


def test_a_missing_sql_file_is_an_error_that_names_it() -> None:
    with pytest.raises(QueryError, match=r"marts/nonsense\.sql"):
        read_sql("marts/nonsense.sql")


def test_postgres_has_a_table_for_each_mart_that_it_is_given(log: Log) -> None:
    log.dead_letter("a")
    types = {
        pa.int64(): "BIGINT",
        pa.int32(): "BIGINT",
        pa.float64(): "DOUBLE PRECISION",
        pa.string(): "TEXT",
        pa.large_string(): "TEXT",
        pa.bool_(): "BOOLEAN",
        pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
    }
    made: dict[str, list[list[str]]] = {}
    for file in sorted((sql_folder() / "postgres" / "migrations").glob("*.sql")):
        for name, columns in re.findall(
            r"CREATE TABLE IF NOT EXISTS dlq\.mart_(\w+) \(\n(.*?)\n\);", file.read_text(), re.S
        ):
            made[name] = [line.strip(" ,").split(None, 1) for line in columns.splitlines()]
        for name, column, kind in re.findall(
            r"ALTER TABLE mart_(\w+) ADD COLUMN IF NOT EXISTS (\w+) (.*);", file.read_text()
        ):
            made[name].append([column, kind])
    built = build_marts(log.connection, NOW, SUMMARIES)
    assert made == {
        name: [[field.name, types[field.type]] for field in table.schema]
        for name, table in built.items()
    }


def test_deploys(log: Log) -> None:
    log.dead_letter("old", dlq_timestamp=before(hours=9), consumer_version="2.3")
    log.dead_letter("new", dlq_timestamp=before(hours=8), group_id="g2", consumer_version="2.4")
    log.event("redrive.published", "old", attempt=1)
    log.event(*("redrive.succeeded", "old"), attempt=1, consumer_version="2.4", at=before(hours=7))
    log.event("redrive.published", "new", attempt=1)
    log.dead_letter(
        *("new1",), root="new", redrive_attempt=1, group_id="g2", consumer_version="2.5",
        dlq_timestamp=before(hours=6),
    )  # fmt: skip
    log.dead_letter("again", dlq_timestamp=before(hours=5), consumer_version="2.6")
    log.dead_letter("unsaid", dlq_timestamp=before(hours=4), group_id="g3")
    log.totals("ndvi", started_at=before(hours=10), published_at=before(hours=3),
        consumer_version="2.3")  # fmt: skip
    log.totals("soil", started_at=before(hours=2), published_at=before(minutes=30),
        consumer_version="1.0")  # fmt: skip

    nothing = dict.fromkeys(("brought", "cured", "brought_back"))

    def deploy(
        service: str, version: str, first: float, last: float, **columns: Any
    ) -> dict[str, Any]:
        seen = {"first_seen_at": before(hours=first), "last_seen_at": before(hours=last)}
        counts = {"failure_count": 0, "success_count": 0}
        return {"service": service, "consumer_version": version} | seen | counts | nothing | columns

    assert mart(log, "deploys") == [
        deploy("ndvi", "2.3", 10, 3, failure_count=1, brought="g1"),
        deploy("ndvi", "2.4", 8, 7, failure_count=1, success_count=1, brought="g2", cured="g1"),
        deploy("ndvi", "2.5", 6, 6, failure_count=1),
        deploy("ndvi", "2.6", 5, 5, failure_count=1, brought_back="g1"),
        deploy("soil", "1.0", 2, 0.5),
    ]
    groups = mart(log, "failure_groups", "group_id", "versions")
    assert {row["group_id"]: row["versions"] for row in groups} == {
        "g1": "2.3, 2.6", "g2": "2.4, 2.5", "g3": None
    }  # fmt: skip
    health = mart(log, "service_health", "service", "versions")
    assert {row["service"]: row["versions"] for row in health} == {"ndvi": None, "soil": "1.0"}
