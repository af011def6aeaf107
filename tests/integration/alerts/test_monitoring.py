"""Every query of sql/monitoring on a real PostgreSQL, with the expected rows."""

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from support import ROOT

FOLDER = ROOT / "sql" / "monitoring"
NOW = datetime.now(UTC)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def id_of(name: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, name)


# name, service, error_type, group, tenant, dlq_timestamp, and what else is not usual
FAILURES: tuple[tuple[str, str, str, str, str | None, datetime, dict[str, Any]], ...] = (
    ("old", "ndvi", "TimeoutError", "g1", "t1", ago(days=3), {}),
    ("late", "ndvi", "TimeoutError", "g1", "t1", ago(hours=2), {"status": "retried"}),
    ("again", "ndvi", "TimeoutError", "g1", "t2", ago(hours=3), {"redrive_count": 1}),
    (
        "repeat", "ndvi", "TimeoutError", "g1", "t2", ago(minutes=5),
        {"status": "superseded", "root_failure_id": id_of("again")},
    ),
    (
        "parked", "soil", "KeyError", "g2", None, ago(hours=30),
        {"status": "parked", "redrive_count": 3},
    ),
    (
        "noted", "soil", "KeyError", "g2", None, ago(hours=29),
        {"status": "parked", "resolution_notes": "ask the vendor"},
    ),
    (
        "cured", "billing", "KeyError", "g3", "t1", ago(hours=20),
        {
            "status": "resolved", "resolved_at": ago(hours=1),
            "resolution_cause": "automatic_redrive",
        },
    ),
    (
        "mended", "billing", "ValueError", "g4", "t3", ago(days=5),
        {
            "status": "resolved", "resolved_at": ago(days=4), "resolution_cause": "manual",
            "resolution_notes": "released 2.1",
        },
    ),
    ("returned", "billing", "ValueError", "g4", "t3", ago(hours=1), {}),
)  # fmt: skip

# Whose redrive ended how, and how many days ago: of today, also where midnight has just passed.
ANSWERED = (
    ("cured", "succeeded", 0),
    ("cured", "succeeded", 0),
    ("cured", "failed_again", 0),
    ("cured", "outcome_unknown", 0),
    ("cured", "failed_again", 1),
    ("again", "failed_again", 0),
)

EXPECTED: dict[str, list[dict[str, Any]]] = {
    "recent_failures": [{"failure_id": id_of(n)} for n in (
        "returned", "late", "again", "cured", "noted", "parked", "old", "mended"
    )],
    "failures_by_type": [
        {"error_type": "KeyError", "failure_count": 3, "open_count": 2, "group_count": 2},
        {"error_type": "TimeoutError", "failure_count": 3, "open_count": 3, "group_count": 1},
        {"error_type": "ValueError", "failure_count": 2, "open_count": 1, "group_count": 1},
    ],
    "failures_by_service_24h": [
        {"service": "billing", "failure_count": 2, "open_count": 1,
         "error_types": "KeyError, ValueError"},
        {"service": "ndvi", "failure_count": 2, "open_count": 2, "error_types": "TimeoutError"},
    ],
    "pending_retries": [
        {"service": "ndvi", "status": "pending", "failure_count": 2, "redriven_count": 1},
        {"service": "billing", "status": "pending", "failure_count": 1, "redriven_count": 0},
        {"service": "ndvi", "status": "retried", "failure_count": 1, "redriven_count": 0},
    ],
    "oldest_pending": [
        {"failure_id": id_of("old"), "is_overdue": True},
        {"failure_id": id_of("parked"), "is_overdue": True},
        {"failure_id": id_of("noted"), "is_overdue": True},
        {"failure_id": id_of("again"), "is_overdue": False},
        {"failure_id": id_of("late"), "is_overdue": False},
        {"failure_id": id_of("returned"), "is_overdue": False},
    ],
    "oldest_pending_by_service": [
        {"service": "ndvi", "open_count": 3, "overdue_count": 1, "oldest_id": id_of("old")},
        {"service": "soil", "open_count": 2, "overdue_count": 2, "oldest_id": id_of("parked")},
        {"service": "billing", "open_count": 1, "overdue_count": 0, "oldest_id": id_of("returned")},
    ],
    "parked_and_why": [
        {"service": "soil", "why": "ask the vendor", "failure_count": 1},
        {"service": "soil", "why": "3 redrives without success", "failure_count": 1},
    ],
    "redrive_outcomes_today": [
        {"service": "billing", "error_type": "KeyError", "succeeded_count": 2,
         "failed_again_count": 1, "success_rate": Decimal("0.667")},
        {"service": "ndvi", "error_type": "TimeoutError", "succeeded_count": 0,
         "failed_again_count": 1, "success_rate": Decimal(0)},
    ],
    "groups_regressed": [
        {"group_id": "g4", "error_type": "ValueError", "services": "billing", "returned_count": 1,
         "resolution_notes": "released 2.1", "sample_id": id_of("returned")},
    ],
    "tenants_hit": [
        {"tenant_id": "t1", "failure_count": 2, "open_count": 1, "group_count": 2,
         "services": "billing, ndvi"},
        {"tenant_id": "t2", "failure_count": 1, "open_count": 1, "group_count": 1,
         "services": "ndvi"},
        {"tenant_id": "t3", "failure_count": 1, "open_count": 1, "group_count": 1,
         "services": "billing"},
    ],
    "stuck_redrives": [
        {"batch_id": id_of("batch"), "state": "running", "planned_count": 1, "published_count": 1},
    ],
}  # fmt: skip


