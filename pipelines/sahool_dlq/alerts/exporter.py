"""Metrics for Prometheus: the five metrics, the values of the rules, and the state of the platform.

Labels are bounded: the largest values keep their name, the rest is `other`. It writes nothing.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg import Connection

from sahool_dlq.alerts.evaluate import what_is_found
from sahool_dlq.alerts.findings import Finding
from sahool_dlq.alerts.observe import StreamSample, look
from sahool_dlq.alerts.rules import EVERYTHING, Rule, alert_rules
from sahool_dlq.connections import open_postgres
from sahool_dlq.deadletter.sanitize import readable
from sahool_dlq.errors import DLQError
from sahool_dlq.settings import Settings
from sahool_dlq.sqlfiles import read_sql

__all__ = ["DLQCollector", "serve"]

logger = logging.getLogger(__name__)

MOST_LABELS = 30
"""Maximum values of one label of one metric; the rest is `other`."""

_NATS_SECONDS = 3.0  # Prometheus waits ten, and PostgreSQL needs some of them
_CACHE_SECONDS = 10.0  # so several Prometheus servers cost no more than one


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    label: str  # empty: none
    text: str
    rest: str = "sum"  # what `other` is: the sum | max | min of those without a name


_FIVE = {
    "dlq_rate": _Metric(
        "dlq_failures_per_minute", "window", "Failures per minute, mean of the window."
    ),
    "redrive_success_rate": _Metric(
        "dlq_redrive_success_ratio", "window", "Share of successful redrives among ended ones."
    ),
    "error_distribution": _Metric(
        "dlq_error_share", "error_type", "Share of the failures of the last 24 hours."
    ),
    "service_health": _Metric(
        "dlq_service_health_score", "service", "0 (ill) to 100 (well).", rest="min"
    ),
    "resolution_time": _Metric("dlq_resolution_seconds", "statistic", "Time until a failure ends."),
}
"""Of the mart `metrics`, which the flow build-marts computes."""

_PIPELINE = {
    "failures": _Metric("dlq_failures", "status", "Rows of failed_events."),
    "oldest_open": _Metric("dlq_oldest_open_seconds", "", "Age of the oldest open failure."),
    "quarantined": _Metric(
        "dlq_quarantined", "", "Messages that could not be read as dead letters."
    ),
    "drained": _Metric("dlq_drained_sequence", "stream", "Last sequence in PostgreSQL."),
    "gaps": _Metric("dlq_gap_sequences", "", "Sequences that were lost before they were drained."),
    "redrives": _Metric("dlq_redrives", "state", "Redrives."),
    "unfounded": _Metric(
        "dlq_unfounded_outcomes", "kind", "Outcomes of redrives that are not in the log."
    ),
    "alerts": _Metric("dlq_alerts_firing", "severity", "Alerts that fire."),
    "alert_messages": _Metric(
        "dlq_alert_messages_waiting", "", "Messages that no channel has accepted yet."
    ),
}
"""Of `sql/exporter/pipeline.sql`."""


class DLQCollector(Collector):
    """Queries PostgreSQL and NATS at a scrape, at most every ten seconds."""

    def __init__(self, settings: Settings, cache_seconds: float = _CACHE_SECONDS) -> None:
        self._settings = settings
        self._rules = alert_rules(settings)
        self._cache_seconds = cache_seconds
        self._lock = threading.Lock()
        self._known: list[GaugeMetricFamily] = []
        self._asked_at = float("-inf")

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Empty, because the metrics depend on the servers, which may be down."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All current metrics; if a server is down, `dlq_up` is 0."""
        with self._lock:
            if time.monotonic() - self._asked_at >= self._cache_seconds:
                self._known = list(self._ask())
                self._asked_at = time.monotonic()
            return self._known

    def _ask(self) -> Iterator[GaugeMetricFamily]:
        streams = asyncio.run(_streams(self._settings))
        found: list[GaugeMetricFamily] = []
        try:
            found = self._of_postgres()
            is_up = True
        except DLQError as error:
            logger.warning("%s", error)
            is_up = False
        up = GaugeMetricFamily("dlq_up", "Whether a server answers.", labels=["server"])
        up.add_metric(["postgres"], float(is_up))
        up.add_metric(["nats"], float(any(s.last_sequence is not None for s in streams)))
        yield up
        yield from _of_streams(streams)
        yield from found

    def _of_postgres(self) -> list[GaugeMetricFamily]:
        rules = self._rules
        with open_postgres(self._settings) as connection, connection.transaction():
            connection.execute("SET LOCAL statement_timeout = '10s'")
            findings = what_is_found(connection, rules)
            pipeline = connection.execute(read_sql("exporter/pipeline.sql")).fetchall()
            five = _mart_metrics(connection)
        return [
            *_families(_FIVE, five),
            *_families(_PIPELINE, pipeline),
            *(_of_rule(rule, findings[rule.name]) for rule in rules.rules if rule.is_enabled),
        ]


