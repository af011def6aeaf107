"""The owner of a lake: two platforms in one lake would mix their rows, so each has an id.

The first drain creates it in PostgreSQL and in the lake. A database that was moved or restored
keeps its id. If the database was lost, the new one gets the id from the lake, if the lake knows the
stream.
"""

import uuid
from typing import Any

from psycopg import Connection

from sahool_dlq.errors import LakeError
from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.torn_log import read_log

__all__ = ["check_owner", "own_lake"]


def check_owner(connection: Connection[Any], lake: Lake) -> None:
    """Raise LakeError if the lake belongs to another platform than the database."""
    own, owner = _own_id(connection), lake.owner
    if own is not None and owner is not None and own != owner:
        raise _refused(lake, owner)


def own_lake(
    connection: Connection[Any], lake: Lake, life: str, prefix: str, *, is_adopted: bool = False
) -> None:
    """Give database and lake the same id; `life` is the current life of the stream.

    A lake without an id gets that of the database. With `is_adopted`, the database gets that of the
    lake in any case. Raises LakeError if the lake belongs to another platform.
    """
    own, owner = _own_id(connection), lake.owner
    if own is not None and own == owner:
        return
    if owner is not None:
        is_known = own is None and owner.startswith(f"{prefix}/") and _knows(lake, life)
        if not is_known and not is_adopted:
            raise _refused(lake, owner)
        own = _set_id(connection, owner)
    elif own is None:
        own = _set_id(connection, f"{prefix}/{uuid.uuid4()}")
    if owner is None:
        lake.give_to(own)


def _own_id(connection: Connection[Any]) -> str | None:
    row = connection.execute("SELECT id FROM platform").fetchone()
    return row[0] if row else None


def _set_id(connection: Connection[Any], own: str) -> str:
    connection.execute(
        "INSERT INTO platform (id) VALUES (%s)"
        " ON CONFLICT (is_only) DO UPDATE SET id = excluded.id",
        [own],
    )
    return own


def _knows(lake: Lake, life: str) -> bool:
    """Whether the lake contains messages of this life of the stream."""
    marks = read_log(FileStore(lake.path("dead_letters"), (), None)).state.marks
    return any(mark.startswith(f"{life}#") for mark in marks)


def _refused(lake: Lake, owner: str) -> LakeError:
    return LakeError(
        f"The lake at {lake.uri} belongs to another platform ({owner}): set DLQ_LAKE_URI to "
        "another lake. If database and stream were both created again and this is their lake, "
        "run `dlq drain --adopt-lake` once."
    )
