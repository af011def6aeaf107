"""Entries in services with incidents: one for each alert, or one for all alerts of an incident.

The first alert of an incident that fired, the critical ones before the others, leads: its key is
that of the entry, and its rule and subject are on it. An alert that was told alone before the
incident was known moves to that entry, and its own is closed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from psycopg import Connection

from sahool_dlq.alerts import store
from sahool_dlq.alerts.rules import AlertRules
from sahool_dlq.alerts.states import Alert
from sahool_dlq.alerts.text import OngoingIncident, compose, headline, incidents_of

__all__ = ["ACTIONS", "Entry", "entry_keys", "join", "moves", "put_out_entries"]

Action = Literal["trigger", "acknowledge", "resolve"]
ACTIONS: dict[str, Action] = {
    "firing": "trigger",
    "reminder": "trigger",
    "acknowledged": "acknowledge",
    "resolved": "resolve",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is new in one entry."""

    owner: Alert  # whose key it has
    fresh: Sequence[Alert] = ()  # that fire, or moved here
    acked: Sequence[Alert] = ()
    ended: Sequence[Alert] = ()  # that are over, or moved to another one
    is_new: bool = False  # one of the fresh ones fires for the first time
    is_moved: bool = False  # what ended here goes on in another entry


def moves(
    told: Sequence[Alert],
    leaders: Mapping[int, Alert],
    rules: AlertRules,
    incidents: Sequence[OngoingIncident],
) -> dict[int, int]:
    """The alerts that move to the entry of another one: ids, and of whom.

    `told` are the firing alerts that were told; `leaders` those in whose entries they are. An alert
    that belongs to several incidents stays where it is, and so does one that is acknowledged.
    """
    found: dict[int, int] = {}
    for incident in incidents:
        ours = [alert for alert in told if incidents_of(alert, rules, incidents) == [incident]]
        heads = [head for alert in ours if (head := _owner(alert, leaders)).entry_id is None]
        if not heads:
            continue
        first = min(heads, key=lambda a: (a.severity != "critical", a.fired_at, a.id))
        for alert in ours:
            if first.id not in (alert.id, alert.entry_id) and alert.acked_at is None:
                found[alert.id] = first.id
    return found


def join(connection: Connection[Any], rules: AlertRules) -> list[Alert]:
    """Move the alerts of each incident that lasts to one entry; returns them as they were."""
    told = _told(connection)
    leaders = _leaders(connection, told)
    found = moves(told, leaders, rules, store.ongoing_incidents(connection))
    moved = [alert for alert in told if alert.id in found]
    for alert in moved:
        store.save(connection, replace(alert, entry_id=found[alert.id]))
    return moved


def entry_keys(connection: Connection[Any], alerts: Iterable[Alert]) -> set[str]:
    """The keys of the entries in which these alerts are."""
    alerts = list(alerts)
    owners, platform = _leaders(connection, alerts), store.platform_id(connection)
    return {_owner(alert, owners).incident_key(platform) for alert in alerts}


def put_out_entries(
    connection: Connection[Any],
    rules: AlertRules,
    said: Sequence[tuple[str, Alert]],
    moved: Sequence[Alert],
    where: Mapping[int, Iterable[str]],
    now: datetime,
) -> None:
    """Write what is new in each entry, for the services that have it or will have it.

    `moved` are as they were before, `where` has the services of each alert that fires. An entry is
    acknowledged once all its alerts are, and resolved where none of them fires any more.
    """
    platform = store.platform_id(connection)
    told, incidents = _told(connection), store.ongoing_incidents(connection)
    owners = _leaders(connection, told)
    for key, entry in _news(connection, said, moved, platform).items():
        known = store.told_under(connection, key)
        live = [a for a in told if _owner(a, owners).incident_key(platform) == key]
        for channel in sorted({*known, *(name for names in where.values() for name in names)}):
            told_here = known.get(channel, set())
            fresh = [alert for alert in entry.fresh if channel in where.get(alert.id, ())]
            here = told_here | {alert.id for alert in fresh}
            still = [alert for alert in live if alert.id in here]
            acked = [alert for alert in entry.acked if alert.id in told_here]
            ended = [alert for alert in entry.ended if alert.id in told_here]
            if fresh:
                kind, about = "firing" if entry.is_new else "reminder", still
            elif acked and all(alert.acked_at for alert in still):
                kind, about = "acknowledged", acked
            elif ended and not still:
                kind, about = "resolved", ended
            else:
                continue
            samples = store.samples_of(connection, {a.sample_id for a in about if a.sample_id})
            text = compose(kind, about, rules, samples, incidents)
            if kind == "resolved" and entry.is_moved:
                text = _elsewhere(about[0], rules)
            ids = [alert.id for alert in about]
            if kind == "resolved":  # the owner says what the entry is, and may have moved long ago
                ids = list(dict.fromkeys([entry.owner.id, *ids]))
            store.put_out(connection, kind, ids, [channel], text, now, key)


def _told(connection: Connection[Any]) -> list[Alert]:
    live = store.live_alerts(connection).values()
    return [alert for alert in live if alert.state == "firing" and alert.told_count]


def _leaders(connection: Connection[Any], alerts: Iterable[Alert]) -> dict[int, Alert]:
    return store.alerts_of(connection, {a.entry_id for a in alerts if a.entry_id is not None})


def _owner(alert: Alert, leaders: Mapping[int, Alert]) -> Alert:
    """The alert in whose entry it is; itself if that one is deleted, as old ones are."""
    return alert if alert.entry_id is None else leaders.get(alert.entry_id, alert)


def _news(
    connection: Connection[Any],
    said: Sequence[tuple[str, Alert]],
    moved: Sequence[Alert],
    platform: str,
) -> dict[str, Entry]:
    """What is new, by the key of the entry."""
    current = store.alerts_of(connection, {a.id for a in (*moved, *(a for _, a in said))})
    leaders = _leaders(connection, (*moved, *current.values()))
    is_told = {alert.id for _, alert in said}
    news = [(kind, current[alert.id]) for kind, alert in said]
    news += [("reminder", current[a.id]) for a in moved if a.id not in is_told]
    news += [("moved", alert) for alert in moved]
    found: dict[str, Entry] = {}
    for kind, alert in news:
        owner = _owner(alert, leaders)
        key = owner.incident_key(platform)
        entry = found.get(key, Entry(owner))
        if ACTIONS.get(kind) == "trigger":
            entry = replace(
                entry, fresh=[*entry.fresh, alert], is_new=entry.is_new or kind == "firing"
            )
        elif kind == "acknowledged":
            entry = replace(entry, acked=[*entry.acked, alert])
        else:
            is_moved = entry.is_moved or kind == "moved"
            entry = replace(entry, ended=[*entry.ended, alert], is_moved=is_moved)
        found[key] = entry
    return found


def _elsewhere(alert: Alert, rules: AlertRules) -> tuple[str, str]:
    """Title and body about an alert that goes on in the entry of its incident."""
    rule = rules.rule(alert.rule)
    what = headline(alert, rule) if rule else alert.rule
    body = "It still fires, as a part of an incident: the incident's entry has what comes next."
    return f"JOINED: {what}", f"{body}\nNext: dlq incidents --open"
