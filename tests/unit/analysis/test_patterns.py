"""Planted spikes, escalation, co-failures, habits, contributors and poison are found."""

import json
import random
from collections import Counter
from datetime import datetime, timedelta
from statistics import mean, median, pstdev
from typing import Any

import polars as pl
import pytest
from scipy.stats import poisson

from sahool_dlq.analysis.marts.build import build_marts
from sahool_dlq.analysis.marts.contributors import explain
from support.lake_log import NOW, Log, before, failure


@pytest.fixture
def log() -> Log:
    return Log()


def mart(log: Log, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = build_marts(log.connection, NOW, [name])[name].to_pylist()
    return rows


def fill(log: Log, rows: list[dict[str, Any]]) -> None:
    """Many dead letters at once: like `Log.dead_letter`, with the columns that differ."""
    log.dead_letter("first", dlq_timestamp=before(days=400))
    (template,) = log.connection.sql("SELECT * FROM dead_letters").to_arrow_table().to_pylist()
    log.connection.execute("DELETE FROM dead_letters")
    letters = []
    for number, row in enumerate(rows, start=2):
        at = row["dlq_timestamp"]
        place = {
            "dlq_sequence": number,
            "failure_id": failure(str(number)),
            "first_attempt_at": at,
            "published_at": at,
            "dlq_date": at.date(),
        }
        letters.append(template | place | row)
    log.sequence += len(rows)
    schema = log.connection.sql("SELECT * FROM dead_letters").to_arrow_table().schema
    log.connection.register("letters", pl.DataFrame(letters, infer_schema_length=None).to_arrow())
    log.connection.execute(
        f"INSERT INTO dead_letters BY NAME SELECT {', '.join(schema.names)} FROM letters"
    )
    log.connection.unregister("letters")


def at(*times: datetime, **columns: Any) -> list[dict[str, Any]]:
    return [{"dlq_timestamp": time, **columns} for time in times]


def quiet(rng: random.Random, days: int, per_hour: float, **columns: Any) -> list[dict[str, Any]]:
    """A Poisson process of failures, up to NOW."""
    rows, time = [], before(days=days)
    while (time := time + timedelta(hours=rng.expovariate(per_hour))) < NOW:
        rows.append({"dlq_timestamp": time, **columns})
    return rows


# Spikes and escalation -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_last_hour", "a_week_ago", "is_spike"),
    [
        (9, [0, 0, 0, 0], False),  # too few
        (10, [0, 0, 0, 0], True),
        (12, [3, 4, 3, 40], False),  # median 3.5: 12 would come by chance
        (13, [3, 4, 3, 3], True),
        (29, [10, 10, 9, 11], False),
        (30, [10, 10, 9, 11], True),
    ],
)
def test_a_spike_is_over_the_same_hour_of_four_weeks(
    log: Log, in_last_hour: int, a_week_ago: list[int], is_spike: bool
) -> None:
    rows = at(before(days=29)) + at(*[before(minutes=m + 1) for m in range(in_last_hour)])
    for week, count in enumerate(a_week_ago, start=1):
        rows += at(*[before(days=7 * week, minutes=m) for m in range(count)])
    fill(log, rows)
    (row,) = [row for row in mart(log, "spikes") if row["dimension"] == "service"]
    assert row == {
        "dimension": "service",
        "value": "ndvi",
        "failure_count": in_last_hour,
        "expected_count": median(a_week_ago),
        "expected_from": "4 weeks",
        "is_spike": is_spike,
    }


def test_a_young_log_expects_the_mean_of_the_day_before(log: Log) -> None:
    fill(log, at(*[before(hours=hour) for hour in range(1, 25)], *[NOW] * 5))
    (row,) = [row for row in mart(log, "spikes") if row["dimension"] == "overall"]
    assert (row["expected_count"], row["expected_from"], row["is_spike"]) == (
        1.0,
        "24 hours",
        False,
    )


