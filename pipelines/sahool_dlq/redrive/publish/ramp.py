"""Executes a stored batch: announce, publish, follow, stage by stage.

The order for each redrive is: outbox row `planned` (by the plan), row `published`, the message in
the log, the event itself. So a redrive is recorded before it can have effects, its message is in
the log before its outcome, and a killed run never publishes an event twice: the next run waits for
the outcomes of `published` rows, and records `outcome_unknown` if there is none. Only if the stream
still knows the event's id, and drops duplicates, it first publishes that event again.

Each group of a service ramps separately: 1, then 10, then all. A stage without any success stops
it, and the rest stays pending; if the outcomes show that hardly any of the rest would succeed, it
is parked. A paused or cancelled batch publishes nothing more: a row becomes `published` only while
its batch is running and its failure still waits. A run that has lost its lock stops before the next
publish, and the next owner of the lock follows its published redrives.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from psycopg import Connection

from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.deadletter.replays import REPLAY
from sahool_dlq.errors import RedriveError
from sahool_dlq.redrive.batches import ENDED, Batch, BatchState, find_batch, finish, move
from sahool_dlq.redrive.choose.policy import Belief, Cell, History, is_hopeless
from sahool_dlq.redrive.choose.schedule import handled_per_second, learn, policy_of
from sahool_dlq.redrive.publish.acks import following_acks
from sahool_dlq.redrive.publish.delivery import Delivery, StoppedError
from sahool_dlq.redrive.publish.outbox import Redrive, load_redrives
from sahool_dlq.redrive.publish.outcomes import OutcomeFollower
from sahool_dlq.redrive.publish.rate_limit import Budget
from sahool_dlq.redrive.publish.sent_acks import listening
from sahool_dlq.redrive.steps import Step, plainly
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.lock import Lock

logger = logging.getLogger(__name__)

STAGES = (1, 10, None)
_SAYING_NOTHING = ("cancelled", "expired", "too_late")  # of their group


@dataclass(frozen=True, slots=True)
class RedriveReport:
    """The state of a batch after a run, in redrives of that run."""

    batch_id: str
    kind: str  # of the batch: redrive or replay
    planned: int
    outcomes: dict[str, int] = field(default_factory=dict)  # by state of the outbox, or held
    stopped_groups: dict[str, str] = field(default_factory=dict)  # group id: why
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)  # of outcomes; the first few
    seconds: float = 0
    state: str = "done"  # of the batch
    parked: int = 0  # of the cancelled ones, those whose failure was parked

    @property
    def did(self) -> str:
        """What was done with its events, as the first word of a sentence."""
        return "Replayed" if self.kind == REPLAY else "Redrove"


@dataclass(slots=True)
class Ramp:
    """The redrives of one group and service while they run."""

    redrives: list[Redrive]
    belief: Belief  # before this batch
    turns: asyncio.Lock = field(default_factory=asyncio.Lock)  # so that groups take turns
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    why: str | None = None  # it was stopped
    is_hopeless: bool = False
    parked: int = 0  # of the cancelled ones, those whose failure was parked
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def title(self) -> str:
        """Its name beside other groups."""
        first = self.redrives[0]
        return f"Ramp {first.error_type} in {first.service}"


Progress = Callable[[Counter[str], int], None]
"""Called with the outcomes so far, and the number planned."""


async def run_batch(
    settings: Settings,
    lock: Lock,
    batch_id: str,
    progress: Progress | None = None,
    step: Step = plainly,
) -> RedriveReport:
    """Execute a planned batch, or the rest of a killed or paused run, while `lock` is held.

    The ramp of each group is a separate step, in parallel with the others; its result is a `Ramp`.

    A batch that has ended is only reported, once all published redrives have an outcome; of a
    paused one only published redrives are followed. Raises RedriveError if there is no such batch,
    or if it waits for a person; FencedError if the lock was lost.
    """
    started = time.monotonic()
    with open_postgres(settings) as connection:
        batch = find_batch(connection, batch_id)
        is_out = bool(batch.outcomes.get("published"))
        if batch.state in ENDED and not is_out:
            return RedriveReport(
                batch.id, batch.kind, batch.planned, batch.outcomes, state=batch.state
            )
        if batch.state == "awaiting_approval" or (batch.state == "paused" and not is_out):
            verb = "approve" if batch.state == "awaiting_approval" else "resume"
            raise RedriveError(
                f"The batch is {batch.state}: `dlq batches {verb} {batch.id}` continues it."
            )
        if batch.state == "planned":
            move(connection, batch.id, "running", actor=batch.requested_by)
        redrives = load_redrives(connection, batch.id)
        foreign = [redrive.addressed_to for redrive in redrives if redrive.is_foreign]
        if batch.state == "paused":
            redrives = [redrive for redrive in redrives if redrive.is_out]
        async with (
            open_nats(settings, "dlq redrive") as client,
            OutcomeFollower(client, settings.subjects) as follower,
            following_acks(client, settings.ack_stream, foreign) as acks,
            listening(client, acks.untold) as sent,
        ):
            delivery = Delivery(settings, client, connection, lock, batch, follower, acks, sent)
            await delivery.prepare(settings)
            run = _Run(settings, connection, batch, delivery)
            state: BatchState = "running"
            while state == "running":  # again if it was paused, and resumed before the end
                outcomes, stopped = await run.all(redrives, progress, step)
                lock.check()
                state = finish(
                    connection,
                    batch.id,
                    "aborted" if stopped else "done",
                    actor=batch.requested_by,
                    reason="; ".join(f"{group}: {why}" for group, why in stopped.items()) or None,
                    detail={"failures": outcomes.total(), "outcomes": dict(outcomes)},
                )
                left = load_redrives(connection, batch.id)
                redrives = [redrive for redrive in left if not redrive.is_out]
    for outcome, reasons in delivery.reasons.items():
        for reason, count in reasons.items():
            logger.info("%d %s: %s", count, outcome, reason)
    seconds = round(time.monotonic() - started, 3)
    return RedriveReport(
        batch.id,
        batch.kind,
        outcomes.total(),
        dict(outcomes),
        stopped,
        delivery.reasons,
        seconds,
        state,
        len(delivery.parked),
    )


class _Run:
    """One running batch."""

    def __init__(
        self, settings: Settings, connection: Connection[Any], batch: Batch, delivery: Delivery
    ) -> None:
        self._policy = policy_of(settings)
        self._connection = connection
        self._delivery = delivery
        rates = {} if batch.per_second else handled_per_second(connection)
        budgets = {service: self._policy.budget_per_second(rate) for service, rate in rates.items()}
        floor = batch.per_second or self._policy.floor_per_second
        self._budget = Budget(settings.redrive_per_second, floor, budgets)
        self._groups: list[Ramp] = []
        self._outcomes: Counter[str] = Counter()
        self._stopped: dict[str, str] = {}  # group id: why

    async def all(
        self, redrives: Iterable[Redrive], progress: Progress | None, step: Step
    ) -> tuple[Counter[str], dict[str, str]]:
        """All groups in parallel; returns the outcomes, and why groups were stopped.

        A second call, after a pause, adds to them. Raises NotPermittedError if a right is missing;
        waiting redrives then stay planned, and no attempt is used up.
        """
        self._delivery.halted = None
        planned = self._outcomes.total() - self._outcomes.pop("held", 0)
        history = learn(self._connection, datetime.now(UTC), self._policy)
        rows: dict[tuple[str, str], list[Redrive]] = {}
        for redrive in redrives:
            rows.setdefault((redrive.group_id, redrive.service), []).append(redrive)
        self._groups = [Ramp(group, self._belief(history, group[0])) for group in rows.values()]
        planned += sum(len(group) for group in rows.values())

        def tell() -> None:
            if progress is not None:
                progress(self._outcomes, planned)

        try:
            async with asyncio.TaskGroup() as tasks:
                for group in self._groups:
                    tasks.create_task(step(group.title, partial(self._ramp, group, tell)))
        except ExceptionGroup as errors:
            raise _first(errors) from errors
        if self._delivery.missing_right is not None:
            raise self._delivery.missing_right
        for group in self._groups:
            if group.why is not None:
                self._stopped.setdefault(group.redrives[0].group_id, group.why)
        return self._outcomes, self._stopped

    def _belief(self, history: History, redrive: Redrive) -> Belief:
        cell = Cell(redrive.group_id, redrive.error_type, redrive.nth)
        transient = self._policy.is_transient(redrive.error_type, redrive.error_message)
        return history.belief(cell, datetime.now(UTC), transient=transient)

    async def _ramp(self, group: Ramp, tell: Callable[[], None]) -> Ramp:
        async def one(redrive: Redrive) -> str:
            state = await self._one(group, redrive)
            count(state)
            self._judge(group)
            tell()
            return state

        def count(state: str) -> None:
            group.outcomes[state] += 1
            self._outcomes[state] += 1

        rest = group.redrives
        out = sum(redrive.is_out for redrive in rest)  # they come first
        # Redrives of a killed run are followed to their outcome, whatever happens to the rest.
        for size in (out, *STAGES) if out else STAGES:
            results: Counter[str] = Counter()
            while rest and not group.stop.is_set() and not results:
                stage, rest = rest[:size], rest[size:] if size else []
                results.update(await asyncio.gather(*(one(redrive) for redrive in stage)))
                for state in _SAYING_NOTHING:
                    del results[state]
            logger.info("%s: %s, %d to go", group.title, _listed(group.outcomes), len(rest))
            if not rest or group.stop.is_set():
                break
            if results and not results["succeeded"]:
                group.why = f"none of {results.total()} succeeded: {_listed(results)}"
                group.stop.set()
                break
        if rest and group.why is not None:
            logger.warning(
                "%s is stopped, %d are not published: %s", group.title, len(rest), group.why
            )
        for redrive in rest:
            count(await self._left(group, redrive))
        group.parked = sum(each.id in self._delivery.parked for each in group.redrives)
        tell()
        return group

    def _judge(self, group: Ramp) -> None:
        """Stop a group if its outcomes show that hardly any of the rest would succeed."""
        told = group.outcomes["succeeded"], group.outcomes["failed_again"]
        if group.stop.is_set() or not is_hopeless(group.belief, *told, self._policy):
            return
        chance = group.belief.after(*told).mean
        group.why = (
            f"{told[0]} of {sum(told)} redrives succeeded, so about {chance:.0%} of the rest would"
        )
        group.is_hopeless = True
        group.stop.set()

    async def _one(self, group: Ramp, redrive: Redrive) -> str:
        async def turn() -> bool:
            async with group.turns:
                return await self._budget.turn(redrive.service, group.stop)

        try:
            return await self._delivery.outcome(redrive, turn)
        except StoppedError:
            if self._delivery.halted is not None:
                for each in self._groups:
                    each.stop.set()
            return await self._left(group, redrive)

    async def _left(self, group: Ramp, redrive: Redrive) -> str:
        return await self._delivery.left(redrive, group.why, is_hopeless=group.is_hopeless)


def _listed(results: "Counter[str]") -> str:
    return ", ".join(f"{count} {state}" for state, count in results.most_common())


def _first(errors: "ExceptionGroup[Exception]") -> Exception:
    """The first plain exception in a group of groups."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
