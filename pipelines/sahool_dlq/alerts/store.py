"""Alerts and their messages in PostgreSQL."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row

from sahool_dlq.alerts.states import Alert
from sahool_dlq.alerts.text import OngoingIncident, Sample
from sahool_dlq.errors import AlertError
from sahool_dlq.stores.postgres.audit import audit

_COLUMNS = [field.name for field in fields(Alert) if field.name != "id"]
_READ = ", ".join("sample_id::text" if name == "sample_id" else name for name in _COLUMNS)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message that waits for its channel: a row of `alert_messages`."""

    id: int
    kind: str  # firing | reminder | acknowledged | resolved
    alert_ids: list[int]
    channel: str
    title: str
    body: str
    incident: str | None  # key of its incident; None: a message to people
    created_at: datetime
    is_waiting: bool  # no channel has accepted it yet


LOCK: Final = "alerts"
"""The lock for evaluating and sending."""


def platform_id(connection: Connection[Any]) -> str:
    """The id of this platform among others that send to the same place; a restore keeps it."""
    row = connection.execute("SELECT min(applied_at)::text FROM schema_migrations").fetchone()
    assert row is not None
    return str(row[0])


def live_alerts(connection: Connection[Any]) -> dict[tuple[str, str, str], Alert]:
    """The alerts that are pending or firing, by key."""
    found = _alerts(connection, "WHERE state <> 'resolved'", [])
    return {alert.key: alert for alert in found}


def firing_alerts(connection: Connection[Any]) -> list[Alert]:
    """Alerts that are pending or fire, the most severe first."""
    order = "ORDER BY state, severity, fired_at, id"
    return _alerts(connection, f"WHERE state <> 'resolved' {order}", [])


def alerts_of(connection: Connection[Any], ids: Iterable[int]) -> dict[int, Alert]:
    """Alerts by id, with their current state."""
    found = _alerts(connection, "WHERE id = ANY(%s)", [list(ids)])
    return {alert.id: alert for alert in found}


def past_alerts(connection: Connection[Any], limit: int) -> list[Alert]:
    """Episodes that fired, the latest first."""
    where = "WHERE state <> 'pending' ORDER BY started_at DESC, id DESC LIMIT %s"
    return _alerts(connection, where, [limit])


def last_told(connection: Connection[Any]) -> dict[tuple[str, str, str], datetime]:
    """When ended episodes were last sent, by key."""
    rows = connection.execute(
        "SELECT rule, scope, subject, max(told_at) FROM alerts"
        " WHERE state = 'resolved' AND told_at > now() - interval '7 days' GROUP BY 1, 2, 3"
    )
    return {(rule, scope, subject): at for rule, scope, subject, at in rows}


def save(connection: Connection[Any], alert: Alert) -> int:
    """Store the current state of an alert; returns its id."""
    values = [getattr(alert, name) for name in _COLUMNS]
    if alert.id:
        assignments = ", ".join(f"{name} = %s" for name in _COLUMNS)
        connection.execute(
            f"UPDATE alerts SET {assignments} WHERE id = %s",  # noqa: S608  (our own names, bound values)
            [*values, alert.id],
        )
        return alert.id
    places = ", ".join(["%s"] * len(_COLUMNS))
    row = connection.execute(
        f"INSERT INTO alerts ({', '.join(_COLUMNS)}) VALUES ({places}) RETURNING id",  # noqa: S608  (our own names, bound values)
        values,
    ).fetchone()
    assert row is not None
    return int(row[0])


def forget(connection: Connection[Any], alert: Alert) -> None:
    """Delete an alert that never fired."""
    connection.execute("DELETE FROM alerts WHERE id = %s AND state = 'pending'", [alert.id])


def acknowledge(
    connection: Connection[Any], ids: Sequence[int], actor: str, reason: str
) -> list[Alert]:
    """Stop the reminders of these alerts, or of all that fire, until they are resolved.

    Raises AlertError if one of the ids does not fire, or nothing does.
    """
    firing = {alert.id for alert in firing_alerts(connection) if alert.state == "firing"}
    if unknown := set(ids) - firing:
        raise AlertError(f"No alert {min(unknown)} fires: `dlq alerts` shows those that do.")
    taken = list(ids) or sorted(firing)
    if not taken:
        raise AlertError("Nothing fires, so there is nothing to acknowledge.")
    with connection.transaction():
        connection.execute(
            "UPDATE alerts SET acked_at = now(), acked_by = %s, ack_reason = %s WHERE id = ANY(%s)",
            [actor, reason, taken],
        )
        acked = [alert for alert in firing_alerts(connection) if alert.id in taken]
        audit(
            connection,
            "alert.acknowledged",
            actor=actor,
            reason=reason,
            detail={"alerts": [[alert.id, alert.rule, alert.subject] for alert in acked]},
        )
    return acked


