"""The consumers' own counters over a history: the samples of `service_totals`."""

from typing import Any

import polars as pl

from sahool_dlq.deadletter.rows import SERVICE_TOTALS_SCHEMA
from sahool_dlq.simulation.fleet import BACKGROUND
from sahool_dlq.simulation.history import Letter
from sahool_dlq.simulation.scenario import FOLLOWERS, HOUR, Scenario, time_of

__all__ = ["Counters"]

_EVERY_SECONDS = 300.0
_USUAL_FAILURE_RATE = 0.0002
_SILENT = ("notification",)
"""Services that publish no totals."""


class Counters:
    """Counts handled messages of services, and samples the counts; a restart begins at 0."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._next = scenario.start + _EVERY_SECONDS
        self._rng = scenario.rng("traffic")
        self._hourly: dict[str, float] = {}
        for kind in BACKGROUND:
            if kind.service not in _SILENT:
                usual = kind.share * scenario.hourly / _USUAL_FAILURE_RATE
                self._hourly[kind.service] = self._hourly.get(kind.service, 0) + usual
        self._started = dict.fromkeys(self._hourly, scenario.start)
        self._succeeded = dict.fromkeys(self._hourly, 0)
        self._failed = dict.fromkeys(self._hourly, 0)
        self._rows: list[list[Any]] = []
        self._last = 0

    def count(self, letter: Letter) -> None:
        """Count one failure; sample first what comes before it."""
        self.sample(letter.at)
        if letter.kind.service in self._failed:
            self._failed[letter.kind.service] += 1

    def sample(self, until: float) -> None:
        """Sample at every tick up to `until`."""
        while self._next <= until:
            for service in self._hourly:
                self._add(service, self._next)
            self._next += _EVERY_SECONDS

    def take(self, after: int) -> pl.DataFrame:
        """The samples since the last call, SERVICE_TOTALS_SCHEMA, numbered after `after`."""
        rows = [[after + number, *row] for number, row in enumerate(self._rows, self._last + 1)]
        self._last += len(self._rows)
        self._rows = []
        return pl.DataFrame(rows, schema=SERVICE_TOTALS_SCHEMA, orient="row")

    def _add(self, service: str, at: float) -> None:
        scenario = self._scenario
        release = scenario.running(service, at)
        if self._started[service] < release.at:
            self._started[service] = release.at
            self._succeeded[service] = self._failed[service] = 0
        is_out = service in ("weather", *FOLLOWERS) and any(
            outage.start <= at < outage.end for outage in scenario.outages
        )
        share = self._rng.uniform(0.95, 1.05) * (0.1 if is_out else 1.0)
        self._succeeded[service] += round(self._hourly[service] * _EVERY_SECONDS / HOUR * share)
        succeeded, failed = self._succeeded[service], self._failed[service]
        started = time_of(self._started[service])
        self._rows.append(
            [
                time_of(at),
                service,
                service,
                started,
                *(succeeded + failed, succeeded, 3 * failed, failed, 0),
                release.version,
            ]
        )
