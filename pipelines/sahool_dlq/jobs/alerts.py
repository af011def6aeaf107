"""The alerts that fire now."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sahool_dlq.alerts.states import Alert
from sahool_dlq.alerts.store import firing_alerts, undelivered
from sahool_dlq.connections import open_postgres
from sahool_dlq.settings import Settings

__all__ = ["AlertsNow", "alerts_now"]


@dataclass(frozen=True, slots=True)
class AlertsNow:
    """What fires, as of the last evaluation."""

    evaluated_at: datetime | None  # None: never
    alerts: list[Alert]
    undelivered: list[dict[str, Any]]  # channel, and its messages: waiting, given_up


def alerts_now(settings: Settings) -> AlertsNow:
    """The alerts that fire or are pending, and the channels that did not accept messages."""
    with open_postgres(settings) as connection:
        alerts = firing_alerts(connection)
        left = undelivered(connection)
        row = connection.execute("SELECT max(at) FROM stream_samples WHERE role = 'log'").fetchone()
    keys = ("channel", "waiting", "given_up")
    waiting = [dict(zip(keys, counts, strict=True)) for counts in left]
    return AlertsNow(row[0] if row else None, alerts, waiting)
