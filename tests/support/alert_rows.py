"""Rows in PostgreSQL that alerts are about, as the drain would write them."""

import uuid
from datetime import UTC, datetime
from typing import Any

from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from sahool_dlq.stores.postgres.verifications import keep_verification
from support.platform_log import execute

_FAILURES = """
INSERT INTO failed_events (id, event_id, event_type, original_subject, source_service,
    consumer_service, tenant_id, error_message, error_type, first_attempt_at, last_attempt_at,
    original_data, dlq_timestamp, created_at, status, alert_sent, parse_error,
    original_stream, consumer_name, group_id)
SELECT md5(%(seed)s || n)::uuid, 'e' || n, 'ndvi_computed', 'sahool.analysis.ndvi_computed',
    'satellite', %(service)s, %(tenant)s, %(message)s, %(error_type)s, now(), now(), '{}',
    now() - %(minutes_ago)s * interval '1 minute',
    now() - %(stored_minutes_ago)s * interval '1 minute', %(status)s, %(alert_sent)s,
    %(parse_error)s, %(stream)s, %(consumer)s, 'f00d'
FROM generate_series(1, %(count)s) n
"""


def add_failures(settings: Settings, count: int = 1, minutes_ago: float = 0, **values: Any) -> None:
    """Failures of one kind, all at one time."""
    row = {
        "seed": uuid.uuid4().hex,
        "count": count,
        "minutes_ago": minutes_ago,
        "stored_minutes_ago": minutes_ago,
        "service": "ndvi-service",
        "tenant": "tenant-1",
        "message": "no connection",
        "error_type": "ConnectionError",
        "status": "pending",
        "alert_sent": False,
        "parse_error": None,
        "stream": None,
        "consumer": None,
        **values,
    }
    execute_named(settings, _FAILURES, row)


def add_totals(settings: Settings, service: str, *samples: tuple[float, int, int]) -> None:
    """Samples of one consumer's counters: minutes ago, handled, succeeded."""
    for number, (minutes_ago, handled, succeeded) in enumerate(samples, 1):
        execute(
            settings,
            "INSERT INTO service_totals SELECT %s, now() - %s * interval '1 minute', %s, 'c',"
            " date_trunc('day', now()) - interval '1 day', %s, %s, 0, 0, 0",
            *(number, minutes_ago, service, handled, succeeded),
        )


def add_sample(settings: Settings, minutes_ago: float = 0, **values: Any) -> None:
    """A sample of the log."""
    row = {"first": 1, "last": 0, "max_messages": None, "messages": 0, "problem": None, **values}
    execute_named(
        settings,
        "INSERT INTO stream_samples (at, role, stream, created, first_sequence, last_sequence,"
        " message_count, size_bytes, max_messages, problem)"
        " VALUES (now() - %(ago)s * interval '1 minute', 'log', 'SAHOOL_DLQ', '2026-01-01Z',"
        " %(first)s, %(last)s, %(messages)s, 0, %(max_messages)s, %(problem)s)",
        {**row, "ago": minutes_ago},
    )


def add_checkpoint(settings: Settings, sequence: int) -> None:
    """Set how far the drain has read."""
    execute(
        settings,
        "INSERT INTO drain_epochs VALUES ('e', 'SAHOOL_DLQ', '2026-01-01Z', 0, 1, 'first seen')"
        " ON CONFLICT DO NOTHING",
    )
    execute(
        settings,
        "INSERT INTO drain_checkpoints VALUES ('SAHOOL_DLQ', 'e', %s)"
        " ON CONFLICT (stream) DO UPDATE SET last_sequence = excluded.last_sequence",
        sequence,
    )


def execute_named(settings: Settings, statement: str, values: dict[str, Any]) -> None:
    """A statement with named parameters."""
    import psycopg

    with psycopg.connect(settings.postgres_dsn.get_secret_value()) as connection:
        connection.execute(statement, values)


def add_verification(settings: Settings, findings: list[dict[str, Any]]) -> None:
    """A verification that has just ended."""
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        keep_verification(
            connection,
            started_at=datetime.now(UTC),
            seconds=1.5,
            files=12,
            read_bytes=3_400_000,
            unchecked_files=0,
            findings=findings,
        )
