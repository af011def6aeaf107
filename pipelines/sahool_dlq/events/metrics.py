"""The counters of this process's consumers for Prometheus; needs the extra `metrics`.

They are read when Prometheus scrapes, so they cost nothing per event. The labels are the service
and its durable consumers: one series per subscription.
"""

import threading
import weakref
from collections.abc import Iterator

from prometheus_client import REGISTRY, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sahool_dlq.events.counters import DURATIONS, Counters
from sahool_dlq.events.subscription import Subscription

_LABELS = ("service", "consumer")
_COUNTERS = {
    "handled": "Handler calls that ended.",
    "succeeded": "Events that a handler completed successfully.",
    "retried": "Events that will be delivered again after a delay.",
    "dead_lettered": "Events whose dead letter the server has acknowledged.",
    "skipped": "Redrives that were addressed to another consumer.",
    "ids_taken": "Dead letters whose id another process had already used in the log.",
}


class ConsumerMetrics(Collector):
    """A collector over all registered subscriptions, including ended ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Prometheus asks from a thread of its own
        self._live: list[tuple[tuple[str, str], Counters, weakref.ref[Subscription]]] = []
        self._ended: dict[tuple[str, str], Counters] = {}

    def watch(self, service: str, subscription: Subscription) -> None:
        """Register a subscription."""
        labels = (service, subscription.durable)
        with self._lock:
            self._live.append((labels, subscription.counters, weakref.ref(subscription)))

    def collect(self) -> Iterator[Metric]:
        """The metrics; counters do not go back when a consumer is created again."""
        sums: dict[tuple[str, str], Counters] = {}
        live: dict[tuple[str, str], list[Subscription]] = {}
        with self._lock:
            kept = []
            for labels, counters, reference in self._live:
                if (subscription := reference()) is None:
                    self._ended.setdefault(labels, Counters()).add(counters)
                    continue
                kept.append((labels, counters, reference))
                sums.setdefault(labels, Counters()).add(counters)
                live.setdefault(labels, []).append(subscription)
            self._live = kept
            for labels, counters in self._ended.items():
                sums.setdefault(labels, Counters()).add(counters)
        for name, help_ in _COUNTERS.items():
            family = CounterMetricFamily(f"dlq_consumer_{name}", help_, labels=_LABELS)
            for labels, counters in sums.items():
                family.add_metric(labels, getattr(counters, name))
            yield family
        yield _durations(sums)
        yield from _gauges(live)


def _durations(sums: dict[tuple[str, str], Counters]) -> Metric:
    family = HistogramMetricFamily(
        "dlq_consumer_handler_seconds", "How long handler calls took.", labels=_LABELS
    )
    for labels, counters in sums.items():
        buckets, count = [], 0
        for bound, calls in zip((*map(str, DURATIONS), "+Inf"), counters.by_duration, strict=True):
            count += calls
            buckets.append((bound, float(count)))
        family.add_metric(labels, buckets, counters.handler_seconds)
    return family


def _gauges(live: dict[tuple[str, str], list[Subscription]]) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily(
        "dlq_consumer_in_flight", "Events that this process is handling now.", labels=_LABELS
    )
    pending = GaugeMetricFamily(
        "dlq_consumer_ack_pending",
        "Events of the durable consumer that are waiting for a retry or an acknowledgement, in"
        " all processes.",
        labels=_LABELS,
    )
    writable = GaugeMetricFamily(
        "dlq_consumer_log_writable",
        "0 while dead letters cannot be written; no events are fetched then.",
        labels=_LABELS,
    )
    for labels, subscriptions in live.items():
        in_flight.add_metric(labels, sum(each.in_flight for each in subscriptions))
        pending.add_metric(labels, max(each.ack_pending for each in subscriptions))
        writable.add_metric(labels, all(each.is_log_writable for each in subscriptions))
    yield from (in_flight, pending, writable)


consumer_metrics = ConsumerMetrics()
"""Every consumer of this process; in prometheus_client's default registry from the first consumer
on.
"""

REGISTRY.register(consumer_metrics)
