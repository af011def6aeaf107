"""Outbreaks and incidents: the rule, what belongs together, and what simulated months have."""

import random
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from test_patterns import at, fill, quiet

from sahool_dlq.analysis.marts.build import build_marts
from sahool_dlq.analysis.marts.outbreaks import with_incidents
from sahool_dlq.simulation.scenario import Scenario
from support import ROOT
from support.lake_log import NOW, Log, before

sys.path.append(str(ROOT / "benchmarks"))
import incidents

MONTH = 30 * 1440
MINUTE = int(datetime(2026, 3, 8, 12, tzinfo=UTC).timestamp()) // 60
Row = dict[str, Any]


def outbreak(
    group: str, minute: int, lasted: int = 30, cause: str | None = None, **more: Any
) -> Row:
    """An outbreak that began `minute` minutes after a fixed time."""
    return {
        "group_id": group,
        "cause_id": cause,
        "noticed_minute": MINUTE + minute + 3,
        "from_minute": MINUTE + minute,
        "until_minute": MINUTE + minute + lasted,
        "history_minutes": MONTH,
        **more,
    }


def ids(*outbreaks: Row) -> list[str]:
    return with_incidents(pl.DataFrame(list(outbreaks)))["incident_id"].to_list()


# What belongs together -------------------------------------------------------------------------


def test_outbreaks_of_one_cause_at_one_time_are_one_incident() -> None:
    found = ids(
        outbreak("a", 0, cause="c"),
        outbreak("b", 29, cause="c"),
        outbreak("e", 58, cause="c"),  # overlaps only the second
        outbreak("d", 20, cause="other"),
        outbreak("f", 200, cause="c"),
    )
    assert found == ["20260308-12-a"] * 3 + ["20260308-12-d", "20260308-15-f"]


def test_outbreaks_without_a_cause_have_none_in_common() -> None:
    assert len(set(ids(outbreak("a", 0), outbreak("b", 20)))) == 2


@pytest.mark.parametrize(("apart", "count"), [(0, 1), (2, 1), (3, 2)])
def test_outbreaks_that_begin_within_two_minutes_are_one_incident(apart: int, count: int) -> None:
    assert len(set(ids(outbreak("a", 0), outbreak("b", apart)))) == count


def test_groups_that_meet_as_often_as_by_chance_are_not_one_incident() -> None:
    """Two groups that fail every hour of a day meet once."""
    often = [outbreak("a", 60 * hour, 10) for hour in range(100)]
    other = [outbreak("b", 60 * hour + 20, 10) for hour in range(99)] + [outbreak("b", 6001, 10)]
    rows = [row | {"history_minutes": 100 * 60} for row in often + other]
    met = ids(*rows, outbreak("a", 6000, 10, history_minutes=100 * 60))
    assert len(set(met)) == len(met)


def test_in_a_young_log_a_common_beginning_is_no_evidence() -> None:
    rows = [outbreak(group, 0, history_minutes=20) for group in ("a", "b")]
    assert len(set(ids(*rows))) == 2


def test_an_incident_keeps_its_id_while_it_grows() -> None:
    first = outbreak("b", 4, cause="c", noticed_minute=MINUTE + 5)
    late = outbreak("a", 0, 60, cause="c", noticed_minute=MINUTE + 25)  # began first, noticed later
    assert set(ids(first)) == set(ids(late, first)) == {"20260308-12-b"}


def test_no_outbreak_makes_no_incident() -> None:
    assert with_incidents(pl.DataFrame([outbreak("a", 0)]).clear()).is_empty()


# The marts -------------------------------------------------------------------------------------


def mart(log: Log, name: str, now: datetime = NOW) -> list[Row]:
    rows: list[Row] = build_marts(log.connection, now, [name])[name].to_pylist()
    return rows


def month_with(burst: list[Row]) -> Log:
    """A month of one failure an hour, and these."""
    log = Log()
    fill(log, at(*[before(hours=hour, minutes=7) for hour in range(1, 720)]) + burst)
    return log


def test_an_outbreak_begins_and_ends_to_the_minute() -> None:
    start = before(hours=5)
    log = month_with(at(*[start + timedelta(seconds=20 * n) for n in range(90)]))  # 30 minutes
    (found,) = mart(log, "outbreaks")
    began = int(start.timestamp()) // 60
    assert (found["from_minute"], found["from_at"]) == (began, start)
    assert found["until_minute"] == began + 29
    assert found["is_over"]
    assert found["incident_id"] == "20260308-07-g1"


