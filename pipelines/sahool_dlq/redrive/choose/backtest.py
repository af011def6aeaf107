"""What a policy would have done with past redrives: pure, on stored outcomes."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sahool_dlq.redrive.choose.policy import Cell, History, Policy, judge

__all__ = ["BacktestReport", "Outcome", "backtest"]


class Outcome(NamedTuple):
    """One redrive that ended."""

    failure_id: str
    cell: Cell
    is_success: bool
    published_at: datetime
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class BacktestReport:
    """The decisions of a policy about past redrives, beside their outcomes.

    Outcomes are known only for redrives that were published. So these are redrives that the policy
    would have skipped or kept, not ones that it would have added.
    """

    redrives: int  # that ended with a success or a failure
    successes: int
    taken: int  # that it would have published, canaries included
    canaries: int
    successes_taken: int
    failures_spared: int
    successes_missed: int
    brier: float | None  # mean square error of its chances, 0 is best
    brier_of_one_rate: float | None  # the same for always predicting the success rate so far
    brier_of_always: float | None  # the same for always predicting success
    redrives_per_success: float | None  # of those it takes
    redrives_per_success_before: float | None  # of all
    groups_stopped: tuple[str, ...]  # for which it took only canaries in the end


def backtest(outcomes: Iterable[Outcome], policy: Policy) -> BacktestReport:
    """Replay redrives in the order of publishing; each is judged by those before.

    An outcome is known from the time when it came, and the policy learns only from redrives that it
    takes.
    """
    rows = sorted(outcomes, key=lambda outcome: (outcome.published_at, outcome.failure_id))
    history = History(policy)
    waiting: list[tuple[datetime, int, Outcome]] = []  # a heap, by when they are known
    last: dict[Cell, datetime] = {}
    stopped: dict[str, bool] = {}
    taken = canaries = good = 0
    errors = always = rate_errors = 0.0
    seen = seen_good = 0
    for row in rows:
        now = row.published_at
        _learn(history, waiting, now)
        transient = policy.is_transient(row.cell.error_type, "")
        belief = history.belief(row.cell, now, transient=transient)
        verdict = judge(belief, last.get(row.cell.learned()), now, policy)
        errors += (belief.mean - row.is_success) ** 2
        always += (1 - row.is_success) ** 2
        rate_errors += ((seen_good + 1) / (seen + 2) - row.is_success) ** 2
        seen, seen_good = seen + 1, seen_good + row.is_success
        stopped[row.cell.group_id] = verdict.kind != "redrive"
        if verdict.kind == "wait":
            continue
        taken += 1
        canaries += verdict.kind == "canary"
        good += row.is_success
        last[row.cell.learned()] = now
        heapq.heappush(waiting, (row.ended_at, seen, row))
    successes = sum(row.is_success for row in rows)
    return BacktestReport(
        redrives=len(rows),
        successes=successes,
        taken=taken,
        canaries=canaries,
        successes_taken=good,
        failures_spared=(len(rows) - successes) - (taken - good),
        successes_missed=successes - good,
        brier=_share(errors, len(rows)),
        brier_of_one_rate=_share(rate_errors, len(rows)),
        brier_of_always=_share(always, len(rows)),
        redrives_per_success=_share(taken, good),
        redrives_per_success_before=_share(len(rows), successes),
        groups_stopped=tuple(sorted(group for group, is_over in stopped.items() if is_over)),
    )


def _learn(history: History, waiting: list[tuple[datetime, int, Outcome]], now: datetime) -> None:
    """Add the outcomes that are known by now."""
    while waiting and waiting[0][0] <= now:
        _, _, outcome = heapq.heappop(waiting)
        good = int(outcome.is_success)
        history.add(outcome.cell, good, 1 - good, outcome.ended_at)


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