def samples_of(connection: Connection[Any], ids: Iterable[str]) -> dict[str, Sample]:
    """The failures with these ids, for a message."""
    rows = connection.execute(
        "SELECT f.id::text, f.error_type, left(f.error_message, 500), service(f),"
        " f.original_subject, c.owner, c.ticket, c.note FROM failed_events f"
        " LEFT JOIN group_care c ON c.group_id = f.group_id WHERE f.id = ANY(%s::uuid[])",
        [list(ids)],
    )
    return {row[0]: Sample(*row) for row in rows}


def ongoing_incidents(connection: Connection[Any]) -> list[OngoingIncident]:
    """The incidents that lasted when the marts were built, the largest first."""
    with connection.cursor(row_factory=class_row(OngoingIncident)) as cursor:
        return cursor.execute(
            "SELECT incident_id, string_to_array(services, ', ') AS services, group_count,"
            " failure_count, from_at FROM mart_incidents WHERE until_at IS NULL"
            " ORDER BY failure_count DESC, incident_id"
        ).fetchall()


def put_out(
    connection: Connection[Any],
    kind: str,
    alert_ids: Sequence[int],
    channels: Iterable[str],
    text: tuple[str, str],
    now: datetime,
    incident: str | None = None,
) -> None:
    """Write a message to the outbox, once for each channel."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO alert_messages"
            " (kind, alert_ids, channel, title, body, created_at, incident)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [[kind, list(alert_ids), channel, *text, now, incident] for channel in channels],
        )


def waiting_messages(connection: Connection[Any]) -> list[Outgoing]:
    """Messages that no channel has accepted yet, oldest first."""
    return _messages(connection, "delivered_at IS NULL AND given_up_at IS NULL ORDER BY id", [])


def standing_messages(connection: Connection[Any], channels: Sequence[str]) -> list[Outgoing]:
    """The last messages to these channels in each entry that is open."""
    found = (
        "id IN (SELECT max(m.id) FROM alert_messages m JOIN alerts a ON a.id = ANY(m.alert_ids)"
        " WHERE a.state = 'firing' AND m.incident IS NOT NULL AND m.channel = ANY(%s)"
        " GROUP BY m.channel, m.incident)"
        " AND kind <> 'resolved' AND delivered_at IS NOT NULL ORDER BY id"
    )
    return _messages(connection, found, [list(channels)])


def told_under(connection: Connection[Any], key: str) -> dict[str, set[int]]:
    """The channels that have an entry with this key, or will have one; the alerts told in it."""
    rows = connection.execute(
        "SELECT channel, array_agg(DISTINCT told) FROM alert_messages, unnest(alert_ids) AS told"
        " WHERE incident = %s GROUP BY channel ORDER BY channel",
        [key],
    )
    return {channel: set(told) for channel, told in rows}


def undelivered(connection: Connection[Any]) -> list[tuple[str, int, int]]:
    """Channel, messages that wait, messages that were given up in the last seven days."""
    return connection.execute(
        "SELECT channel, count(*) FILTER (WHERE given_up_at IS NULL), count(given_up_at)"
        " FROM alert_messages WHERE delivered_at IS NULL AND channel <> 'log'"
        " AND (given_up_at IS NULL OR given_up_at > now() - interval '7 days')"
        " GROUP BY channel ORDER BY channel"
    ).fetchall()


def note_deliveries(connection: Connection[Any], results: Mapping[int, bool]) -> None:
    """Record which messages a channel accepted, and which not yet."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE alert_messages SET try_count = try_count + 1,"
            " delivered_at = CASE WHEN %s THEN now() END WHERE id = %s",
            [[is_taken, message] for message, is_taken in results.items()],
        )


def give_up(connection: Connection[Any], messages: Sequence[int]) -> None:
    """Record that these messages will not be sent."""
    connection.execute(
        "UPDATE alert_messages SET given_up_at = now() WHERE id = ANY(%s)", [list(messages)]
    )


def delivered(connection: Connection[Any]) -> set[int]:
    """The live alerts that people could see: a channel accepted a message about them."""
    rows = connection.execute(
        "SELECT DISTINCT a.id FROM alerts a JOIN alert_messages m ON a.id = ANY(m.alert_ids)"
        " WHERE a.state = 'firing' AND m.delivered_at IS NOT NULL"
    )
    return {row[0] for row in rows}


def _alerts(connection: Connection[Any], rest: str, values: list[Any]) -> list[Alert]:
    with connection.cursor(row_factory=class_row(Alert)) as cursor:
        return cursor.execute(
            f"SELECT {_READ}, id FROM alerts {rest}",  # noqa: S608  (our own names)
            values,
        ).fetchall()


def _messages(connection: Connection[Any], condition: str, values: list[Any]) -> list[Outgoing]:
    with connection.cursor(row_factory=class_row(Outgoing)) as cursor:
        return cursor.execute(
            "SELECT id, kind, alert_ids, channel, title, body, incident, created_at,"  # noqa: S608  (our own names, bound values)
            f" delivered_at IS NULL AS is_waiting FROM alert_messages WHERE {condition}",
            values,
        ).fetchall()