@pytest.fixture
def filled(migrated_dsn: str) -> str:
    with psycopg.connect(migrated_dsn) as connection:
        for name, service, error_type, group, tenant, at, more in FAILURES:
            row = {
                "id": id_of(name), "event_id": name, "event_type": "x", "original_subject": "s.x",
                "source_service": service, "error_type": error_type, "error_message": "boom",
                "tenant_id": tenant, "group_id": group, "dlq_timestamp": at,
                "first_attempt_at": at - timedelta(minutes=1), "last_attempt_at": at,
                "original_data": "{}", **more,
            }  # fmt: skip
            columns, marks = ", ".join(row), ", ".join(["%s"] * len(row))
            statement = f"INSERT INTO failed_events ({columns}) VALUES ({marks})"
            connection.execute(statement, list(row.values()))
        for batch, made in (("batch", ago(hours=1)), ("fresh", datetime.now(UTC))):
            connection.execute(
                "INSERT INTO redrive_batches (id, trigger, requested_by, reason, selection, state,"
                " planned, created_at) VALUES (%s, 'manual', 'me', 'try', '{}', 'running', 2, %s)",
                [id_of(batch), made],
            )
            for number, state in enumerate(("planned", "published")):
                connection.execute(
                    "INSERT INTO redrives (id, failure_id, attempt, batch_id, subject, state)"
                    " VALUES (%s, %s, 1, %s, 's.x', %s)",
                    [uuid.uuid4(), id_of(f"{batch}{number}"), id_of(batch), state],
                )
        for number, (name, state, days_ago) in enumerate(ANSWERED):
            connection.execute(
                "INSERT INTO redrives (id, failure_id, attempt, batch_id, subject, state, ended_at)"
                " VALUES (%s, %s, %s, %s, 's.x', %s, NOW() - make_interval(days => %s))",
                [uuid.uuid4(), id_of(name), number + 1, id_of("batch"), state, days_ago],
            )
    return migrated_dsn


def test_every_query_gives_the_rows_that_it_must(filled: str) -> None:
    files = {file.stem: file.read_text() for file in FOLDER.glob("*.sql")}
    assert set(files) == set(EXPECTED)
    with psycopg.connect(filled, row_factory=dict_row) as connection:
        for name, statement in files.items():
            rows = connection.execute(statement).fetchall()
            wanted = EXPECTED[name]
            assert [{k: row[k] for k in wanted[0]} for row in rows] == wanted, name


def test_every_query_says_what_a_row_is() -> None:
    for file in FOLDER.glob("*.sql"):
        head = file.read_text().partition("\n\n")[0]
        assert "-- Grain: " in head, file.name
        assert "PostgreSQL, on `" in head, file.name
