"""`failed_events` for services that read it with SQLAlchemy 2; needs the extra `sqlalchemy`.

Only the drain writes this table, so everything here only reads. A helper returns a statement that a
session or connection of any kind runs, synchronous or not:

with Session(engine) as session:
    for failure in session.scalars(recent_failures(limit=20)):
        print(failure.error_type, failure.error_message)

Later rows of a redrive chain (`superseded`) are left out: only their root counts.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Select,
    String,
    Text,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sahool_dlq.deadletter.cases import OPEN
from sahool_dlq.sqlfiles import read_sql

_STATEMENTS = (
    read_sql("postgres/migrations/0001_failed_events.sql")
    .partition("SET LOCAL search_path = pg_catalog, dlq, pg_temp;\n")[2]
    .rpartition("COMMIT;")[0]
    .replace("dlq.", "")
)
CREATE_TABLE_SQL = f"""DO $create$ BEGIN
IF to_regclass('failed_events') IS NULL THEN
{_STATEMENTS}
END IF;
END $create$;
"""
"""The first migration, for the session's own schema: creates `failed_events` if it is missing.

`dlq migrate` runs them all, and moves such a table into the schema `dlq`, where it is found too.
"""


class Base(DeclarativeBase):
    """The registry of `FailedEventModel`, without the service's own tables."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy's way)
        datetime: DateTime(timezone=True),
        Any: JSONB,
    }


class FailedEventModel(Base):
    """One row of `failed_events`: a failure of a consumer on an event; texts are redacted.

    It has the columns of the first migration, which older services' tables also have.
    """

    __tablename__ = "failed_events"

    id: Mapped[UUID] = mapped_column(primary_key=True)  # failure_id
    event_id: Mapped[str] = mapped_column(String(255))
    event_type: Mapped[str] = mapped_column(String(100))
    original_subject: Mapped[str] = mapped_column(String(255))
    source_service: Mapped[str] = mapped_column(String(100))  # who published the event
    tenant_id: Mapped[str | None] = mapped_column(String(255))
    field_id: Mapped[str | None] = mapped_column(String(255))
    farmer_id: Mapped[str | None] = mapped_column(String(255))
    error_message: Mapped[str] = mapped_column(Text)
    error_type: Mapped[str] = mapped_column(String(100))
    stack_trace: Mapped[str | None] = mapped_column(Text)
    retry_count: Mapped[int] = mapped_column(server_default=text("0"))
    max_retries: Mapped[int] = mapped_column(server_default=text("3"))
    first_attempt_at: Mapped[datetime]
    last_attempt_at: Mapped[datetime]
    original_data: Mapped[Any]  # any JSON value
    original_headers: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB, server_default=text("'{}'")
    )
    dlq_timestamp: Mapped[datetime]
    dlq_reason: Mapped[str] = mapped_column(
        String(100), server_default=text("'max_retries_exceeded'")
    )
    status: Mapped[str] = mapped_column(String(50), server_default=text("'pending'"))
    resolved_at: Mapped[datetime | None]
    resolution_notes: Mapped[str | None] = mapped_column(Text)
    alert_sent: Mapped[bool] = mapped_column(server_default=text("false"))
    alert_sent_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())  # by trigger

    def __repr__(self) -> str:
        return f"<FailedEventModel {self.id} {self.event_type} {self.error_type} {self.status}>"

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON values, by column."""
        return {c.name: _json(getattr(self, c.name)) for c in self.__table__.columns}


def recent_failures(limit: int = 100) -> Select[tuple[FailedEventModel]]:
    """The newest failures, newest first."""
    newest = FailedEventModel.dlq_timestamp.desc()
    return select(FailedEventModel).where(_counts()).order_by(newest).limit(limit)


def failures_by_error_type() -> Select[tuple[str, int, int]]:
    """error_type, failure_count and open_count of each error type, most failures first."""
    error_type = FailedEventModel.error_type
    return (
        select(error_type, _failures(), _open())
        .where(_counts())
        .group_by(error_type)
        .order_by(_failures().desc(), error_type)
    )


def failures_by_service(hours: float = 24) -> Select[tuple[str, int, int]]:
    """service, failure_count and open_count of the last hours, most failures first.

    The service that failed, if known, else the one that published the event. Calls the function
    `service`, which `dlq migrate` creates and CREATE_TABLE_SQL does not.
    """
    row: ColumnElement[Any] = literal_column(FailedEventModel.__tablename__)
    service: ColumnElement[str] = func.service(row, type_=String).label("service")
    return (
        select(service, _failures(), _open())
        .where(_counts(), FailedEventModel.dlq_timestamp > func.now() - timedelta(hours=hours))
        .group_by(service)
        .order_by(_failures().desc(), service)
    )


def pending_retries(
    error_types: Collection[str] | None = None,
) -> Select[tuple[FailedEventModel]]:
    """Failures without a running redrive, oldest first; of these error types, or of all.

    `dlq redrive` redrives them.
    """
    statement = select(FailedEventModel).where(FailedEventModel.status == "pending")
    if error_types is not None:
        statement = statement.where(FailedEventModel.error_type.in_(error_types))
    return statement.order_by(FailedEventModel.dlq_timestamp)


def _counts() -> ColumnElement[bool]:
    return FailedEventModel.status != "superseded"


def _failures() -> ColumnElement[int]:
    return func.count().label("failure_count")


def _open() -> ColumnElement[int]:
    return func.count().filter(FailedEventModel.status.in_(OPEN)).label("open_count")


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
