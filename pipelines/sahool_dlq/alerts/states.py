"""The life of an alert, pure: how each evaluation changes it, and which message to send.

(nothing) ──holds──▶ pending ──held for_minutes──▶ firing ──over for keep_minutes──▶ resolved
                        └──over──▶ (deleted)          └── reminder every repeat_minutes, until
                        somebody acknowledges it
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sahool_dlq.alerts.findings import Finding
from sahool_dlq.alerts.rules import Rule

ACTOR = "dlq-alerts"
"""Who writes about alerts to the log."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One episode: the condition of a rule held for a subject. A row of `alerts`."""

    rule: str
    scope: str
    subject: str
    state: str  # pending | firing | resolved
    severity: str
    value: float
    above: float
    failure_count: int | None
    since: datetime
    sample_id: str | None
    detail: str
    started_at: datetime  # first evaluation at which the condition held
    seen_at: datetime  # last one
    fired_at: datetime | None = None
    told_at: datetime | None = None  # last message
    told_count: int = 0
    acked_at: datetime | None = None
    acked_by: str | None = None
    ack_reason: str | None = None
    resolved_at: datetime | None = None
    entry_id: int | None = None  # in whose entry of incident services it is; None: its own
    id: int = 0  # 0: not stored yet

    @property
    def key(self) -> tuple[str, str, str]:
        """The identity of the alert at the next evaluation."""
        return self.rule, self.scope, self.subject

    def incident_key(self, platform: str) -> str:
        """The key of its own entry in incident services: the same for each episode, no names."""
        text = "\0".join((platform, *self.key))
        return f"dlq-{self.rule}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Step:
    """The result of one evaluation for an alert."""

    alert: Alert | None  # the new state; None: deleted, or there is none
    kind: str | None = None  # the message to send: firing | reminder | resolved


def step(
    alert: Alert | None,
    finding: Finding | None,
    rule: Rule,
    severity: str,
    last_told_at: datetime | None,
    now: datetime,
) -> Step:
    """One evaluation: the live alert of a subject, and the rule's current finding.

    `last_told_at` is when an earlier episode of the same alert was last sent: if an alert fires and
    ends repeatedly, it is sent once per cool-down. Failures that another alert (the monitor's) has
    already contained are not sent again. An unknown value neither starts nor ends an alert.
    """
    if alert is not None and finding is not None and finding.value is None:
        return Step(replace(alert, seen_at=now) if alert.state == "firing" else None)
    if finding is None or finding.value is None or not finding.is_above:
        return _over(alert, rule, now)
    alert = alert or Alert(
        rule=rule.name,
        scope=finding.scope,
        subject=finding.subject,
        state="pending",
        severity=severity,
        value=finding.value,
        above=finding.above,
        failure_count=finding.failure_count,
        since=finding.since or now,
        sample_id=finding.sample_id,
        detail=finding.detail or "",
        started_at=now,
        seen_at=now,
    )
    alert = replace(
        alert,
        severity=severity,
        value=finding.value,
        above=finding.above,
        failure_count=finding.failure_count,
        since=min(alert.since, finding.since or now),
        sample_id=finding.sample_id,
        detail=finding.detail or "",
        seen_at=now,
    )
    if alert.state == "pending":
        if now - alert.started_at < timedelta(minutes=rule.for_minutes):
            return Step(alert)
        alert = replace(alert, state="firing", fired_at=now)
    last = max(filter(None, (alert.told_at, last_told_at)), default=None)
    pause = timedelta(minutes=rule.repeat_minutes if alert.told_count else rule.cooldown_minutes)
    is_due = last is None or now - last >= pause
    if not is_due or finding.is_told or alert.acked_at is not None:
        return Step(alert)
    return _told(alert, "reminder" if alert.told_count else "firing", now)


def _over(alert: Alert | None, rule: Rule, now: datetime) -> Step:
    if alert is None or alert.state == "pending":
        return Step(None)
    if now - alert.seen_at < timedelta(minutes=rule.keep_minutes):
        return Step(alert)
    alert = replace(alert, state="resolved", resolved_at=now)
    return _told(alert, "resolved", now) if alert.told_count else Step(alert)


def _told(alert: Alert, kind: str, now: datetime) -> Step:
    return Step(replace(alert, told_at=now, told_count=alert.told_count + 1), kind)
