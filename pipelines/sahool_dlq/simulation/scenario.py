"""The planted causes of a history, and their times: pure, and the same for the same seed."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sahool_dlq.simulation.fleet import BACKGROUND, BAD_DEPLOY, MENDED, REGRESSION, Kind, kind

__all__ = ["HOUR", "Outage", "Release", "Scenario", "Source", "hour_of_week", "time_of"]

HOUR = 3600.0

POISON_TENANT = "tenant-17"
FIRST_VERSION = "1.8.2"
"""Of every service, before its first release."""
HABIT_HOURS = (6, 7)
"""Hours of the week, Monday first, in which `billing` fails more: its weekly run."""
FOLLOWERS = {"irrigation": 45.0, "ndvi": 80.0}
"""Services that fail when `weather` does, and how many seconds later they begin."""


@dataclass(frozen=True, slots=True)
class Source:
    """A period in which one kind of failure has one rate."""

    name: str  # its random numbers are its own, so that another source changes nothing of it
    kind: Kind
    hourly: float  # failures an hour, in the mean
    start: float  # seconds since 1970
    end: float
    is_seasonal: bool = False  # follows the hours of the week
    hours: tuple[int, ...] = ()  # only in these hours of the week
    tenant: str | None = None  # whose failures they are; None: any tenant's


@dataclass(frozen=True, slots=True)
class Outage:
    """`weather` is down, and its dependent services follow."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Release:
    """A service runs another version from now on."""

    service: str
    version: str
    at: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Scenario:
    """A month, or whatever `days` is, up to `until`, with `hourly` failures in its quiet hours."""

    until: datetime
    days: float
    hourly: float
    seed: int
    is_quiet: bool = False  # nothing planted, no seasons: nothing is to be found

    @property
    def end(self) -> float:
        """The last moment, seconds since 1970."""
        return self.until.timestamp()

    @property
    def start(self) -> float:
        """The first moment."""
        return self.end - self.days * 24 * HOUR

    @property
    def bad_release(self) -> Release:
        """Brings `yield` a bug that nobody mends."""
        return Release("yield", "2.4.0", self.end - self._within(20, 0.3))

    @property
    def mended_releases(self) -> tuple[Release, Release, Release]:
        """Bring `irrigation` a bug; do not mend it; mend it."""
        start, hours = self.end - self._within(54, 0.75), self._within(9, 0.2)
        versions = (("2.7.0", 0.0), ("2.7.1", 0.5), ("2.7.2", 1.0))
        first, second, third = (
            Release("irrigation", version, start + share * hours) for version, share in versions
        )
        return first, second, third

    @property
    def releases(self) -> tuple[Release, ...]:
        """All of them."""
        return () if self.is_quiet else (*self.mended_releases, self.bad_release)

    def running(self, service: str, at: float) -> Release:
        """The release of a service that runs at a time."""
        first = Release(service, FIRST_VERSION, self.start)
        came = (r for r in self.releases if r.service == service and r.at <= at)
        return max(came, key=lambda release: release.at, default=first)

    @property
    def repaired_at(self) -> float:
        """By this time the regression's first round was completely resolved."""
        return self._at(0.6)

    @property
    def returned_at(self) -> float:
        """When it came back."""
        return self.end - self._within(6, 0.1)

    @property
    def outages(self) -> tuple[Outage, ...]:
        """About one in four days, the last of them well before `until`."""
        if self.is_quiet:
            return ()
        rng = self.rng("outages")
        count = max(1, int(self.days // 4))
        found = []
        for number in range(count):
            start = self._at((number + 0.5) / count) + rng.uniform(-3, 3) * HOUR
            found.append(Outage(start, start + rng.uniform(25, 50) * 60))
        return tuple(found)

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, except messages that always fail again."""
        usual = tuple(
            Source(k.name, k, k.share * self.hourly, self.start, self.end, not self.is_quiet)
            for k in BACKGROUND
        )
        return usual if self.is_quiet else (*usual, *self._planted())

    def _planted(self) -> tuple[Source, ...]:
        rate, end = self.hourly, self.end
        weather, billing = (
            kind("weather", "ConnectionRefusedError"),
            kind("billing", "UniqueViolation"),
        )
        outages = [
            Source(f"outage {number} of {k.service}", k, max(600, 6 * rate), at, outage.end)
            for number, outage in enumerate(self.outages)
            for k, at in (
                (weather, outage.start),
                (kind("irrigation", "ReadTimeout"), outage.start + FOLLOWERS["irrigation"]),
                (kind("ndvi", "TimeoutError"), outage.start + FOLLOWERS["ndvi"]),
            )
        ]
        tiles, soil = kind("tiles", "ClientConnectorError"), kind("soil", "ValidationError")
        week = end - self._within(6 * 24, 0.5)
        bug, _, mended = self.mended_releases
        return (
            *outages,
            Source("spike", tiles, max(240, 4 * rate), end - 40 * 60, end),
            Source("bad deploy", BAD_DEPLOY, 0.3 * rate, self.bad_release.at, end),
            Source("mended deploy", MENDED, max(4, 0.5 * rate), bug.at, mended.at),
            Source("poison tenant", soil, 0.1 * rate, week, end, tenant=POISON_TENANT),
            Source("habit", billing, 1.5 * rate, self.start, end, hours=HABIT_HOURS),
            Source("first round", REGRESSION, max(1, 0.02 * rate), self._at(0.35), self._at(0.5)),
            Source("second round", REGRESSION, max(4, 0.05 * rate), self.returned_at, end),
        )

    def rng(self, name: str) -> random.Random:
        """Random numbers for one purpose."""
        return random.Random(f"{self.seed} {name}")  # noqa: S311  (material, no secret)

    def _within(self, hours: float, share: float) -> float:
        """So many hours, but at most this share of the history; in seconds."""
        return min(hours, share * self.days * 24) * HOUR

    def _at(self, share: float) -> float:
        return self.start + share * (self.end - self.start)


def hour_of_week(at: float) -> int:
    """0 is Monday 00:00 UTC; 1970 began on a Thursday."""
    return (int(at // HOUR) + 72) % 168


def time_of(at: float) -> datetime:
    """Aware UTC, to the microsecond."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(at * 1e6))
