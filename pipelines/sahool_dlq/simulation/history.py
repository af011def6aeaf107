"""All messages of a scenario, in order of time.

Failures come as a Poisson process whose rate changes with the hours. Later messages about each
failure (redrives and their outcomes, decisions of people) wait in a heap until their time. So a
history of any length needs little memory.
"""

import heapq
from collections.abc import Iterator
from itertools import count
from operator import itemgetter
from typing import NamedTuple

from sahool_dlq.deadletter import ids
from sahool_dlq.simulation.fleet import BACKGROUND, TENANTS, Kind, kind
from sahool_dlq.simulation.scenario import (
    FOLLOWERS,
    HOUR,
    Scenario,
    Source,
    hour_of_week,
)

__all__ = ["STREAM", "History", "Letter", "News"]

STREAM = "SAHOOL_EVENTS"
_REDRIVE_CAP = 3
_TEAM = ("amal", "jonas", "lin")
_REASONS = ("data corrected at the source", "repaired in the next version", "handled by phone")


class Letter(NamedTuple):
    """One failure."""

    at: float  # when it became a dead letter, seconds since 1970
    kind: Kind
    tenant: str
    field: str
    version: str
    sequence: int  # of the event in its stream
    event_at: float
    failure_id: str
    root: str | None = None  # of a redrive that failed again: the first failure,
    attempt: int = 0  # and which redrive it was


class News(NamedTuple):
    """A message about a failure after it was stored."""

    at: float
    subject: str  # redrive.published, …, triage.discarded
    failure_id: str
    consumer: str
    attempt: int | None = None
    trigger: str | None = None
    actor: str = "redrive-transient"
    reason: str | None = None
    version: str | None = None  # of redrive.succeeded: the release that reports it