@pytest.mark.parametrize(("count", "is_outbreak"), [(9, False), (15, True)])
def test_an_outbreak_is_far_more_than_usual(count: int, is_outbreak: bool) -> None:
    """With one failure an hour, ten come by chance more often than in 100,000,000 hours."""
    log = month_with(at(*[before(hours=5) + timedelta(minutes=4 * n) for n in range(count)]))
    assert bool(mart(log, "outbreaks")) is is_outbreak


def test_what_is_usual_at_this_hour_of_the_week_is_no_outbreak() -> None:
    weekly = [before(days=7 * week, minutes=200 - n) for week in range(5) for n in range(30)]
    assert mart(month_with(at(*weekly[:30])), "outbreaks")
    usual = mart(month_with(at(*weekly)), "outbreaks")
    assert [row["from_at"] for row in usual if row["from_at"] > before(days=10)] == []


def test_it_lasts_until_an_hour_has_passed_and_then_it_ended_when_it_ended() -> None:
    start = before(hours=1)
    log = month_with(at(*[start + timedelta(seconds=20 * n) for n in range(90)]))
    (lasting,) = mart(log, "incidents")
    assert lasting["until_at"] is None
    (over,) = mart(log, "incidents", NOW + timedelta(hours=2))
    assert over["until_at"] == start + timedelta(minutes=30)
    assert over["incident_id"] == lasting["incident_id"]


def test_a_log_of_an_hour_has_an_outbreak_at_ten_failures_in_five_minutes() -> None:
    for seconds, count in ((25, 1), (40, 0)):
        log = Log()
        fill(log, at(*[before(minutes=30) + timedelta(seconds=seconds * n) for n in range(14)]))
        assert len(mart(log, "outbreaks")) == count


def test_an_incident_tells_who_failed_how_much_and_what_it_cost() -> None:
    start = before(hours=5)
    log = month_with(
        at(*[start + timedelta(seconds=10 * n) for n in range(60)], tenant_id="t2")
        + at(
            *[start + timedelta(seconds=70 + 10 * n) for n in range(60)],
            service="advice",
            group_id="g2",
            error_class="TimeoutError",
        )
    )
    rows = log.rows("SELECT failure_id FROM dead_letters WHERE tenant_id = 't2' LIMIT 20")
    for row in rows:
        redriven = {"failure_id": row["failure_id"], "attempt": 1, "at": start + timedelta(hours=1)}
        log.event("redrive.published", "x", **redriven)
        log.event("redrive.succeeded", "x", **redriven)
    (found,) = mart(log, "incidents")
    assert found["services"] == "ndvi, advice"
    assert found["groups"] == "g1, g2"
    assert found["causes"] == "c1"
    assert (found["service_count"], found["group_count"]) == (2, 2)
    assert (found["failure_count"], found["tenant_count"]) == (120, 2)
    assert (found["cured_count"], found["open_count"]) == (20, 100)
    assert found["peak_count"] == 12
    opened = log.rows(
        "SELECT c.opened_at, c.closed_at FROM cases AS c"
        f" WHERE c.opened_at BETWEEN '{start}' AND '{start + timedelta(hours=1)}'"
        " AND (c.group_id = 'g2' OR c.tenant_id = 't2')"
    )
    waited = sum(((row["closed_at"] or NOW) - row["opened_at"]).total_seconds() for row in opened)
    assert found["delay_seconds"] == pytest.approx(waited, abs=found["failure_count"])


def test_ordinary_failures_have_no_incident() -> None:
    log = Log()
    fill(log, quiet(random.Random(4), 40, 3.0))
    assert mart(log, "incidents") == []


# Simulated months ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_planted_outage_is_one_incident_and_a_bad_deploy_its_own(seed: int) -> None:
    scenario = Scenario(incidents.UNTIL, days=10, hourly=60, seed=seed)
    found = incidents.agreement(scenario)
    assert found[:6] == (2, 2, 2, 2, 2, 0)  # outages, found, in order, deploys, own, unplanned


@pytest.mark.parametrize("seed", [1, 2])
def test_a_quiet_time_has_no_incident(seed: int) -> None:
    scenario = Scenario(incidents.UNTIL, days=10, hourly=60, seed=seed, is_quiet=True)
    assert incidents.incidents(scenario).is_empty()