def test_spikes_agree_with_a_naive_reading_of_the_rule(log: Log) -> None:
    rng = random.Random(3)
    rows = [
        {"dlq_timestamp": before(minutes=rng.randrange(33 * 1440)), "service": f"s{index % 4}"}
        for index in range(20_000)
    ]
    rows += at(*[before(minutes=rng.randrange(40)) for _ in range(60)], service="s1")
    fill(log, rows)
    for row in mart(log, "spikes"):
        if row["dimension"] == "service":
            ages = [
                int((NOW - r["dlq_timestamp"]).total_seconds() // 60)
                for r in rows
                if r["service"] == row["value"]
            ]
            x = sum(0 <= age < 60 for age in ages)
            expected = median(
                sum(week * 10080 <= a < week * 10080 + 60 for a in ages) for week in (1, 2, 3, 4)
            )
            assert (row["failure_count"], row["expected_count"]) == (x, expected)
            rule = x >= 10 and x >= 3 * expected and poisson.sf(x - 1, expected) < 1e-4
            assert row["is_spike"] == rule == (row["value"] == "s1")


def escalation_limit(hourly: list[int], weekdays: list[bool], is_old: bool) -> float:
    """The limit by its definition; `hourly` are the 168 hours before the last."""
    if not is_old:
        return 10.0 * max(hourly)
    from math import exp

    m, s = mean(hourly), pstdev(hourly)
    weights = [2 if is_same else 1 for is_same in weekdays]
    wavg = sum(w * x for w, x in zip(weights, hourly, strict=True)) / sum(weights)
    return max(
        max(hourly) * min(max(5 * exp(-0.65 * s / m), 2), 5),
        wavg + m * min(max((m + 5 * s) / m, 5), 8),
    )


@pytest.mark.parametrize(("days", "per_hour", "burst"), [(30, 0.5, 25), (30, 3, 10), (4, 1.0, 90)])
def test_escalation_agrees_with_its_definition(
    log: Log, days: int, per_hour: float, burst: int
) -> None:
    rng = random.Random(days + burst)
    rows = quiet(rng, days, per_hour) + at(
        *[before(minutes=rng.randrange(59)) for _ in range(burst)]
    )
    fill(log, rows)
    (group,) = mart(log, "failure_groups")
    counts = Counter(
        int((NOW - row["dlq_timestamp"].replace(second=0, microsecond=0)).total_seconds()) // 3600
        for row in rows
    )
    hours = range(1, 169)
    limit = escalation_limit(
        [counts[hour] for hour in hours],
        [before(hours=hour).weekday() == NOW.weekday() for hour in hours],
        is_old=days > 7,
    )
    assert group["failure_count_1h"] == counts[0]
    assert group["escalation_limit"] == pytest.approx(limit)
    assert group["is_escalating"] == (counts[0] > limit)
    assert group["state"] == ("escalating" if counts[0] > limit else "ongoing")


def test_a_group_that_grows_is_escalating_and_a_new_one_is_new(log: Log) -> None:
    burst = [before(minutes=minute) for minute in range(40)]
    fill(
        log,
        at(*[before(hours=h) for h in range(1, 400)], *burst, group_id="old")
        + at(*burst, group_id="fresh"),
    )
    states = {row["group_id"]: row["state"] for row in mart(log, "failure_groups")}
    assert states == {"old": "escalating", "fresh": "new"}


def test_the_chance_of_a_redrive_follows_its_outcomes_and_forgets_them(log: Log) -> None:
    for name, error, group in (("a", "TimeoutError", "g1"), ("b", "ValueError", "g2")):
        log.dead_letter(name, error_class=error, group_id=group)
    chances = {r["group_id"]: r["redrive_chance"] for r in mart(log, "failure_groups")}
    assert chances == pytest.approx({"g1": 4 / 6, "g2": 1 / 10})
    log.event("redrive.published", "a", attempt=1)
    log.event("redrive.succeeded", "a", attempt=1, at=before(days=7))
    log.dead_letter("b1", root="b", redrive_attempt=1, dlq_timestamp=before(days=14))
    chances = {r["group_id"]: r["redrive_chance"] for r in mart(log, "failure_groups")}
    assert chances == pytest.approx({"g1": 4.5 / 6.5, "g2": 1 / 10.25})


# Patterns in time ----------------------------------------------------------------------------


def outbreaks(rng: random.Random, starts: list[datetime], **columns: Any) -> list[dict[str, Any]]:
    """Twenty failures a minute for six minutes, from each start on."""
    return at(*[s + timedelta(seconds=3 * n) for s in starts for n in range(120)], **columns)


def test_services_that_begin_to_fail_together_are_found_with_their_lag(log: Log) -> None:
    rng = random.Random(5)
    starts = [before(days=day, minutes=rng.randrange(600)) for day in range(2, 26, 4)]
    alone = [before(days=day, minutes=700) for day in range(3, 26, 5)]
    rows = outbreaks(rng, starts, service="gateway")
    rows += outbreaks(rng, [s + timedelta(seconds=75) for s in starts], service="advice")
    rows += outbreaks(rng, alone, service="irrigation")
    for service in ("gateway", "advice", "irrigation"):
        rows += quiet(rng, 40, 0.5, service=service)
    fill(log, rows)
    (pair,) = mart(log, "co_failures")
    assert (pair["service_a"], pair["service_b"], pair["leader"]) == (
        "advice",
        "gateway",
        "gateway",
    )
    assert (pair["outbreaks_a"], pair["outbreaks_b"], pair["together_count"]) == (6, 6, 6)
    assert pair["median_lag_seconds"] == pytest.approx(75, abs=1)
    assert pair["slot_count"] == 4 * 2016
    assert pair["lift"] == pytest.approx(6 * 4 * 2016 / 36)
    assert pair["adjusted_p"] < 1e-10


def test_a_daily_habit_is_found_and_an_hour_of_the_week_counted_right(log: Log) -> None:
    rng = random.Random(6)
    rows = quiet(rng, 36, 1.0)
    rows += at(*[before(days=7 * week, hours=10 + n / 60) for week in range(5) for n in range(20)])
    fill(log, rows)
    cells = {
        row["hour_of_week"]: row
        for row in mart(log, "hour_of_week")
        if row["dimension"] == "overall"
    }
    assert len(cells) == 168
    since = before(days=35) + timedelta(minutes=1)
    expected = Counter(
        t.weekday() * 24 + t.hour for t in (r["dlq_timestamp"] for r in rows) if t >= since
    )
    assert {hour: row["failure_count"] for hour, row in cells.items()} == {
        hour: expected[hour] for hour in range(168)
    }
    uniform = expected.total() / 168
    chi_square = sum((expected[hour] - uniform) ** 2 / uniform for hour in range(168))
    assert cells[0]["chi_square"] == pytest.approx(chi_square)
    assert cells[0]["p_value"] < 1e-20
    busiest = max(cells.values(), key=lambda row: row["failure_count"])
    assert (busiest["weeks_hit"], busiest["weeks_high"], busiest["week_count"]) == (5, 5, 5)
    assert {row["weeks_high"] for row in cells.values() if row["weeks_hit"] == 0} <= {0}


def test_an_outage_makes_one_high_week_and_no_habit(log: Log) -> None:
    rows = at(*[before(days=7 * week) for week in range(5)])
    rows += at(*[before(days=8, hours=10 + n / 60) for n in range(20)])
    fill(log, rows)
    (usual, outage) = (
        next(
            row
            for row in mart(log, "hour_of_week")
            if row["hour_of_week"] == when.weekday() * 24 + when.hour
        )
        for when in (before(days=7), before(days=8, hours=10))
    )
    assert (usual["weeks_hit"], usual["weeks_high"]) == (4, 4)
    assert (outage["weeks_hit"], outage["weeks_high"]) == (1, 1)


def test_nothing_is_found_in_quiet_data(log: Log) -> None:
    rng = random.Random(11)
    rows = []
    for service in ("ndvi", "soil", "advice"):
        rows += quiet(rng, 40, 2.0, service=service, group_id=service)
    for row in rows:
        row["tenant_id"] = f"t{rng.randrange(12)}"
        row["original_data"] = f'{{"crop": "{rng.choice(["wheat", "dates"])}"}}'
    fill(log, rows)
    found = build_marts(log.connection, NOW)
    for name in ("co_failures", "poison_tenants", "poison_messages"):
        assert found[name].num_rows == 0, name
    assert not any(row["is_spike"] for row in found["spikes"].to_pylist())
    assert {row["state"] for row in found["failure_groups"].to_pylist()} == {"ongoing"}
    assert min(row["p_value"] for row in found["hour_of_week"].to_pylist()) > 0.001
    # a group is one service here, and that is all there is to say of it
    assert {row["attribute"] for row in found["contributors"].to_pylist()} <= {"service"}


def test_less_than_four_weeks_have_no_hours_of_the_week(log: Log) -> None:
    fill(log, quiet(random.Random(1), 27, 1.0))
    assert mart(log, "hour_of_week") == []


# Who and what --------------------------------------------------------------------------------


def test_contributors_name_the_tenant_the_version_and_a_pair(log: Log) -> None:
    rng = random.Random(9)
    rows = [
        {
            "dlq_timestamp": before(hours=rng.randrange(100)),
            "group_id": "other",
            "tenant_id": f"t{rng.randrange(9)}",
            "consumer_version": rng.choice(["1.0", "1.1", "1.1"]),
            "original_data": json.dumps(
                {"crop": rng.choice(["wheat", "dates", "maize"]), "n": number}
            ),
        }
        for number in range(600)
    ]
    ill = dict(rows[0], group_id="ill")
    rows += [
        ill
        | {
            "tenant_id": f"t{rng.randrange(9)}",
            "consumer_version": "1.1",
            "original_data": '{"crop": "dates"}',
            "dlq_timestamp": before(hours=rng.randrange(100)),
        }
        for _ in range(80)
    ]
    fill(log, rows)
    found = [row for row in mart(log, "contributors") if row["subject"] == "ill"]
    pair = next(row for row in found if row["other_attribute"])  # the most telling comes first
    assert (pair["attribute"], pair["value"]) == ("consumer_version", "1.1")
    assert (pair["other_attribute"], pair["other_value"]) == ("data.crop", "dates")
    assert (pair["failure_count"], pair["share"]) == (80, 1.0)
    both = sum(
        row["consumer_version"] == "1.1" and "dates" in row["original_data"] for row in rows[:600]
    )
    assert pair["baseline_share"] == pytest.approx(both / 600)
    singles = {row["attribute"] for row in found if row["other_attribute"] is None}
    assert singles == {"data.crop"}  # "1.1" alone has a ratio below two


def test_a_pair_that_one_part_explains_is_left_out() -> None:
    hit = pl.Series([True] * 20 + [False] * 80)
    rows = [(i, "tenant_id", "t1" if i < 20 else "t2") for i in range(100)]
    rows += [(i, "service", "ndvi") for i in range(100)]
    known = pl.DataFrame(
        rows, schema={"id": pl.UInt32, "attribute": pl.String, "value": pl.String}, orient="row"
    )
    assert explain(hit, known).select("attribute", "value", "other_attribute").rows() == [
        ("tenant_id", "t1", None)
    ]


def test_the_last_day_is_compared_with_the_week_before(log: Log) -> None:
    rows = at(*[before(hours=30 + n) for n in range(100)], tenant_id="t1")
    rows += at(*[before(hours=1 + n / 5) for n in range(50)], tenant_id="t2")
    fill(log, rows)
    (found,) = [r for r in mart(log, "contributors") if r["subject"] == "last 24 hours"]
    assert (found["attribute"], found["value"], found["share"]) == ("tenant_id", "t2", 1.0)


def test_poison_tenants(log: Log) -> None:
    fill(
        log,
        at(*[before(hours=n) for n in range(15)], group_id="ill", tenant_id="t1")
        + at(*[before(hours=n) for n in range(5)], group_id="ill", tenant_id="t2")
        + at(*[before(hours=n) for n in range(19)], group_id="small", tenant_id="t3")
        + at(*[before(hours=n % 100) for n in range(300)], group_id="usual", tenant_id="t4")
        + at(*[before(days=8)] * 500, group_id="old", tenant_id="t5"),
    )
    assert mart(log, "poison_tenants") == [
        {
            "tenant_id": "t1",
            "group_id": "ill",
            "error_class": "ValueError",
            "services": "ndvi",
            "failure_count": 15,
            "open_count": 15,
            "group_count": 20,
            "share_of_group": 0.75,
            "share_of_all": pytest.approx(15 / 339),
            "concentration": pytest.approx(0.75 / (15 / 339)),
        }
    ]


def test_poison_messages(log: Log) -> None:
    for name in ("a", "b", "c"):
        log.dead_letter(name)
    for attempt in (1, 2, 3):
        log.event("redrive.published", "a", attempt=attempt)
        log.dead_letter(f"a{attempt}", root="a", redrive_attempt=attempt)
    assert mart(log, "poison_messages") == []  # no other failure was cured either
    log.event("redrive.published", "b", attempt=1)
    log.event("redrive.succeeded", "b", attempt=1)
    log.dead_letter("d", original_sequence=7, consumer_name="ndvi")
    log.dead_letter("e", original_sequence=7, consumer_name="soil", service="soil")
    log.dead_letter("f", original_sequence=8)
    at = {
        "original_sequence": 9,
        "published_at": before(hours=3),
        "dlq_date": before(hours=3).date(),
    }
    log.dead_letter("g", **at, tenant_id="t2", event_type="old")
    log.dead_letter("h", **at, tenant_id=None, consumer_name="soil", event_type="new")
    found = mart(log, "poison_messages")
    assert sorted((r["kind"], r["failure_id"], r["consumer_count"]) for r in found) == [
        ("redriven_in_vain", failure("a"), 1),
        ("several_consumers", failure("e"), 2),
        ("several_consumers", failure("h"), 2),
    ]
    (of_h,) = [row for row in found if row["failure_id"] == failure("h")]
    assert (of_h["tenant_id"], of_h["event_type"]) == (None, "new")  # nothing of g's
    assert (found[0]["redrive_count"], found[0]["cured_count"]) == (3, 1)


def test_poison_consumers(log: Log) -> None:
    """One of seven consumers with twenty failures may have a bug of its own."""
    for number in range(20):
        place = {"original_sequence": number, "dlq_timestamp": before(days=1, minutes=-number)}
        tenant = {"tenant_id": f"t{number % 4}"}
        bad = {"group_id": "code", "consumer_version": f"2.{number % 2}"}
        log.dead_letter(f"a{number}", **place, **tenant, **bad)
        for consumer in ("soil", "advice"):  # the message is at fault
            other = {"original_sequence": 100 + number, "consumer_name": consumer}
            log.dead_letter(f"{consumer}{number}", group_id=consumer, **tenant, **other)
        other = {"original_sequence": 200 + number, "error_class": "TimeoutError"}
        log.dead_letter(f"c{number}", group_id="passes", consumer_name="map", **tenant, **other)
        other = {"original_sequence": 300 + number, "consumer_name": "feed"}
        log.dead_letter(f"d{number}", group_id="theirs", tenant_id="theirs", **other)
        other = {"original_sequence": 800 + number, "error_class": "UniqueViolation"}
        log.dead_letter(f"g{number}", group_id="content", consumer_name="rows", **tenant, **other)
        other = {"original_sequence": 400 + number % 19, "consumer_name": "few"}
        log.dead_letter(f"e{number}", group_id="few", **tenant, **other)
    for number in range(200):  # so that `theirs` is far less of everything else
        log.dead_letter(f"f{number}", group_id=f"{number}", original_sequence=500 + number)
    log.dead_letter("a", root="a0", original_sequence=0, group_id="code", tenant_id="other")
    assert mart(log, "poison_consumers") == [
        {
            "original_stream": "SAHOOL_EVENTS",
            "consumer_name": "ndvi",
            "service": "ndvi",
            "consumer_versions": "2.0, 2.1",
            "group_id": "code",
            "error_class": "ValueError",
            "message_count": 20,
            "tenant_count": 4,
            "event_type_count": 1,
            "first_failed_at": before(days=1),
            "last_failed_at": before(days=1, minutes=-19),
        }
    ]


# Health and metrics --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last_hour", "before_that", "alert"),
    [
        ((1000, 5), (9000, 5), "none"),
        ((1000, 20), (100_000, 0), "page"),
        ((1000, 9), (1000, 0), "none"),  # fewer than ten
        ((100_000, 150), (100_000, 250), "ticket"),
    ],
)
def test_burn_rates_page_and_ticket(
    log: Log, last_hour: tuple[int, int], before_that: tuple[int, int], alert: str
) -> None:
    total, failed = last_hour
    earlier, earlier_failed = before_that
    process = {"started_at": before(days=9)}
    log.totals("ndvi", published_at=before(days=8), **process)
    log.totals(
        "ndvi",
        published_at=before(hours=4),
        succeeded=earlier - earlier_failed,
        dead_lettered=earlier_failed,
        **process,
    )
    log.totals(
        "ndvi",
        published_at=before(minutes=2),
        succeeded=earlier - earlier_failed + total - failed,
        dead_lettered=earlier_failed + failed,
        **process,
    )
    (row,) = mart(log, "service_health")
    assert row["burn_1h"] == pytest.approx(failed / total / 0.001)
    assert row["burn_6h"] == pytest.approx((failed + earlier_failed) / (total + earlier) / 0.001)
    assert row["alert"] == alert
    assert row["score"] == pytest.approx(100 - 50 * min(row["burn_1h"] / 14.4, 1))