def serve(settings: Settings, host: str, port: int) -> Any:
    """Serve `/metrics` in a separate thread; returns the server, whose `shutdown` ends it.

    Raises OSError if the port is not available, SettingsError if the alert rules are not valid.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DLQCollector(settings))
    server, _ = start_http_server(port, host, registry)
    return server


async def _streams(settings: Settings) -> tuple[StreamSample, ...]:
    """The streams' state from NATS; empty if it takes too long."""
    try:
        async with asyncio.timeout(_NATS_SECONDS):
            return (await look(settings)).streams
    except TimeoutError:
        return ()


def _mart_metrics(connection: Connection[Any]) -> list[tuple[str, str, float | None]]:
    if connection.execute("SELECT to_regclass('dlq.mart_metrics')").fetchone() == (None,):
        return []  # build-marts has not run yet
    rows = connection.execute("SELECT metric, label, value FROM mart_metrics").fetchall()
    return [(metric, readable(label), value) for metric, label, value in rows]


def _families(
    metrics: dict[str, _Metric], rows: Sequence[tuple[str, str, float | None]]
) -> Iterator[GaugeMetricFamily]:
    for key, metric in metrics.items():
        values = {label: value for name, label, value in rows if name == key and value is not None}
        labels = [metric.label] if metric.label else []
        family = GaugeMetricFamily(metric.name, metric.text, labels=labels)
        for label, value in _bounded(values, metric.rest).items():
            family.add_metric([label] if labels else [], value)
        yield family


def _of_rule(rule: Rule, findings: Sequence[Finding]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        rule.metric, f"{rule.title}: {rule.unit}.", labels=["scope", "subject"]
    )
    by_scope: dict[str, dict[str, float]] = {}
    for finding in findings:
        if finding.value is not None:
            by_scope.setdefault(finding.scope, {})[finding.subject] = finding.value
    for scope, values in (by_scope or {EVERYTHING: {"": 0.0}}).items():
        for subject, value in _bounded(values, "max").items():
            family.add_metric([scope, subject], value)
    return family


def _of_streams(streams: Sequence[StreamSample]) -> Iterator[GaugeMetricFamily]:
    for name, text, attribute in (
        ("dlq_stream_messages", "Messages in the stream.", "message_count"),
        ("dlq_stream_bytes", "Size of the stream.", "size_bytes"),
        ("dlq_stream_last_sequence", "Last sequence of the stream.", "last_sequence"),
    ):
        family = GaugeMetricFamily(name, text, labels=["role", "stream"])
        for sample in streams:
            value = getattr(sample, attribute)
            if value is not None:
                family.add_metric([sample.role, sample.stream], value)
        yield family


def _bounded(values: dict[str, float], rest: str) -> dict[str, float]:
    """The largest values by name, and the sum of the others as `other`."""
    if len(values) <= MOST_LABELS:
        return values
    sign = 1 if rest == "min" else -1
    ranked = sorted(values.items(), key=lambda item: (sign * item[1], item[0]))
    others = [value for _, value in ranked[MOST_LABELS:]]
    return dict(ranked[:MOST_LABELS]) | {"other": _RESTS[rest](others)}


_RESTS: dict[str, Callable[[list[float]], float]] = {"sum": sum, "max": max, "min": min}
