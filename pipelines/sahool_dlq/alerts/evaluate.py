"""evaluate_alerts: check the servers, run the rules, store, send, and mark failures."""

import asyncio
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.js.errors import APIError
from psycopg import Connection

from sahool_dlq.alerts import store
from sahool_dlq.alerts.channels import Channel, open_channels
from sahool_dlq.alerts.entries import join
from sahool_dlq.alerts.findings import Finding, find
from sahool_dlq.alerts.message import Incident, Message
from sahool_dlq.alerts.mutes import end_mutes
from sahool_dlq.alerts.observe import Look, keep, look, silent_consumers, stopped_consumers
from sahool_dlq.alerts.outbox import TRIES_SECONDS, deliver, say
from sahool_dlq.alerts.routes import check_channels
from sahool_dlq.alerts.rules import AlertRules, alert_rules
from sahool_dlq.alerts.states import ACTOR, Alert, Step, step
from sahool_dlq.alerts.text import headline
from sahool_dlq.connections import open_lock, open_nats, open_postgres
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.errors import AlertError, DLQError, SettingsError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.addressees import pending_addressees
from sahool_dlq.stores.postgres.lock import Lock

__all__ = ["AlertsReport", "evaluate_alerts", "send_test", "what_is_found"]

logger = logging.getLogger(__name__)

_LOCK_TRIES = 300  # five a second, until another evaluation has ended


@dataclass(frozen=True, slots=True)
class AlertsReport:
    """What one evaluation found and sent."""

    firing: tuple[str, ...]  # headlines
    pending: int  # whose condition has not held long enough
    resolved: int
    unknown: tuple[str, ...]  # unknown values
    told: tuple[str, ...]  # titles of the written messages
    delivered: int  # messages that a channel accepted
    waiting: int  # not accepted by their channel yet
    given_up: int  # never accepted by their channel, and no longer sent
    marked: int  # failures newly contained in an alert


async def evaluate_alerts(settings: Settings, now: datetime | None = None) -> AlertsReport:
    """Evaluate every rule once, send messages, and mark the failures in them.

    Raises SettingsError if rules or channels are not valid, ServerUnavailableError if PostgreSQL
    does not answer, AlertError if another evaluation takes a minute; a NATS that does not answer is
    itself an alert.
    """
    rules, now = alert_rules(settings), now or datetime.now(UTC)
    channels = open_channels([url.get_secret_value() for url in settings.alert_urls])
    check_channels(rules, channels)
    try:
        with open_postgres(settings) as connection, open_lock(settings, store.LOCK) as lock:
            seen = await look(
                settings,
                silent_consumers(connection),
                pending_addressees(connection),
                stopped_consumers(connection),
            )
            await _alone(lock)
            with connection.transaction():  # a check without result is not an evaluation
                keep(connection, seen, now)
                findings = what_is_found(connection, rules)
                titles = _advance(connection, rules, findings, channels, now)
            lock.check()  # another evaluation would send the same
            await end_mutes(settings, connection, now)
            sent = await deliver(connection, channels, now)
            marked = await _mark(settings, connection, findings)
            alerts = store.firing_alerts(connection)
    finally:
        for channel in channels:
            channel.close()
    firing = [alert for alert in alerts if alert.state == "firing"]
    return AlertsReport(
        firing=tuple(_headline(rules, alert) for alert in firing),
        pending=len(alerts) - len(firing),
        resolved=sum(1 for title in titles if title.startswith("RESOLVED")),
        unknown=(*_unknown(findings), *_skipped(seen)),
        told=tuple(titles),
        delivered=sent.taken,
        waiting=sent.waiting,
        given_up=sent.given_up,
        marked=marked,
    )


def what_is_found(connection: Connection[Any], rules: AlertRules) -> dict[str, list[Finding]]:
    """The current findings of every enabled rule, by rule."""
    return {rule.name: find(connection, rules, rule) for rule in rules.rules if rule.is_enabled}


async def send_test(settings: Settings) -> dict[str, bool]:
    """Send a test message; returns by name whether each channel accepted it.

    Raises SettingsError without a channel.
    """
    channels = open_channels([url.get_secret_value() for url in settings.alert_urls])
    if not channels:
        raise SettingsError("There is no channel to test: set DLQ_ALERT_URLS.")
    try:
        took = await asyncio.gather(*map(_test, channels))
    finally:
        for channel in channels:
            channel.close()
    return {channel.name: is_taken for channel, is_taken in zip(channels, took, strict=True)}


