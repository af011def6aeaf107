"""A world in which the chance of every redrive is known, to see what a policy does in it.

Services handle events and fail on some; a scheduler redrives every quarter of an hour, with the
decisions that the real one makes (`judge`, the ramp's stages, `is_hopeless`, the budget, delays).
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sahool_dlq.redrive.choose.policy import (
    Cell,
    History,
    Policy,
    delay_before,
    is_hopeless,
    judge,
)
from sahool_dlq.redrive.publish.ramp import STAGES

START = datetime(2026, 3, 1, tzinfo=UTC)
STEP = timedelta(minutes=15)
CAP = 3


@dataclass(frozen=True)
class Group:
    """Similar failures: how many per minute, and the chance that a redrive succeeds."""

    name: str
    error_type: str
    per_minute: Callable[[float], float]  # hours since the start to failures
    chance: Callable[[float], float]
    handled_per_second: float = 2.0  # by its service


@dataclass
class Tally:
    """The results."""

    redrives: int = 0
    recovered: int = 0
    failures: int = 0
    squares: float = 0.0  # (said chance - outcome)²
    square_of_one_rate: float = 0.0  # of saying the success rate so far
    by_group: Counter[str] = field(default_factory=Counter)  # redrives
    by_minute: Counter[tuple[str, int]] = field(default_factory=Counter)  # redrives

    def add(self, group: Group, at: datetime, said: float, is_success: bool) -> None:
        self.square_of_one_rate += ((self.recovered + 1) / (self.redrives + 2) - is_success) ** 2
        self.squares += (said - is_success) ** 2
        self.redrives += 1
        self.recovered += is_success
        self.by_group[group.name] += 1
        self.by_minute[group.name, int((at - START) / timedelta(minutes=1))] += 1

    @property
    def redrives_per_recovered(self) -> float:
        return self.redrives / self.recovered


@dataclass
class Failure:
    id: str
    rests_until: datetime
    attempt: int = 1


def hours(at: datetime) -> float:
    return (at - START) / timedelta(hours=1)


def arrivals(group: Group, run: int, rng: random.Random) -> list[tuple[str, datetime]]:
    """The failures of the quarter of an hour before a run."""
    found = []
    for minute in range(15):
        at = START + run * STEP - timedelta(minutes=15 - minute)
        expected = group.per_minute(hours(at)) if at >= START else 0
        count = int(expected) + (rng.random() < expected % 1)
        found += [(f"{group.name}-{run}-{minute}-{n}", at) for n in range(count)]
    return found


def always_three(groups: list[Group], runs: int, seed: int) -> Tally:
    """Every failure is redriven in every run, at most three times."""
    rng, tally = random.Random(seed), Tally()
    open_: dict[str, list[Failure]] = defaultdict(list)
    for run in range(runs):
        now = START + run * STEP
        for group in groups:
            for name, at in arrivals(group, run, rng):
                open_[group.name].append(Failure(name, at))
                tally.failures += 1
            left = []
            for failure in open_[group.name]:
                is_success = rng.random() < group.chance(hours(now))
                tally.add(group, now, 1.0, is_success)
                failure.attempt += 1
                if not is_success and failure.attempt <= CAP:
                    left.append(failure)
            open_[group.name] = left
    return tally


def by_policy(groups: list[Group], runs: int, seed: int, policy: Policy) -> Tally:
    """The decisions of the scheduled redrive."""
    rng, tally, history = random.Random(seed), Tally(), History(policy)
    open_: dict[str, dict[str, Failure]] = defaultdict(dict)
    for run in range(runs):
        now = START + run * STEP
        for group in groups:
            for name, at in arrivals(group, run, rng):
                rests = at + delay_before(name, 1, policy)
                open_[group.name][name] = Failure(name, rests)
                tally.failures += 1
            _one_run(group, open_[group.name], now, policy, history, tally, rng)
    return tally


def _one_run(
    group: Group,
    open_: dict[str, Failure],
    now: datetime,
    policy: Policy,
    history: History,
    tally: Tally,
    rng: random.Random,
) -> None:
    transient = policy.is_transient(group.error_type, "")
    chosen: list[Failure] = []
    for attempt in range(1, CAP + 1):
        cell = Cell(group.name, group.error_type, attempt)
        belief = history.belief(cell, now, transient=transient)
        verdict = judge(belief, history.last_at(cell), now, policy)
        pending = [failure for failure in open_.values() if failure.attempt == attempt]
        if verdict.kind == "redrive":
            chosen += [f for f in pending if f.rests_until <= now]
        elif verdict.kind == "canary":
            chosen += pending[:1]
    chosen.sort(key=lambda failure: failure.rests_until)
    if not chosen:
        return
    before = history.belief(
        Cell(group.name, group.error_type, chosen[0].attempt), now, transient=transient
    )
    per_second = policy.budget_per_second(group.handled_per_second)
    told: Counter[bool] = Counter()
    sent, rest, clock = [], chosen, now
    for size in STAGES:
        stage, rest = rest[:size], rest[size:] if size else []
        results: Counter[bool] = Counter()
        for failure in stage:
            if clock >= now + STEP or is_hopeless(before, told[True], told[False], policy):
                break
            cell = Cell(group.name, group.error_type, failure.attempt)
            said = history.belief(cell, clock, transient=transient).mean
            is_success = rng.random() < group.chance(hours(clock))
            tally.add(group, clock, said, is_success)
            history.add(cell, int(is_success), int(not is_success), clock)
            results[is_success] += 1
            told[is_success] += 1
            sent.append((failure, is_success))
            clock += timedelta(seconds=1 / per_second)
        if not results[True]:
            break
    for failure, is_success in sent:
        failure.attempt += 1
        failure.rests_until = clock + delay_before(failure.id, failure.attempt, policy)
        if is_success or failure.attempt > CAP:
            del open_[failure.id]