def test_a_critical_failure_lowers_the_score(log: Log) -> None:
    log.dead_letter("a", error_class="DatabaseError", dlq_timestamp=before(minutes=10))
    (row,) = mart(log, "service_health")
    assert (row["critical_part"], row["score"], row["alert"]) == (0.3, 70.0, None)


def test_the_age_that_nine_tenths_of_the_open_have_not_reached(log: Log) -> None:
    for hours in range(1, 21):
        log.dead_letter(str(hours), dlq_timestamp=before(hours=hours))
    (row,) = mart(log, "service_health")
    assert (row["p90_open_age_seconds"], row["oldest_open_age_seconds"]) == (18 * 3600, 20 * 3600)


def test_the_five_metrics(log: Log) -> None:
    for minutes in (1, 2, 3, 50):
        log.dead_letter(str(minutes), dlq_timestamp=before(minutes=minutes))
    log.dead_letter("t", error_class="TimeoutError", dlq_timestamp=before(hours=20))
    log.event("redrive.published", "t", attempt=1)
    log.event("redrive.succeeded", "t", attempt=1, at=before(hours=19))
    log.event("redrive.published", "1", attempt=1)
    log.dead_letter("x", root="1", redrive_attempt=1, dlq_timestamp=before(minutes=1))
    found = {(row["metric"], row["label"]): row["value"] for row in mart(log, "metrics")}
    health = found.pop(("service_health", "ndvi"))
    assert 0 < health < 100
    assert found == pytest.approx(
        {
            ("dlq_rate", "5 minutes"): 3 / 5,
            ("dlq_rate", "1 hour"): 4 / 60,
            ("dlq_rate", "24 hours"): 5 / 1440,
            ("dlq_rate", "7 days"): 5 / 10080,
            ("error_distribution", "TimeoutError"): 0.2,
            ("error_distribution", "ValueError"): 0.8,
            ("redrive_success_rate", "1 hour"): 0.0,
            ("redrive_success_rate", "24 hours"): 0.5,
            ("redrive_success_rate", "7 days"): 0.5,
            ("resolution_time", "mean_of_first_24h"): None,  # watched for less than a day
            ("resolution_time", "median"): 3600.0,
            ("resolution_time", "p90"): 3600.0,
        }
    )
