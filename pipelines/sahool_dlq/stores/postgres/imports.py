"""How far the dead-letter streams of others were imported: the table `imports`."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from psycopg import Connection

__all__ = ["ImportPosition", "locked_position", "save_position"]


class ImportPosition(NamedTuple):
    """The last message of a stream that was imported, and what the log had then."""

    created: datetime  # when the stream was created
    sequence: int  # 0: none yet
    timestamp_ns: int  # the server's time of that message
    log_sequence: int  # imported messages above `sequence` are above this one in the log


NOWHERE = ImportPosition(datetime.fromtimestamp(0, UTC), 0, 0, 0)
"""Nothing was imported, or nothing that is known of the stream applies any more."""


def locked_position(connection: Connection[Any], stream: str, subjects: str) -> ImportPosition:
    """The position; until the transaction ends, no other importer gets one."""
    connection.execute("LOCK TABLE imports IN SHARE ROW EXCLUSIVE MODE")
    connection.execute(
        "INSERT INTO imports (stream, subjects, created, sequence, timestamp_ns, log_sequence)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [stream, subjects, *NOWHERE],
    )
    [row] = connection.execute(
        "SELECT created, sequence, timestamp_ns, log_sequence FROM imports"
        " WHERE stream = %s AND subjects = %s",
        [stream, subjects],
    ).fetchall()
    return ImportPosition(*row)


def save_position(
    connection: Connection[Any], stream: str, subjects: str, position: ImportPosition
) -> None:
    """Store the position, in the transaction that locked it."""
    connection.execute(
        "UPDATE imports SET created = %s, sequence = %s, timestamp_ns = %s, log_sequence = %s,"
        " updated_at = now() WHERE stream = %s AND subjects = %s",
        [*position, stream, subjects],
    )