async def _test(channel: Channel) -> bool:
    """Send a test message; incident services get one that opens and one that closes."""
    opened = Incident(
        key=f"dlq-test-{uuid.uuid4().hex[:16]}",
        action="trigger",
        rule="test",
        scope="all",
        subject="",
        severity="warning",
        since=datetime.now(UTC),
    )
    message = Message(
        "TEST: alerts of sahool-dlq arrive here",
        "Nothing is wrong. Somebody ran `dlq alerts test`.\nNext: dlq alerts",
        is_good=True,
        incident=replace(opened, action="resolve", message_id=uuid.uuid4().hex),
    )
    if channel.is_for_incidents:
        first = replace(message, incident=opened, is_good=False)
        if not await channel.deliver(first, TRIES_SECONDS):
            return False
    return await channel.deliver(message, TRIES_SECONDS)


async def _alone(lock: Lock) -> None:
    """Wait for another evaluation."""
    for _ in range(_LOCK_TRIES):
        if lock.take():
            return
        await asyncio.sleep(0.2)
    raise AlertError(
        f"Another evaluation of the alerts ({lock.held_by()}) has run for more than a minute:"
        f" check which channel hangs."
    )


def _advance(
    connection: Connection[Any],
    rules: AlertRules,
    findings: Mapping[str, Sequence[Finding]],
    channels: Sequence[Channel],
    now: datetime,
) -> list[str]:
    """Store the current alerts and their messages; returns the titles."""
    live, told_before = store.live_alerts(connection), store.last_told(connection)
    found = {(name, f.scope, f.subject): f for name, each in findings.items() for f in each}
    said: list[tuple[str, Alert]] = []
    for key in dict.fromkeys([*live, *found]):
        rule = rules.rule(key[0])
        if rule is None:
            continue
        scope = rules.scope(rule, key[1])
        before = live.get(key)
        done: Step = step(before, found.get(key), rule, scope.severity, told_before.get(key), now)
        if done.alert is None:
            if before is not None:
                store.forget(connection, before)
            continue
        alert = replace(done.alert, id=store.save(connection, done.alert))
        if done.kind is not None:
            said.append((done.kind, alert))
    moved = join(connection, rules)
    return say(connection, rules, said, channels, now, moved)


async def _mark(
    settings: Settings, connection: Connection[Any], findings: Mapping[str, Sequence[Finding]]
) -> int:
    """Write to the log which failures an alert contained, so that the drain marks them."""
    seen_by_people = store.delivered(connection)
    wanted: dict[str, Alert] = {}
    live = store.live_alerts(connection)
    for name, each in findings.items():
        for finding in each:
            alert = live.get((name, finding.scope, finding.subject))
            if alert is not None and alert.id in seen_by_people:
                wanted |= dict.fromkeys(finding.unmarked_ids or (), alert)
    if not wanted:
        return 0
    try:
        async with open_nats(settings, "dlq alerts") as client:
            js = client.jetstream()
            for failure_id, alert in wanted.items():
                assert alert.told_at is not None
                body = encode_case_event(
                    failure_id=failure_id, at=alert.told_at, actor=ACTOR, reason=alert.rule
                )
                message_id = f"{alert.id}-{failure_id}-alerted"  # a repeat has no effect
                await js.publish(
                    settings.subjects.triage("alerted"),
                    body,
                    headers={"Nats-Msg-Id": message_id},
                    timeout=5,
                )
    except (DLQError, nats.errors.Error, APIError) as error:
        logger.warning("The failures of the alerts are marked at the next run: %s", error)
        return 0
    return len(wanted)


def _headline(rules: AlertRules, alert: Alert) -> str:
    rule = rules.rule(alert.rule)
    return headline(alert, rule) if rule else alert.rule


def _skipped(seen: Look) -> Iterable[str]:
    if seen.skipped:
        noun = "consumer" if seen.skipped == 1 else "consumers"
        yield (
            f"{seen.skipped:,} {noun} that dead letters name: it is unknown whether they "
            "acknowledge events; the name is not valid, NATS does not answer, or there are more "
            "than the limit"
        )


def _unknown(findings: Mapping[str, Sequence[Finding]]) -> Iterable[str]:
    for each in findings.values():
        for finding in each:
            if finding.value is None:
                yield f"{finding.subject}: {finding.detail}"
