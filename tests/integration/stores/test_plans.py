"""Queries that run every minute use an index, also through views and functions."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from sahool_dlq.alerts.grafana import value_sql
from sahool_dlq.alerts.rules import read_alert_rules
from sahool_dlq.deadletter.cases import OPEN, STATUSES
from support import ROOT

# 20,000 failures a minute apart, of which one in a hundred is open, and a redrive of each.
FILL = """
INSERT INTO failed_events (id, event_id, event_type, original_subject, source_service,
    consumer_service, error_message, error_type, first_attempt_at, last_attempt_at, original_data,
    dlq_timestamp, status, group_id)
SELECT gen_random_uuid(), n::text, 'e', 's', 'source', 'service ' || n % 20, 'm',
    'app.TimeoutError', at, at, '{}', at,
    CASE WHEN n % 100 = 0 THEN 'pending' WHEN n % 50 = 1 THEN 'superseded' ELSE 'resolved' END,
    'group ' || n % 50
FROM generate_series(1, 20000) AS n, LATERAL (SELECT now() - n * interval '1 minute' AS at) AS t;
INSERT INTO redrive_batches (id, trigger, requested_by, reason, selection, state, planned)
VALUES ('00000000-0000-0000-0000-000000000001', 'manual', 'me', 'try', '{}', 'done', 1);
INSERT INTO redrives (id, failure_id, attempt, batch_id, subject, state, ended_at)
SELECT gen_random_uuid(), id, 1, '00000000-0000-0000-0000-000000000001', 's',
    CASE WHEN event_id::int % 3 = 0 THEN 'expired' ELSE 'succeeded' END, dlq_timestamp
FROM failed_events;
ANALYZE failed_events;
ANALYZE redrives;
"""

IN_RANGE = "{} BETWEEN now() - interval '5 minutes' AND now()"

ASKED = (
    "exporter/oldest_open",
    "grafana/oldest_open",
    "grafana/open_now",
    "grafana/redrive_success",
    "grafana/service_open",
    "monitoring/failures_by_service_24h",
    "monitoring/oldest_pending",
    "monitoring/oldest_pending_by_service",
    "monitoring/pending_retries",
    "monitoring/recent_failures",
    "monitoring/tenants_hit",
)

# What the schema says once, and the same spelled out over the table.
SPELLED_OUT = {
    "SELECT count(*) FROM failures WHERE is_open": f"""
        SELECT count(*) FROM failed_events AS f
        WHERE status IN {OPEN} AND status <> 'superseded'""",
    "SELECT id FROM failed_events AS f WHERE is_open(f) AND service(f) = 'service 1'": f"""
        SELECT id FROM failed_events AS f
        WHERE status IN {OPEN} AND coalesce(consumer_service, source_service) = 'service 1'""",
    "SELECT max(attempt) FROM answered_redrives WHERE ended_at > now() - '9h'::interval": """
        SELECT max(attempt) FROM redrives AS r
        WHERE state IN ('succeeded', 'failed_again') AND NOT is_replay
            AND ended_at > now() - '9h'::interval""",
}


@pytest.fixture
def filled(migrated_dsn: str) -> Iterator[Connection[Any]]:
    with psycopg.connect(migrated_dsn, autocommit=True) as connection:
        connection.execute(FILL)
        yield connection


def plan_of(connection: Connection[Any], statement: str) -> str:
    rows = connection.execute(f"EXPLAIN {statement}").fetchall()
    return "\n".join(line for (line,) in rows)


def asked(name: str) -> str:
    """The statement, with Grafana's macros replaced."""
    if name == "exporter/oldest_open":
        parts = (ROOT / "sql/exporter/pipeline.sql").read_text().split("UNION ALL")
        [found] = [part for part in parts if "'oldest_open'" in part and "FROM" in part]
        return found
    text = (ROOT / f"sql/{name}.sql").read_text().replace("$service", "service 1")
    return re.sub(r"\$__timeFilter\((\w+)\)", lambda column: IN_RANGE.format(column[1]), text)


def test_no_question_of_every_minute_reads_the_whole_table(filled: Connection[Any]) -> None:
    plans = {name: plan_of(filled, asked(name)) for name in ASKED}
    assert {name: plan for name, plan in plans.items() if "Seq Scan" in plan} == {}


def test_the_failures_of_a_minute_are_found_by_an_index(filled: Connection[Any]) -> None:
    plan = plan_of(filled, value_sql(read_alert_rules(), "dlq_rate"))
    assert "Seq Scan on failed_events" not in plan
    assert "failed_events" in plan


def test_what_is_said_once_costs_no_more_than_spelled_out(filled: Connection[Any]) -> None:
    for short, long in SPELLED_OUT.items():
        plan = plan_of(filled, short)
        assert plan == plan_of(filled, long)
        assert "Index" in plan


def test_the_schema_and_the_fold_call_the_same_open(migrated_dsn: str) -> None:
    with psycopg.connect(migrated_dsn, autocommit=True) as connection:
        for number, status in enumerate(STATUSES):
            connection.execute(
                "INSERT INTO failed_events (id, event_id, event_type, original_subject,"
                " source_service, consumer_service, error_message, error_type, first_attempt_at,"
                " last_attempt_at, original_data, dlq_timestamp, status) VALUES (gen_random_uuid(),"
                " 'e', 'e', 's', 'source', %s, 'm', 'E', now(), now(), '{}', now(), %s)",
                ["consumer" if number % 2 else None, status],
            )
        told = connection.execute("SELECT status, is_open(f), service(f) FROM failed_events AS f")
        assert set(told.fetchall()) == {
            (status, status in OPEN, "consumer" if number % 2 else "source")
            for number, status in enumerate(STATUSES)
        }
        seen = connection.execute("SELECT status, is_open FROM failures").fetchall()
    assert set(seen) == {(s, s in OPEN) for s in STATUSES if s != "superseded"}
