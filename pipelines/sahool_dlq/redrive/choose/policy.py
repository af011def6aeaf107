"""When a redrive is worth it: learned from outcomes, by failure group and attempt.

Pure: time and outcomes are arguments. For each group and attempt the chance of success is a Beta
distribution, from a prior of other groups of the same error type and from the outcomes, whose
weight halves each half-life. A redrive is worth it while the chance is probably above `worth`;
other groups get one canary a day, so that a repair is noticed.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import scipy  # loads scipy.special, which is slow, on first use

from sahool_dlq.deadletter.error_families import TRANSIENT, with_subclasses

__all__ = [
    "Belief",
    "Cell",
    "History",
    "Policy",
    "Verdict",
    "delay_before",
    "is_hopeless",
    "judge",
]

_LAST_ATTEMPT = 3  # later ones are judged like the third
_TRANSIENT_NAMES = frozenset(with_subclasses(TRANSIENT))
_DENIED = re.compile(
    r"permission|denied|forbidden|unauthori[sz]ed|not authori[sz]ed|authentication|credential"
    r"|certificate|\b40[13]\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules; each is a choice, not a measurement."""

    worth: float = 0.1  # chance of success from which a redrive is worth it: cost / value
    confidence: float = 0.2  # least probability that the chance is at least that
    half_life: timedelta = timedelta(days=7)  # after which an outcome weighs half
    most_prior: float = 20.0  # most weight of a prior, in outcomes
    enough_trials: float = (
        5.0  # minimum outcomes before a group counts for others, or a ramp is aborted
    )
    abort_below: float = 0.1  # expected chance below which a ramp is aborted
    canary_every: timedelta = timedelta(days=1)  # one redrive of a stopped group
    base_delay_seconds: float = 30.0  # least delay before a redrive
    most_delay_seconds: float = 3_600.0
    budget_share: float = 0.2  # redrives of a service, of what it handles
    floor_per_second: float = 10.0  # redrives per second that a service may always get
    transient_types: tuple[str, ...] = tuple(TRANSIENT)  # temporary error types

    def is_transient(self, error_type: str, message: str) -> bool:
        """Whether an error may be temporary: by type, unless its text says that it was refused."""
        name = error_type.rpartition(".")[2]
        return name in with_subclasses(self.transient_types) and not _DENIED.search(message)

    def budget_per_second(self, handled_per_second: float) -> float:
        """Redrives per second that a service may get if it handles this many events."""
        return max(self.floor_per_second, self.budget_share * handled_per_second)


class Cell(NamedTuple):
    """Outcomes of one cell are learned together."""

    group_id: str
    error_type: str
    attempt: int  # 1 for the first redrive

    def learned(self) -> "Cell":
        """The cell in which outcomes are counted."""
        error_class = self.error_type.rpartition(".")[2]
        return Cell(self.group_id, error_class, min(self.attempt, _LAST_ATTEMPT))


class Belief(NamedTuple):
    """A chance of success: Beta(a, b); the trials do not include the prior."""

    a: float
    b: float
    trials: float  # outcomes, weighed by age

    @property
    def mean(self) -> float:
        """The expected chance."""
        return self.a / (self.a + self.b)

    def after(self, successes: int, failures: int) -> "Belief":
        """The belief after these outcomes of today."""
        return Belief(self.a + successes, self.b + failures, self.trials + successes + failures)

    def probability_above(self, chance: float) -> float:
        """The probability that the chance is at least this."""
        return float(scipy.special.betaincc(self.a, self.b, chance))


class Verdict(NamedTuple):
    """The policy's decision about a group and attempt."""

    kind: Literal["redrive", "canary", "wait"]
    why: str


@dataclass(slots=True)
class _Tally:
    successes: float = 0.0
    failures: float = 0.0
    at: datetime | None = None  # of the weights, and of the latest outcome

    def weighed(self, now: datetime, half_life: timedelta) -> tuple[float, float]:
        if self.at is None or now <= self.at:
            return self.successes, self.failures
        weight: float = 0.5 ** ((now - self.at) / half_life)
        return self.successes * weight, self.failures * weight


