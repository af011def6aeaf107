"""Messages are written to an outbox together with the change of the alert, and sent from there.

If a run dies, the next one sends them, and a channel that is down gets them when it is back. People
get one message for all new alerts; incident services get one for each entry, in order.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection

from sahool_dlq.alerts import store
from sahool_dlq.alerts.channels import Channel, open_channels
from sahool_dlq.alerts.entries import ACTIONS, entry_keys, put_out_entries
from sahool_dlq.alerts.message import Incident, Message
from sahool_dlq.alerts.rules import AlertRules, alert_rules
from sahool_dlq.alerts.states import Alert
from sahool_dlq.alerts.text import compose
from sahool_dlq.connections import open_lock, open_postgres
from sahool_dlq.settings import Settings

__all__ = ["TRIES_SECONDS", "Delivery", "acknowledge_alerts", "deliver", "say"]

logger = logging.getLogger(__name__)

TRIES_SECONDS = (1.0, 3.0)
"""Delays between tries of one message on one channel within a run; the next run continues."""

_GIVE_UP = timedelta(hours=24)
_PATIENCE_SECONDS = 45.0  # with one channel, within a run
_LOG_CHANNEL = "log"  # where there is no other


@dataclass(frozen=True, slots=True)
class Delivery:
    """The results of sending messages."""

    taken: int = 0  # by their channels
    waiting: int = 0  # their channel did not accept them, or does not exist
    given_up: int = 0  # waited too long


def say(
    connection: Connection[Any],
    rules: AlertRules,
    said: Sequence[tuple[str, Alert]],
    channels: Sequence[Channel],
    now: datetime,
    moved: Sequence[Alert] = (),
) -> list[str]:
    """Write messages about alerts, each with its kind of news; returns the titles.

    For people: one message for all alerts with the same channels and the same news. `moved` are
    alerts whose entry in services with incidents is now another one, as they were before.
    """
    every = tuple(channel.key for channel in channels) or (_LOG_CHANNEL,)
    for_incidents = {channel.key for channel in channels if channel.is_for_incidents}
    incidents = store.ongoing_incidents(connection)
    groups: dict[tuple[str, tuple[str, ...]], list[Alert]] = {}
    keepers: dict[int, set[str]] = {}
    for kind, alert in [*said, *(("", alert) for alert in moved)]:
        rule = rules.rule(alert.rule)
        assert rule is not None
        where = rules.scope(rule, alert.scope).channels or every
        keepers[alert.id] = for_incidents.intersection(where)
        if kind:
            groups.setdefault((kind, where), []).append(alert)
    titles = []
    for (kind, where), alerts in groups.items():
        samples = store.samples_of(connection, {a.sample_id for a in alerts if a.sample_id})
        text = compose(kind, alerts, rules, samples, incidents)
        titles.append(text[0])
        if kind != "acknowledged":
            people = [key for key in where if key not in for_incidents]
            store.put_out(connection, kind, [alert.id for alert in alerts], people, text, now)
    put_out_entries(connection, rules, said, moved, keepers, now)
    return titles


async def deliver(
    connection: Connection[Any], channels: Sequence[Channel], now: datetime
) -> Delivery:
    """Send waiting messages, each channel separately, and repeat firing alerts where needed."""
    known = {channel.key: channel for channel in channels}
    due, gone, logged, missed = [], [], [], 0
    for message in store.waiting_messages(connection):
        if message.channel == _LOG_CHANNEL:
            logger.error("ALERT: %s\n%s", message.title, message.body)
            logged.append(message.id)  # nothing was sent: no channel is set
        elif now - message.created_at > _GIVE_UP:
            logger.error("The alert is no longer sent to %s: %s", message.channel, message.title)
            gone.append(message.id)
        elif message.channel not in known:
            logger.warning(
                "DLQ_ALERT_URLS has no entry %s, but a message for it is waiting: %s",
                message.channel,
                message.title,
            )
            missed += 1
        else:
            due.append(message)
    store.give_up(connection, gone + logged)
    if forgetful := [channel.key for channel in channels if channel.is_forgetful]:
        due += store.standing_messages(connection, forgetful)
    sent = await _send_all(connection, known, due)
    return Delivery(sent.taken, sent.waiting + missed, len(gone))


async def acknowledge_alerts(
    settings: Settings, ids: Sequence[int], actor: str, reason: str
) -> tuple[list[Alert], list[str]]:
    """Stop the reminders of these alerts, or of all that fire, and acknowledge their incidents.

    Returns the alerts, and the names of channels that the next evaluation will inform. Raises
    AlertError if one of the ids does not fire, or nothing does, and SettingsError as
    `evaluate_alerts`.
    """
    rules = alert_rules(settings)
    channels = open_channels([url.get_secret_value() for url in settings.alert_urls])
    try:
        with open_postgres(settings) as connection, open_lock(settings, store.LOCK) as lock:
            with connection.transaction():
                by, why = settings.masked(actor), settings.masked(reason)
                alerts = store.acknowledge(connection, ids, by, why)
                told = [("acknowledged", alert) for alert in alerts]
                say(connection, rules, told, channels, datetime.now(UTC))
            keys = entry_keys(connection, alerts)
            known = {channel.key: channel for channel in channels}
            if lock.take():  # else an evaluation is sending now
                waiting = store.waiting_messages(connection)
                due = [m for m in waiting if m.incident in keys and m.channel in known]
                await _send_all(connection, known, due)
            left = [m.channel for m in store.waiting_messages(connection) if m.incident in keys]
    finally:
        for channel in channels:
            channel.close()
    return alerts, sorted(set(left))


async def _send_all(
    connection: Connection[Any], known: Mapping[str, Channel], due: Sequence[store.Outgoing]
) -> Delivery:
    """Send to each channel its messages, and record which ones it accepted."""
    by_channel: dict[str, list[store.Outgoing]] = {}
    for message in due:
        by_channel.setdefault(message.channel, []).append(message)
    platform = store.platform_id(connection)
    alerts = store.alerts_of(connection, {id_ for message in due for id_ in message.alert_ids})
    alerts |= store.alerts_of(connection, {a.entry_id for a in alerts.values() if a.entry_id})
    sendings = [_send(known[key], each, alerts, platform) for key, each in by_channel.items()]
    waiting = {message.id for message in due if message.is_waiting}
    taken = missed = 0
    for sending in asyncio.as_completed(sendings):
        results = await sending
        news = {number: took for number, took in results.items() if number in waiting}
        store.note_deliveries(connection, news)  # now: another channel may take long
        taken += sum(news.values())
        missed += len(results) - sum(results.values())
    return Delivery(taken, missed)


async def _send(
    channel: Channel,
    messages: Sequence[store.Outgoing],
    alerts: Mapping[int, Alert],
    platform: str,
) -> dict[int, bool]:
    """Oldest first; once the channel refused one, each of the rest is tried once.

    Messages about one incident stay in order: otherwise it could be opened after its end.
    """
    results = dict.fromkeys((message.id for message in messages), False)
    has_failed = False
    missed: set[str] = set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for message in messages:
                if message.incident in missed:
                    continue
                texts = _texts(channel, message, alerts, platform)
                took = [
                    await channel.deliver(text, () if has_failed else TRIES_SECONDS)
                    for text in texts
                ]
                results[message.id] = all(took)
                if not all(took):  # of itself, or for what that message says
                    has_failed = True
                    if message.incident:
                        missed.add(message.incident)
    return results


def _texts(
    channel: Channel, message: store.Outgoing, alerts: Mapping[int, Alert], platform: str
) -> list[Message]:
    """The texts for a channel, also if its entry was of another kind when they were written."""
    is_good = message.kind == "resolved"
    if not channel.is_for_incidents:
        return [Message(message.title, message.body, is_good=is_good)]
    about = [alerts[number] for number in message.alert_ids]
    every = [*sorted(alerts.values(), key=lambda alert: alert.id), *about]
    keys = {alert.incident_key(platform): alert for alert in every}
    owners = [keys[message.incident]] if message.incident else about
    return [
        Message(
            message.title,
            message.body,
            is_good=is_good,
            incident=Incident(
                key=alert.incident_key(platform),
                action=ACTIONS[message.kind],
                rule=alert.rule,
                scope=alert.scope,
                subject=alert.subject,
                severity=alert.severity,
                since=alert.since,
                until=max(each.seen_at for each in about) if is_good else None,
                message_id=f"dlq-{alert.id}-{message.id}",
            ),
        )
        for alert in owners
    ]
