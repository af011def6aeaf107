"""Raw dead letters in PostgreSQL, if DLQ_KEEP_PAYLOADS is set; they are not masked.

A row contains the message from the stream, so a redrive reads both in the same way. It is deleted
with its row of `failed_events`, or after its own retention.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import Connection, errors

from sahool_dlq.deadletter.message import LogMessage

__all__ = ["delete_old_payloads", "keep_payloads", "kept_count", "kept_payload"]


def keep_payloads(connection: Connection[Any], messages: Mapping[str, LogMessage]) -> None:
    """Store messages by failure id, in the caller's transaction."""
    if not messages:
        return
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY failed_payloads (failure_id, subject, dlq_sequence, timestamp_ns, data)"
            " FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(["uuid", "text", "int8", "int8", "bytea"])
        for failure_id, message in messages.items():
            copy.write_row([uuid.UUID(failure_id), *message])


def forget_payloads(connection: Connection[Any], failure_ids: Sequence[str]) -> None:
    """Delete the rows of these failures, in the caller's transaction."""
    connection.execute(
        "DELETE FROM failed_payloads WHERE failure_id = ANY(%s::uuid[])", [list(failure_ids)]
    )


def kept_payload(connection: Connection[Any], failure_id: str) -> LogMessage | None:
    """The dead letter of a failure, as in the stream; None if it was not stored.

    Also None for logins that may not read the table.
    """
    try:
        row = connection.execute(
            "SELECT subject, dlq_sequence, timestamp_ns, data FROM failed_payloads"
            " WHERE failure_id = %s",
            [failure_id],
        ).fetchone()
    except errors.InsufficientPrivilege:
        return None
    return LogMessage(*row) if row else None


def kept_count(connection: Connection[Any], failure_ids: Sequence[str]) -> int:
    """How many of these failures have a stored dead letter, for logins that may read the table."""
    try:
        row = connection.execute(
            "SELECT count(*) FROM failed_payloads WHERE failure_id = ANY(%s::uuid[])",
            [list(failure_ids)],
        ).fetchone()
    except errors.InsufficientPrivilege:
        return 0
    return row[0] if row else 0


def delete_old_payloads(connection: Connection[Any], days: float) -> None:
    """Delete rows that were stored more than `days` ago."""
    connection.execute(
        "DELETE FROM failed_payloads WHERE stored_at < now() - make_interval(secs => %s)",
        [days * 86_400],
    )
