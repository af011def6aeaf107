"""FailedEventModel and its queries on a real PostgreSQL, over drained rows."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.client import Client
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from test_migrations import FIRST, columns

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.embedded import PostgresServer
from sahool_dlq.events import (
    CREATE_TABLE_SQL,
    FailedEventModel,
    failures_by_error_type,
    failures_by_service,
    pending_retries,
    recent_failures,
)
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from sahool_dlq.sqlfiles import read_sql
from sahool_dlq.stores.postgres.database import migrate
from support.platform_log import execute, letter, publish, query


def url_of(dsn: str) -> str:
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def engine(database_dsn: str) -> Iterator[Engine]:
    engine = create_engine(url_of(database_dsn))
    yield engine
    engine.dispose()


def test_the_model_the_statement_and_the_migration_make_the_same_columns(
    engine: Engine, database_dsn: str, postgres_server: PostgresServer
) -> None:
    other = postgres_server.create_database("by_model")
    try:
        by_model = create_engine(url_of(other))
        FailedEventModel.metadata.create_all(by_model)
        by_model.dispose()
        for _ in range(2):  # idempotent
            with engine.begin() as connection:
                connection.execute(text(CREATE_TABLE_SQL))
        assert list(columns(database_dsn)) == list(FIRST)
        assert columns(database_dsn) == columns(other) == FIRST
    finally:
        postgres_server.drop_database("by_model")


NOW = datetime.now(UTC)


def dead(number: int, hours_ago: float, **changes: Any) -> bytes:
    return letter(number, dlq_timestamp=(NOW - timedelta(hours=hours_ago)).isoformat(), **changes)


LETTERS = [
    dead(0, 30, error_type="ValueError", consumer_service="ndvi-service"),
    dead(1, 20, error_type="ValueError", consumer_service="ndvi-service"),
    dead(2, 10, error_type="TimeoutError"),
    dead(3, 5, error_type="TimeoutError", source_service="weather", original_data=[1, "ü"]),
    dead(4, 1, error_type="KeyError", source_service="weather"),
]


@pytest.fixture
async def drained(settings: Settings, client: Client) -> Settings:
    """A platform with five failures, one of them discarded, and the later row of a chain."""
    await publish(client, settings, LETTERS)
    await drain_log(settings)
    [first] = query(settings, "SELECT id::text FROM failed_events WHERE event_id = 'event-4'")
    body = encode_case_event(failure_id=first["id"], at=NOW, actor="test")
    await publish(client, settings, [body], "triage.discarded")
    await drain_log(settings)
    execute(
        settings,
        "INSERT INTO failed_events (id, event_id, event_type, original_subject, source_service,"
        " error_message, error_type, first_attempt_at, last_attempt_at, original_data,"
        " dlq_timestamp, status) VALUES (gen_random_uuid(), 'again', 'e', 's', 'weather', 'm',"
        " 'TimeoutError', now(), now(), '{}', now(), 'superseded')",
    )
    return settings


@pytest.fixture
def session(drained: Settings, migrated_dsn: str) -> Iterator[Session]:
    engine = create_engine(url_of(migrated_dsn))
    with Session(engine) as session:
        yield session
    engine.dispose()


def test_recent_failures_are_whole_rows_newest_first(session: Session) -> None:
    newest = session.scalars(recent_failures(limit=3)).all()
    assert [row.event_id for row in newest] == ["event-4", "event-3", "event-2"]
    assert [row.status for row in newest] == ["discarded", "pending", "pending"]
    row = newest[1]
    assert row.original_data == [1, "ü"]
    assert row.original_headers == {"Trace": "t3"}
    assert row.dlq_timestamp == NOW - timedelta(hours=5)
    values = row.to_dict()
    assert list(values) == list(FIRST)
    assert json.loads(json.dumps(values)) == values
    assert values["id"] == str(row.id)
    assert datetime.fromisoformat(values["dlq_timestamp"]) == row.dlq_timestamp
    assert "event-3" not in repr(row)
    assert "TimeoutError pending" in repr(row)


def test_failures_by_error_type(session: Session) -> None:
    rows = session.execute(failures_by_error_type()).all()
    assert rows == [("TimeoutError", 2, 2), ("ValueError", 2, 2), ("KeyError", 1, 0)]
    assert rows[0].failure_count == 2


def test_failures_by_service_of_the_last_hours(session: Session) -> None:
    assert session.execute(failures_by_service()).all() == [
        ("weather", 2, 1),
        ("ndvi-service", 1, 1),
        ("satellite-service", 1, 1),
    ]
    assert session.execute(failures_by_service(hours=6)).all() == [("weather", 2, 1)]


def test_pending_retries_oldest_first(session: Session) -> None:
    all_pending = session.scalars(pending_retries()).all()
    assert [row.event_id[-1] for row in all_pending] == ["0", "1", "2", "3"]
    transient = session.scalars(pending_retries({"TimeoutError", "ConnectionError"})).all()
    assert [row.event_id[-1] for row in transient] == ["2", "3"]
    assert session.scalars(pending_retries([])).all() == []


def test_the_helpers_count_as_the_monitoring_queries_do(session: Session) -> None:
    for name, statement in (
        ("failures_by_type", failures_by_error_type()),
        ("failures_by_service_24h", failures_by_service()),
    ):
        found = session.execute(text(read_sql(f"monitoring/{name}.sql"))).all()
        assert [tuple(row)[:3] for row in found] == session.execute(statement).all()
    newest = session.execute(text(read_sql("monitoring/recent_failures.sql"))).all()
    assert [row.failure_id for row in newest] == [
        row.id for row in session.scalars(recent_failures())
    ]


async def test_an_asynchronous_session_runs_them_too(drained: Settings, migrated_dsn: str) -> None:
    engine = create_async_engine(url_of(migrated_dsn))
    async with AsyncSession(engine) as session:
        assert len((await session.scalars(recent_failures())).all()) == 5
        assert (await session.execute(failures_by_service(hours=2))).all() == [("weather", 1, 0)]
    await engine.dispose()


def test_by_service_needs_the_tables_of_dlq_migrate(engine: Engine, database_dsn: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(CREATE_TABLE_SQL))
    with Session(engine) as session:
        assert session.scalars(recent_failures()).all() == []
        with pytest.raises(ProgrammingError, match=r"service\(failed_events\)"):
            session.execute(failures_by_service())
    assert "0001_failed_events" in migrate(database_dsn)
    engine.dispose()  # sessions from now on have the path that the database has
    with engine.begin() as connection:  # at its next start; the table is in another schema now
        connection.execute(text(CREATE_TABLE_SQL))
    with Session(engine) as session:
        assert session.execute(failures_by_service()).all() == []