class History:
    """Outcomes of redrives, as far as a policy remembers them."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._tallies: dict[Cell, _Tally] = {}
        self._alike: dict[tuple[str, int], list[Cell]] = {}

    def add(self, cell: Cell, successes: float, failures: float, at: datetime) -> None:
        """Add outcomes of a time, later than those before."""
        cell = cell.learned()
        tally = self._tallies.get(cell)
        if tally is None:
            tally = self._tallies[cell] = _Tally()
            self._alike.setdefault((cell.error_type, cell.attempt), []).append(cell)
        tally.successes, tally.failures = tally.weighed(at, self.policy.half_life)
        tally.successes += successes
        tally.failures += failures
        tally.at = max(at, tally.at or at)

    def recall(
        self, cell: Cell, successes: float, failures: float, last_at: datetime, now: datetime
    ) -> None:
        """Add outcomes that are already weighted for `now`; the latest came at `last_at`."""
        weight = 0.5 ** (max(now - last_at, timedelta()) / self.policy.half_life)
        self.add(cell, successes / weight, failures / weight, last_at)

    def last_at(self, cell: Cell) -> datetime | None:
        """When the latest outcome came."""
        tally = self._tallies.get(cell.learned())
        return tally.at if tally else None

    def belief(self, cell: Cell, now: datetime, *, transient: bool) -> Belief:
        """The chance that a redrive succeeds."""
        cell = cell.learned()
        # A timeout caused by a denied permission is not like other timeouts.
        is_alike = transient or cell.error_type not in _TRANSIENT_NAMES
        prior = self._prior(cell, now) if is_alike else None
        a, b = prior or ((4.0, 2.0) if transient else (1.0, 9.0))
        tally = self._tallies.get(cell)
        successes, failures = tally.weighed(now, self.policy.half_life) if tally else (0.0, 0.0)
        return Belief(a + successes, b + failures, successes + failures)

    def _prior(self, cell: Cell, now: datetime) -> tuple[float, float] | None:
        """Method of moments over the other groups of this type; None if there are too few."""
        rates = []
        for other in self._alike.get((cell.error_type, cell.attempt), ()):
            successes, failures = self._tallies[other].weighed(now, self.policy.half_life)
            trials = successes + failures
            if other != cell and trials >= self.policy.enough_trials:
                rates.append(successes / trials)
        return _by_moments(rates, self.policy.most_prior)


def _by_moments(rates: Sequence[float], most: float) -> tuple[float, float] | None:
    if len(rates) < 2:  # one rate has no variance
        return None
    mean = sum(rates) / len(rates)
    variance = sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1)
    mean = min(max(mean, 0.01), 0.99)
    weight = most if variance == 0 else mean * (1 - mean) / variance - 1
    weight = min(max(weight, 2.0), most)
    return mean * weight, (1 - mean) * weight


def judge(belief: Belief, last_at: datetime | None, now: datetime, policy: Policy) -> Verdict:
    """Whether a redrive is worth it; `last_at` is the time of the latest outcome of this cell."""
    probability = belief.probability_above(policy.worth)
    numbers = (
        f"chance about {belief.mean:.0%} from {belief.trials:.1f} outcomes,"
        f" {probability:.0%} likely to be {policy.worth:.0%} or more"
    )
    if probability >= policy.confidence:
        return Verdict("redrive", numbers)
    if last_at is None or now - last_at >= policy.canary_every:
        return Verdict("canary", f"{numbers}: one canary")
    due = (last_at + policy.canary_every).strftime("%Y-%m-%d %H:%MZ")
    return Verdict("wait", f"{numbers}: stopped, the next canary is due {due}")


def is_hopeless(belief: Belief, successes: int, failures: int, policy: Policy) -> bool:
    """Whether these outcomes of a ramp are a reason to abort it."""
    is_enough = successes + failures >= policy.enough_trials
    return is_enough and belief.after(successes, failures).mean < policy.abort_below


def delay_before(failure_id: str, attempt: int, policy: Policy) -> timedelta:
    """How long a failure waits before its redrive: min(cap, U(base, 3 × the delay before)).

    It is the same for the same failure and attempt, so nothing has to be stored.
    """
    rng = random.Random(failure_id)  # noqa: S311  (spreads load; guards nothing)
    seconds = base = policy.base_delay_seconds
    for _ in range(min(attempt, 50)):
        seconds = min(policy.most_delay_seconds, rng.uniform(base, max(base, 3 * seconds)))
    return timedelta(seconds=seconds)
