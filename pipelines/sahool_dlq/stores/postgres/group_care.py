"""Owners of failure groups, and what people decided about them, in PostgreSQL; the drain writes."""

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.group_changes import GroupChange, group_change
from sahool_dlq.deadletter.ownership import Owners

__all__ = [
    "apply_changes",
    "care_of_group",
    "ended_mutes",
    "forget_owners",
    "group_care",
    "learn_owners",
    "muted_groups",
    "owned_groups",
    "refresh_owners",
    "worded_groups",
]

_MUTE = ("muted_at", "muted_by", "mute_reason", "mute_until", "mute_more")
_SAMPLES = "SELECT DISTINCT ON (f.group_id) f.group_id, service(f) AS service, f.error_type,"
_SAMPLES += " f.stack_trace FROM failed_events AS f WHERE f.group_id IS NOT NULL"
_SAMPLES += " ORDER BY f.group_id, f.published_at, f.id"


def apply_changes(connection: Connection[Any], events: Iterable[CaseEvent]) -> None:
    """Apply the changes of groups in these messages, which are in log order."""
    for event in events:
        change = group_change(event)
        if change is None:
            continue
        if change.ended_mute_at is not None:
            connection.execute(
                "UPDATE group_decisions SET muted_at = NULL, muted_by = NULL, mute_reason = NULL,"
                " mute_until = NULL, mute_more = NULL, changed_at = %s, changed_by = %s"
                " WHERE group_id = %s AND muted_at = %s",
                [event.published_at, event.actor, change.group_id, change.ended_mute_at],
            )
        else:
            _store(connection, change.group_id, _values(change, event))


def _values(change: GroupChange, event: CaseEvent) -> dict[str, Any]:
    values: dict[str, Any] = dict(change.texts)
    if change.labels is not None:
        values["labels"] = list(change.labels) or None
    if change.is_unmuted:
        values |= dict.fromkeys(_MUTE)
    elif change.mute is not None:
        mute = change.mute
        told = event.published_at, event.actor, event.reason, mute.until, mute.more
        values |= dict(zip(_MUTE, told, strict=True))
    return values | {"changed_at": event.published_at, "changed_by": event.actor}


def _store(connection: Connection[Any], group_id: str, values: dict[str, Any]) -> None:
    names = [Identifier(name) for name in values]
    connection.execute(
        SQL(
            "INSERT INTO group_decisions (group_id, {}) VALUES (%s, {})"
            " ON CONFLICT (group_id) DO UPDATE SET {}"
        ).format(
            SQL(", ").join(names),
            SQL(", ").join([SQL("%s")] * len(names)),
            SQL(", ").join(SQL("{0} = excluded.{0}").format(name) for name in names),
        ),
        [group_id, *values.values()],
    )


def learn_owners(connection: Connection[Any], owners: Owners, letters: pl.DataFrame) -> None:
    """Store the owners by rules of groups that have none yet, from their first of these letters."""
    if owners.is_empty:
        return
    first = letters.unique("group_id", keep="first", maintain_order=True)
    known = connection.execute(
        "SELECT group_id FROM ruled_owners WHERE group_id = ANY(%s)", [first["group_id"].to_list()]
    )
    new = first.filter(~pl.col("group_id").is_in([group_id for (group_id,) in known]))
    rows = new.select("group_id", "service", "error_type", "stack_trace").iter_rows()
    _store_owners(connection, owners, list(rows))


def refresh_owners(connection: Connection[Any], owners: Owners) -> None:
    """If the stored owners are by other rules, name those of every group again."""
    with connection.transaction():
        if owners.is_empty:
            forget_owners(connection)
            return
        hashes = connection.execute("SELECT DISTINCT rules_hash FROM ruled_owners").fetchall()
        if hashes == [(owners.hash,)]:
            return
        forget_owners(connection)
        _store_owners(connection, owners, connection.execute(_SAMPLES).fetchall())


def forget_owners(connection: Connection[Any]) -> None:
    """Delete the owners by rules; the next drain names them again."""
    connection.execute("DELETE FROM ruled_owners")


def _store_owners(
    connection: Connection[Any], owners: Owners, samples: Sequence[tuple[Any, ...]]
) -> None:
    rows = [[group_id, *owners.of(*sample), owners.hash] for group_id, *sample in samples]
    connection.cursor().executemany(
        "INSERT INTO ruled_owners (group_id, owner, source, rules_hash) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        rows,
    )


def group_care(connection: Connection[Any], group_id: str | None = None) -> list[dict[str, Any]]:
    """The rows of the view `group_care`, or that of one group, by group id."""
    cursor = connection.cursor(row_factory=dict_row)
    where, values = ("WHERE group_id = %s", [group_id]) if group_id else ("", [])
    return cursor.execute(
        f"SELECT * FROM group_care {where} ORDER BY group_id",  # noqa: S608  (our own names, bound values)
        values,
    ).fetchall()


def care_of_group(connection: Connection[Any], group_id: str) -> dict[str, Any]:
    """The row of one group; of a group that nobody owns or changed, only its id."""
    return next(iter(group_care(connection, group_id)), {"group_id": group_id})


def muted_groups(connection: Connection[Any]) -> set[str]:
    """The groups whose mute holds."""
    rows = connection.execute("SELECT group_id FROM group_care WHERE is_muted")
    return {group_id for (group_id,) in rows}


def owned_groups(connection: Connection[Any]) -> dict[str, str]:
    """The owners of the groups that have one."""
    rows = connection.execute("SELECT group_id, owner FROM group_care WHERE owner IS NOT NULL")
    return dict(rows.fetchall())


def worded_groups(connection: Connection[Any]) -> dict[str, tuple[Any, ...]]:
    """The groups of which people said something that holds; owner, note, ticket, labels of each."""
    rows = connection.execute(
        "SELECT d.group_id, d.owner, d.note, d.ticket, d.labels FROM group_decisions AS d"
        " JOIN group_care AS c ON c.group_id = d.group_id"
        " WHERE c.is_muted OR num_nonnulls(d.owner, d.note, d.ticket, d.labels) > 0"
    )
    return {group_id: tuple(words) for group_id, *words in rows}


def ended_mutes(connection: Connection[Any]) -> list[tuple[str, Any, str]]:
    """Group, time and end, in words, of the mutes that are over and still stored."""
    return connection.execute(
        "SELECT group_id, muted_at, mute_ended FROM group_care WHERE mute_ended IS NOT NULL"
        " ORDER BY group_id"
    ).fetchall()