class History:
    """The messages of one scenario, iterated once; randomly planted causes are recorded."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.in_vain: list[str] = []  # failures that no redrive cures, though others are
        self.shared: list[int] = []  # events that fail in several consumers
        self._is_canary_chosen = False  # of the group that a release mends
        self._rng = scenario.rng("what follows")
        self._mending = scenario.rng("mended deploy, what follows")
        self._outages = scenario.outages
        self._waiting: list[tuple[float, int, Letter | News]] = []
        self._order = count()
        self._sequences = count(1_000, 7)

    def __iter__(self) -> Iterator[Letter | News]:
        """All messages before the scenario's end, in order of time."""
        if not self.scenario.is_quiet:
            self._plant_messages()
        streams = [_arrivals(source, self.scenario) for source in self.scenario.sources]
        for at, source in heapq.merge(*streams, key=itemgetter(0)):
            yield from self._due(at)
            letter = self._letter(at, source.kind, source.tenant)
            yield letter
            self._follow(letter, source.name)
        yield from self._due(self.scenario.end)

    def _due(self, until: float) -> Iterator[Letter | News]:
        while self._waiting and self._waiting[0][0] < until:
            yield heapq.heappop(self._waiting)[2]

    def _later(self, happening: Letter | News) -> None:
        heapq.heappush(self._waiting, (happening.at, next(self._order), happening))

    def _letter(self, at: float, kind: Kind, tenant: str | None, sequence: int = 0) -> Letter:
        rng = self._rng
        tenant = tenant or TENANTS.draw(rng)
        sequence = sequence or next(self._sequences)
        event_at = at - rng.uniform(40, 90)
        return Letter(
            at,
            kind,
            tenant,
            f"{tenant}-field-{rng.randrange(25)}",
            self.scenario.running(kind.service, at).version,
            sequence,
            event_at,
            ids.failure_id(STREAM, sequence, _ns(event_at), kind.service),
        )

    def _follow(self, letter: Letter, source: str) -> None:
        cure = letter.kind.cure
        if source == "mended deploy":
            self._mend(letter)
        elif cure.redrive_chance is not None:
            self._redrive(letter, cure.redrive_chance)
        elif cure.median_seconds is not None and source != "second round":
            at = letter.at + cure.median_seconds * self._rng.lognormvariate(0, 0.8)
            if source == "first round":
                at = min(at, self.scenario.repaired_at - self._rng.uniform(0, HOUR))
            self._decide(letter, at)

    def _redrive(self, letter: Letter, chance: float) -> None:
        """Automatic redrives up to the cap; then, for every second failure, a person's."""
        rng, at = self._rng, letter.at
        for attempt in range(1, _REDRIVE_CAP + 1):
            at = self._back_up(letter.kind, at) + rng.uniform(60, 300) * 3 ** (attempt - 1)
            at, is_cured = self._attempt(letter, at, attempt, chance, "automatic")
            if is_cured:
                return
        if chance and rng.random() < 0.5:
            at += 4 * HOUR * rng.lognormvariate(0, 0.8)
            self._attempt(letter, at, _REDRIVE_CAP + 1, chance, "manual")

    def _mend(self, letter: Letter) -> None:
        """The canary of each release (the group's first failure), and all others after its
        success.
        """
        _, useless, mended = self.scenario.mended_releases
        attempt, at = 1, mended.at + 240 + self._mending.uniform(0, 300)
        if not self._is_canary_chosen:
            self._is_canary_chosen = True
            self._attempt(letter, max(letter.at, useless.at) + 120, 1, 0.0, "automatic", lost=0.0)
            attempt, at = 2, mended.at + 120
        self._attempt(letter, at, attempt, 1.0, "automatic", lost=0.0)

    def _attempt(
        self,
        letter: Letter,
        at: float,
        attempt: int,
        chance: float,
        trigger: str,
        *,
        lost: float = 0.01,
    ) -> tuple[float, bool]:
        """One redrive; returns when it ended, and whether it succeeded.

        With the probability `lost` its outcome stays unknown.
        """
        rng = self._rng
        consumer = f"{STREAM}/{letter.kind.service}"
        actor = rng.choice(_TEAM) if trigger == "manual" else "redrive-transient"

        def tell(when: float, subject: str, version: str | None = None) -> None:
            news = News(when, subject, letter.failure_id, consumer, attempt, trigger, actor)
            self._later(news._replace(version=version))

        if attempt > _REDRIVE_CAP:
            tell(at - 1, "triage.unparked")
        tell(at, "redrive.published")
        if rng.random() < lost:
            tell(at + 60, "redrive.outcome_unknown")
            return at + 60, False
        ended = at + rng.uniform(0.05, 4)
        version = self.scenario.running(letter.kind.service, ended).version
        if rng.random() < 1 - (1 - chance) ** attempt:  # what passes by itself has more time
            tell(ended, "redrive.succeeded", version)
            return ended, True
        sequence = next(self._sequences)
        self._later(
            letter._replace(
                at=ended,
                version=version,
                sequence=sequence,
                event_at=at,
                failure_id=ids.failure_id(STREAM, sequence, _ns(at), letter.kind.service),
                root=letter.failure_id,
                attempt=attempt,
            )
        )
        return ended, False

    def _decide(self, letter: Letter, at: float) -> None:
        is_discarded = self._rng.random() < letter.kind.cure.discard_chance
        self._later(
            News(
                at,
                "triage.discarded" if is_discarded else "triage.resolved",
                letter.failure_id,
                f"{STREAM}/{letter.kind.service}",
                actor=self._rng.choice(_TEAM),
                reason=self._rng.choice(_REASONS),
            )
        )

    def _back_up(self, kind: Kind, at: float) -> float:
        """When redrives continue after an outage, found by its canaries; else immediately."""
        if kind.service not in ("weather", *FOLLOWERS):
            return at
        return next((o.end + 120 for o in self._outages if o.start <= at < o.end), at)

    def _plant_messages(self) -> None:
        """Messages that always fail again, and those that fail in every consumer."""
        rng, end = self.scenario.rng("messages"), self.scenario.end
        reach = min(5 * 24 * HOUR, 0.8 * (end - self.scenario.start))
        hopeless = kind("tiles", "ClientConnectorError")
        for _ in range(4):
            letter = self._letter(end - rng.uniform(3 * HOUR, reach), hopeless, None)
            self.in_vain.append(letter.failure_id)
            self._later(letter)
            self._redrive(letter, 0.0)
        readers = [kind("soil", "UnicodeDecodeError"), kind("ndvi", "IndexError"), BACKGROUND[6]]
        for _ in range(3):
            at, sequence = end - rng.uniform(HOUR, reach), next(self._sequences)
            first = self._letter(at, readers[0], None, sequence)
            self.shared.append(sequence)
            for number, reader in enumerate(readers):
                letter = first._replace(
                    at=at + number * 2,
                    kind=reader,
                    failure_id=ids.failure_id(
                        STREAM, sequence, _ns(first.event_at), reader.service
                    ),
                )
                self._later(letter)


def _arrivals(source: Source, scenario: Scenario) -> Iterator[tuple[float, Source]]:
    """The times of a source's failures: exponential intervals, drawn again when the hourly rate
    changes.
    """
    rng, at = scenario.rng(source.name), source.start
    while at < source.end:
        until = min((at // HOUR + 1) * HOUR, source.end)
        rate = source.hourly * _weight(source, hour_of_week(at)) / HOUR
        if rate > 0:
            at += rng.expovariate(rate)
            while at < until:
                yield at, source
                at += rng.expovariate(rate)
        at = until


def _weight(source: Source, hour: int) -> float:
    """The relative rate of an hour of the week; the mean of the seasonal ones is 1."""
    if source.hours:
        return 1.0 if hour in source.hours else 0.0
    if not source.is_seasonal:
        return 1.0
    is_weekend, hour_of_day = hour >= 5 * 24, hour % 24
    return (0.8 if is_weekend else 1.08) * (1.5 if 6 <= hour_of_day < 18 else 0.5)


def _ns(at: float) -> int:
    """Nanoseconds since 1970, to the microsecond."""
    return round(at * 1e6) * 1000
