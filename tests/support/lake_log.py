"""A small lake for tests: base tables in DuckDB, filled message by message in log order."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import duckdb

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.record import FINGERPRINT_COLUMNS, DeadLetter

NOW = datetime(2026, 3, 8, 12, tzinfo=UTC)
EPOCH = "SAHOOL_DLQ|1"
ADDRESS = "SAHOOL_EVENTS/ndvi"


def _columns(record: type) -> dict[str, str]:
    """The DuckDB type of each field of a record."""
    hints = {name: str(hint) for name, hint in get_type_hints(record).items()}
    types = {"int": "BIGINT", "datetime": "TIMESTAMPTZ", "str": "VARCHAR"}
    return {
        name: next(kind for word, kind in types.items() if word in hint)
        for name, hint in hints.items()
    }


_DEAD_LETTERS = {
    **_columns(DeadLetter),
    **dict.fromkeys(FINGERPRINT_COLUMNS, "VARCHAR"),
    "fingerprint_version": "INTEGER",
    "fingerprint_rules": "VARCHAR",
    "dlq_date": "DATE",
}
_CASE_EVENTS = {**_columns(CaseEvent), "dlq_date": "DATE"}
_SERVICE_TOTALS = {
    "totals_sequence": "BIGINT",
    "published_at": "TIMESTAMPTZ",
    "service": "VARCHAR",
    "consumer": "VARCHAR",
    "started_at": "TIMESTAMPTZ",
    **dict.fromkeys(("handled", "succeeded", "retried", "dead_lettered", "skipped"), "BIGINT"),
    "consumer_version": "VARCHAR",
}
TABLES = {
    "dead_letters": _DEAD_LETTERS,
    "case_events": _CASE_EVENTS,
    "service_totals": _SERVICE_TOTALS,
}


def before(**ago: float) -> datetime:
    """The time this long before NOW: `before(hours=2)`."""
    return NOW - timedelta(**ago)


def failure(name: str) -> str:
    """The id of a failure in these tests."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


class Log:
    """Messages in log order; every argument is a column, the rest has a sensible default."""

    def __init__(self) -> None:
        self.connection = duckdb.connect()
        self.sequence = 0
        for table, columns in TABLES.items():
            listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
            self.connection.execute(f"CREATE TABLE {table} ({listed})")

    def clear(self) -> None:
        """Delete all messages; the views stay. Faster than a new log for each example."""
        for table in TABLES:
            self.connection.execute(f"DELETE FROM {table}")
        self.sequence = 0

    def dead_letter(self, name: str, *, root: str | None = None, **columns: Any) -> str:
        """A dead letter of the failure `name`, as a redrive of `root` if given."""
        place = self._place()
        at = columns.get("dlq_timestamp", place["published_at"])
        values = {
            **place,
            "subject": "sahool.dlq.ndvi_computed",
            "size_bytes": 100,
            "failure_id": failure(name),
            "root_failure_id": failure(root) if root else None,
            "event_id": name,
            "event_type": "ndvi_computed",
            "original_subject": "sahool.analysis.ndvi_computed",
            "original_stream": "SAHOOL_EVENTS",
            "source_service": "satellite",
            "consumer_service": "ndvi",
            "service": "ndvi",
            "consumer_name": "ndvi",
            "tenant_id": "t1",
            "error_type": "ValueError",
            "error_message": "boom",
            "first_attempt_at": at,
            "last_attempt_at": at,
            "dlq_timestamp": at,
            "original_data": "{}",
            "envelope": "canonical",
            "group_id": "g1",
            "parent_id": "p1",
            "cause_id": "c1",
            "fingerprint_version": 1,
            "error_class": "ValueError",
            "template": "boom",
            "frames": "app:handle",
        }
        self._insert("dead_letters", values | columns)
        return failure(name)

    def event(self, kind: str, name: str, **columns: Any) -> None:
        """A case event about the failure `name`: `redrive.published`, `triage.resolved`, …"""
        place = self._place()
        values = {
            **place,
            "subject": f"sahool.{kind}",
            "kind": kind,
            "failure_id": failure(name),
            "consumer": ADDRESS if kind.startswith("redrive.") else None,
            "at": place["published_at"],
            "body": "{}",
        }
        self._insert("case_events", values | columns)

    def totals(self, service: str, **columns: Any) -> None:
        """A sample of one consumer process's counters."""
        counters = dict.fromkeys(("handled", "succeeded", "retried", "dead_lettered", "skipped"), 0)
        self.sequence += 1
        values = {
            "totals_sequence": self.sequence,
            "published_at": NOW,
            "service": service,
            "consumer": service,
            "started_at": before(hours=1),
        }
        self._insert("service_totals", values | counters | columns)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query, times in UTC."""
        self.connection.execute("SET TimeZone = 'UTC'")
        return self.connection.sql(sql).to_arrow_table().to_pylist()

    def _place(self) -> dict[str, Any]:
        self.sequence += 1
        published_at = before(days=2) + timedelta(seconds=self.sequence)
        return {
            "epoch": EPOCH,
            "dlq_sequence": self.sequence,
            "published_at": published_at,
            "dlq_date": published_at.date(),
        }

    def _insert(self, table: str, values: dict[str, Any]) -> None:
        columns = ", ".join(f'"{name}"' for name in values)
        marks = ", ".join("?" * len(values))
        self.connection.execute(
            f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(values.values())
        )
