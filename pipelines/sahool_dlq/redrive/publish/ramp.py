"""A frozen batch carried out: announced, published, followed, stage by stage.

For each redrive the order is: outbox row `planned` (by the plan), row `published`, the news in the
log, the event itself. So a redrive is recorded before anything can come of it, its news stands in
the log before its outcome, and a run that is killed never publishes an event twice: the next run
waits for the outcomes of rows that are `published`, and calls silence `outcome_unknown`. Only
where the stream still knows the event's id, and drops what it has, it first publishes that again.

Each group of a service ramps by itself: 1, then 10, then all. A stage without any success stops it
and leaves the rest pending; where the outcomes say that redriving is hopeless, the rest is parked.
A batch that somebody pauses or cancels publishes nothing more: the row becomes `published` only
while its batch is running and its failure still waits. Nor does a run that has lost its lock: it
stops before the next publish, and what it has published is followed by whoever took over.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from nats.aio.client import Client
from nats.js.errors import NoStreamResponseError
from psycopg import Connection

from sahool_dlq.errors import NotPermittedError, RedriveError
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.reach import Lookout
from sahool_dlq.jetstream.streams import ADVISORIES, find_streams
from sahool_dlq.redrive.batches import ENDED, Batch, BatchState, find_batch, finish, move
from sahool_dlq.redrive.choose.policy import Belief, Cell, History, is_hopeless, is_transient
from sahool_dlq.redrive.choose.schedule import handled_per_second, learn, policy_of
from sahool_dlq.redrive.lifetime import TooLateError
from sahool_dlq.redrive.origin import ExpiredError, RefusedError
from sahool_dlq.redrive.publish.acks import AckFollower, following_acks
from sahool_dlq.redrive.publish.heard import Mark, Place
from sahool_dlq.redrive.publish.inferred import Advisories, end_of_foreign, why_silent
from sahool_dlq.redrive.publish.late_decisions import DecidedError
from sahool_dlq.redrive.publish.outbox import Outbox, Redrive, load_redrives
from sahool_dlq.redrive.publish.outcomes import OutcomeFollower
from sahool_dlq.redrive.publish.rate_limit import Budget
from sahool_dlq.redrive.publish.sender import Sender, Sent
from sahool_dlq.redrive.publish.sent_acks import SentAcks, listening
from sahool_dlq.redrive.source import OwnCopyError
from sahool_dlq.redrive.steps import Step, plainly
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from sahool_dlq.stores.postgres.lock import Lock

logger = logging.getLogger(__name__)

STAGES = (1, 10, None)
_UNPUBLISHED = ("refused", "expired", "too_late", "unroutable")  # outcomes that say so
_STATES: dict[type[Exception], str] = {
    RefusedError: "refused",
    ExpiredError: "expired",
    TooLateError: "too_late",
}
_UNSENT: tuple[type[Exception], ...] = (NotPermittedError, DecidedError, OwnCopyError, *_STATES)
_SAYING_NOTHING = ("cancelled", "expired", "too_late")  # of their group
_MOST_REASONS = 5  # of one outcome; a subject or a size makes each another


@dataclass(frozen=True, slots=True)
class RedriveReport:
    """How a batch stands after a run, in redrives of that run."""

    batch_id: str
    planned: int
    outcomes: dict[str, int] = field(default_factory=dict)  # by state of the outbox, or held
    stopped_groups: dict[str, str] = field(default_factory=dict)  # group id: why
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)  # of outcomes; the first few
    seconds: float = 0
    state: str = "done"  # of the batch
    parked: int = 0  # of the cancelled ones, those whose failure was parked

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(slots=True)
class Ramp:
    """The redrives of one group and service on their way."""

    redrives: list[Redrive]
    belief: Belief  # before this batch
    turns: asyncio.Lock = field(default_factory=asyncio.Lock)  # so that groups take turns
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    why: str | None = None  # it was stopped
    is_hopeless: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def title(self) -> str:
        """What it is called beside others."""
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
    """Carry out a planned batch, or what a killed or paused run left of it, while `lock` is held.

    Each group's ramp is a step of its own, beside the others; it comes to a `Ramp`.

    A batch that has ended is only reported, once no outcome of what it published is missing; of a
    paused one only what it published is followed. Raises RedriveError where there is no such batch,
    or where it waits for somebody; FencedError where the lock was lost.
    """
    started = time.monotonic()
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        batch = find_batch(connection, batch_id)
        is_out = bool(batch.outcomes.get("published"))
        if batch.state in ENDED and not is_out:
            return RedriveReport(batch.id, batch.planned, batch.outcomes, state=batch.state)
        if batch.state == "awaiting_approval" or (batch.state == "paused" and not is_out):
            verb = "approve" if batch.state == "awaiting_approval" else "resume"
            raise RedriveError(
                f"The batch is {batch.state}: `dlq batches {verb} {batch.id}` lets it go on."
            )
        if batch.state == "planned":
            move(connection, batch.id, "running", actor=batch.requested_by)
        redrives = load_redrives(connection, batch.id)
        foreign = [redrive.addressed_to for redrive in redrives if redrive.is_foreign]
        if batch.state == "paused":
            redrives = [redrive for redrive in redrives if redrive.is_out]
        async with (
            connected(settings.access, "dlq redrive") as client,
            OutcomeFollower(client, settings.subjects) as follower,
            following_acks(client, settings.ack_stream, foreign) as acks,
            listening(client, acks.untold) as sent,
        ):
            run = _Run(settings, client, connection, lock, follower, acks, sent, batch)
            await run.prepare()
            state: BatchState = "running"
            while state == "running":  # again where it was paused, and resumed before it was over
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
    for outcome, reasons in run.reasons.items():
        for reason, count in reasons.items():
            logger.info("%d %s: %s", count, outcome, reason)
    seconds = round(time.monotonic() - started, 3)
    return RedriveReport(
        batch.id, outcomes.total(), dict(outcomes), stopped, run.reasons, seconds, state, run.parked
    )


class _Run:
    """One batch on its way."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        connection: Connection[Any],
        lock: Lock,
        follower: OutcomeFollower,
        acks: AckFollower,
        sent: SentAcks,
        batch: Batch,
    ) -> None:
        self._settings = settings
        self._policy = policy_of(settings)
        self._js = client.jetstream()
        self._connection = connection
        self._lock = lock
        self._follower = follower
        self._acks = acks
        self._sent = sent
        self._batch = batch
        self._outbox = Outbox(connection, batch)
        self._lookout = Lookout(self._js)
        self._sender = Sender(settings, client, connection, batch, self._lookout, lock)
        self._groups: list[Ramp] = []
        self._outcomes: Counter[str] = Counter()
        self._stopped: dict[str, str] = {}  # group id: why
        self.reasons: dict[str, dict[str, int]] = {}
        self.parked = 0  # of the cancelled
        self._halted: str | None = None  # the state into which somebody brought the batch; denied
        self._missing_right: NotPermittedError | None = None

    async def prepare(self) -> None:
        """Find whom to reach, and how fast to go."""
        await self._sender.prepare()
        names = self._settings.stream_names
        holders = await find_streams(self._js, ADVISORIES[0])
        stream = holders[0] if len(holders) == 1 else None
        self._advisories = Advisories(stream or names.advisories, self._settings.bridge_durable)
        rates = {} if self._batch.per_second else handled_per_second(self._connection)
        budgets = {service: self._policy.budget_per_second(rate) for service, rate in rates.items()}
        floor = self._batch.per_second or self._policy.floor_per_second
        self._budget = Budget(self._settings.redrive_per_second, floor, budgets)

    async def all(
        self, redrives: Iterable[Redrive], progress: Progress | None, step: Step
    ) -> tuple[Counter[str], dict[str, str]]:
        """Every group side by side; returns the outcomes, and why groups were stopped.

        Called again with what a pause left behind, it adds to them. Raises NotPermittedError where
        a right is missing; what waits then stays planned, and no attempt is spent.
        """
        self._halted = None
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
        if self._missing_right is not None:
            raise self._missing_right
        for group in self._groups:
            if group.why is not None:
                self._stopped.setdefault(group.redrives[0].group_id, group.why)
        return self._outcomes, self._stopped

    def _belief(self, history: History, redrive: Redrive) -> Belief:
        cell = Cell(redrive.group_id, redrive.error_type, redrive.nth)
        types = self._settings.transient_error_types
        transient = is_transient(redrive.error_type, redrive.error_message, types)
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
        # What a killed run published is followed to its outcome, whatever becomes of the rest.
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
        if rest and group.why is not None:
            logger.warning("%s is stopped, %d are left: %s", group.title, len(rest), group.why)
        for redrive in rest:
            count(await self._left(group, redrive))
        tell()
        return group

    def _judge(self, group: Ramp) -> None:
        """Stop a group of which the outcomes say that it is hopeless."""
        told = group.outcomes["succeeded"], group.outcomes["failed_again"]
        if group.stop.is_set() or not is_hopeless(group.belief, *told, self._policy):
            return
        chance = group.belief.after(*told).mean
        group.why = f"chance about {chance:.0%} after {told[0]} of {sum(told)} succeeded"
        group.is_hopeless = True
        group.stop.set()

    async def _left(self, group: Ramp, redrive: Redrive) -> str:
        """What becomes of a redrive that is not published because something was stopped."""
        if self._halted in ("paused", "denied"):
            return "held"
        if self._halted is None:
            self._lock.check()
            if group.is_hopeless:
                await self._sender.park(redrive, f"redriving its group is hopeless: {group.why}")
                self.parked += 1
            self._outbox.cancel(redrive, group.why)
        return "cancelled"

    def _halt(self, state: str) -> None:
        self._halted = state
        for group in self._groups:
            group.stop.set()

    async def _one(self, group: Ramp, redrive: Redrive) -> str:
        """One redrive from the outbox to its outcome, which is also told to the log."""
        is_elsewhere = self._sender.is_elsewhere(redrive)
        outcome = self._follower.expect(redrive.id, redrive.addressed_to, is_elsewhere=is_elsewhere)
        mark: Mark | None = None
        place, doubt = Sent()
        silent_seconds = redrive.silent_seconds or 0
        try:
            if redrive.is_out and (again := await self._again(redrive)):
                mark, (place, doubt), silent_seconds = *again, 0
            elif not redrive.is_out:
                if why := await self._why_nobody(redrive):
                    return await self._unreached(group, redrive, why)
                async with group.turns:
                    is_turn = await self._budget.turn(redrive.service, group.stop)
                if not is_turn:
                    return await self._left(group, redrive)
                event = await self._sender.event(redrive)
                headers = self._sender.headers(redrive, event)
                if redrive.is_foreign:
                    mark = await self._acks.mark(redrive.addressed_to)
                why = await self._why_nobody(redrive)
                if why := why or await self._sender.why_not_taken(event, headers):
                    return await self._unreached(group, redrive, why)
                self._lock.check()
                if not (before := self._outbox.claim(redrive)):
                    return await self._not_claimed(group, redrive)
                is_parked = before == "parked"
                place, doubt = await self._sender.send(redrive, event, headers, is_parked=is_parked)
            patience = self._settings.redrive_timeout_seconds - silent_seconds
            async with asyncio.timeout(max(patience, 0)):
                if is_elsewhere:
                    return await self._redirected(redrive, outcome)
                if mark is not None and place is not None:
                    return await self._foreign(redrive, place, mark, outcome)
                return await outcome
        except _UNSENT as error:
            return await self._unsent(redrive, error)
        except NoStreamResponseError:
            return await self._ended(redrive, "unroutable", "no stream captures its subject")
        except TimeoutError:
            silence = await self._silence(place, mark, doubt)
            return await self._ended(redrive, "outcome_unknown", silence)
        finally:
            self._follower.forget(redrive.id)

    async def _again(self, redrive: Redrive) -> tuple[Mark | None, Sent] | None:
        """What is known once a killed run's event is out after all; None: that is only followed.

        The stream drops it where the killed run had published it.
        """
        if not self._outbox.is_wanted(redrive) or await self._why_nobody(redrive):
            return None
        try:
            event = await self._sender.event(redrive)
            headers = self._sender.headers(redrive, event)
        except (RefusedError, ExpiredError, TooLateError, OwnCopyError):
            return None
        mark = await self._acks.mark(redrive.addressed_to) if redrive.is_foreign else None
        self._lock.check()
        sent = await self._sender.send_again(redrive, event, headers)
        return (mark, sent) if sent else None

    async def _why_nobody(self, redrive: Redrive) -> str | None:
        """Why nobody would take its event now."""
        if self._sender.is_elsewhere(redrive):
            return self._sender.why_nobody(redrive)
        address, is_patient = redrive.addressed_to, redrive.is_foreign
        return (await self._lookout.reach(address, redrive.subject, is_patient=is_patient)).problem

    async def _unreached(self, group: Ramp, redrive: Redrive, why: str) -> str:
        """Leave a failure as it is: an attempt that reaches nobody says nothing."""
        if self._halted is not None:
            return await self._left(group, redrive)
        # What can never go out is parked, as the plan says: that raises.
        self._sender.headers(redrive, await self._sender.event(redrive))
        self._lock.check()
        self._outbox.cancel(redrive, why)
        self._note("cancelled", why)
        return "cancelled"

    async def _unsent(self, redrive: Redrive, error: Exception) -> str:
        """What becomes of a redrive whose event was not published."""
        match error:
            case NotPermittedError() | DecidedError():
                return self._not_sent(redrive, error)
            case OwnCopyError():
                return await self._left_to_people(redrive, str(error))
            case _:
                return await self._ended(redrive, _STATES[type(error)], str(error))

    def _not_sent(self, redrive: Redrive, error: NotPermittedError | DecidedError) -> str:
        """Nothing was published; nothing more is where a right is missing."""
        if redrive.is_out:
            raise error
        self._lock.check()
        self._outbox.release(redrive)
        if isinstance(error, DecidedError):
            self._outbox.cancel(redrive, str(error))
            self._note("cancelled", str(error))
            return "cancelled"
        self._missing_right = self._missing_right or error
        self._halt("denied")
        return "held"

    async def _left_to_people(self, redrive: Redrive, why: str) -> str:
        """Publish nothing that only a dead letter says, unless a person has agreed to that."""
        self._lock.check()
        if self._batch.trigger == "automatic":  # so that it is not planned again and again
            await self._sender.park(redrive, f"only by hand, with --own-copy: {why}")
            self.parked += 1
        self._outbox.cancel(redrive, why)
        self._note("cancelled", f"{why}; --own-copy publishes what the dead letter holds")
        return "cancelled"

    async def _not_claimed(self, group: Ramp, redrive: Redrive) -> str:
        state = find_batch(self._connection, self._batch.id).state
        if state != "running":
            self._halt(state)
            return await self._left(group, redrive)
        status = self._outbox.status_of(redrive)
        self._outbox.cancel(redrive, f"its failure is {status} meanwhile")
        return "cancelled"

    async def _redirected(self, redrive: Redrive, outcome: "asyncio.Future[str]") -> str:
        """The outcome of a redrive to others than the consumer that failed."""
        result = await outcome
        if result == "succeeded":
            return result
        where = f"redirected to {self._batch.redirect_to}"
        if result == "handled_elsewhere":  # by an older version, which does not speak for others
            return await self._ended(
                redrive, "succeeded", f"{where}, and handled there", "redirected"
            )
        reason = f"{where}, and failed there: that is a failure of its own"
        return await self._ended(redrive, "outcome_unknown", reason)

    async def _foreign(
        self, redrive: Redrive, place: Place, mark: Mark, outcome: "asyncio.Future[str]"
    ) -> str:
        """The outcome of a redrive to a consumer that does not tell of a success."""
        result = await end_of_foreign(
            self._js, self._acks, self._sent, place, mark, self._advisories, outcome
        )
        who, what = redrive.addressed_to, place.sequence
        reasons = {
            "proved": f"proved: the server says that {who} acknowledged {what}",
            "inferred": f"inferred: {who} was heard to acknowledge {what}, and no advisory came",
        }
        if result not in reasons:
            return result
        return await self._ended(redrive, "succeeded", reasons[result])

    async def _silence(self, place: Place | None, mark: Mark | None, doubt: str | None) -> str:
        """What is known of a redrive that nobody answered."""
        said = [f"silent for {self._settings.redrive_timeout_seconds:.0f} s"]
        if mark is not None and mark.is_all_told:
            said.append("and the server told of no acknowledgement")
        if doubt is not None:
            said.append(doubt)
        elif mark is not None and place is not None:
            said += filter(None, [await why_silent(self._js, place, mark)])
        elif mark is not None:
            said.append("its consumer takes it from another stream than the one that stored it")
        return ", ".join(said)

    async def _ended(
        self, redrive: Redrive, state: str, reason: str, name: str | None = None
    ) -> str:
        if state in _UNPUBLISHED:
            self._lock.check()  # else another may publish it right now
        await self._sender.tell(redrive, state, reason, name)
        self._outbox.mark(redrive, state, reason)
        self._note(state, reason)
        return state

    def _note(self, state: str, reason: str) -> None:
        told = self.reasons.setdefault(state, {})
        if reason in told or len(told) < _MOST_REASONS:
            told[reason] = told.get(reason, 0) + 1


def _listed(results: "Counter[str]") -> str:
    return ", ".join(f"{count} {state}" for state, count in results.most_common())


def _first(errors: "ExceptionGroup[Exception]") -> Exception:
    """The first plain exception in a group of groups."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
