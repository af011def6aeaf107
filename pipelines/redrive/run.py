"""A frozen batch carried out: announced, published, followed, stage by stage.

For each redrive the order is: outbox row `planned` (by the plan), row `published`, the news in the
log, the event itself. So a redrive is recorded before anything can come of it, its news stands in
the log before its outcome, and a run that is killed never publishes an event twice: the next run
only waits for the outcomes of rows that are `published`, and calls silence `outcome_unknown`.

Each group of a service ramps by itself: 1, then 10, then all. A stage without any success stops it
and leaves the rest pending; where the outcomes say that redriving is hopeless, the rest is parked.
A batch that somebody pauses or cancels publishes nothing more: the row becomes `published` only
while its batch is running and its failure still waits.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import APIError, NoStreamResponseError
from psycopg import Connection

from pipelines.deadletter.envelope import encode_case_event
from pipelines.deadletter.record import BRIDGED_REASONS
from pipelines.errors import RedriveError, ServerUnavailableError
from pipelines.jetstream.connection import connected
from pipelines.jetstream.consumers import consumers_of
from pipelines.jetstream.reader import LogReader, log_state
from pipelines.jetstream.streams import ADVISORIES, find_stream
from pipelines.redrive.batches import ENDED, Batch, find_batch, finish, move
from pipelines.redrive.edit import patched
from pipelines.redrive.inferred import Place, inferred_success
from pipelines.redrive.origin import (
    Event,
    ExpiredError,
    RefusedError,
    check_subject,
    original_event,
    stored_dead_letter,
)
from pipelines.redrive.outcomes import OutcomeFollower
from pipelines.redrive.pace import Budget
from pipelines.redrive.policy import Belief, Cell, History, is_hopeless, is_transient
from pipelines.redrive.schedule import handled_per_second, learn, policy_of
from pipelines.redrive.selection import SERVICE
from pipelines.settings import Settings
from pipelines.stores.database import database

logger = logging.getLogger(__name__)

STAGES = (1, 10, None)


@dataclass(frozen=True, slots=True)
class RedriveReport:
    """How a batch stands after a run, in redrives of that run."""

    batch_id: str
    planned: int
    outcomes: dict[str, int] = field(default_factory=dict)  # by state of the outbox, or held
    stopped_groups: dict[str, str] = field(default_factory=dict)  # group id: why
    seconds: float = 0
    state: str = "done"  # of the batch

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Redrive:
    id: str
    failure_id: str
    attempt: int
    group_id: str
    addressed_to: str | None
    dlq_sequence: int | None
    dead_lettered_at: datetime | None  # the server's time of the dead letter
    silent_seconds: float | None  # since a killed run published it; None where none has
    is_foreign: bool  # the consumer that failed has no code of ours: nobody tells of a success
    service: str
    error_type: str
    error_message: str


@dataclass(slots=True)
class _Group:
    """The redrives of one group and service on their ramp."""

    redrives: list[_Redrive]
    belief: Belief  # before this batch
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    why: str | None = None  # it was stopped
    is_hopeless: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)


Progress = Callable[[Counter[str], int], None]
"""Called with the outcomes so far, and the number planned."""


async def run_batch(
    settings: Settings, batch_id: str, progress: Progress | None = None
) -> RedriveReport:
    """Carry out a planned batch, or what a killed or paused run left of it.

    A batch that has ended meanwhile is only reported. Raises RedriveError where there is no such
    batch, or where it waits for somebody.
    """
    started = time.monotonic()
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        batch = find_batch(connection, batch_id)
        if batch.state in ENDED:
            return RedriveReport(batch.id, batch.planned, batch.outcomes, state=batch.state)
        if batch.state in ("awaiting_approval", "paused"):
            verb = "approve" if batch.state == "awaiting_approval" else "resume"
            raise RedriveError(
                f"The batch is {batch.state}: `dlq batches {verb} {batch.id}` lets it go on."
            )
        if batch.state == "planned":
            move(connection, batch.id, "running", actor=batch.requested_by)
        redrives = _load(connection, batch.id)
        async with (
            connected(settings.nats_url, settings.nats_creds, "dlq redrive") as client,
            OutcomeFollower(client, settings.subjects) as follower,
        ):
            run = _Run(settings, client, connection, follower, batch)
            await run.prepare()
            outcomes, stopped = await run.all(redrives, progress)
        reason = "; ".join(f"{group}: {why}" for group, why in stopped.items()) or None
        state = finish(
            connection,
            batch.id,
            "aborted" if stopped else "done",
            actor=batch.requested_by,
            reason=reason,
            detail={"failures": len(redrives), "outcomes": dict(outcomes)},
        )
    seconds = round(time.monotonic() - started, 3)
    return RedriveReport(batch.id, len(redrives), dict(outcomes), stopped, seconds, state)


async def allowed_subjects(js: JetStreamContext, settings: Settings) -> list[str]:
    """Filters of what a redrive may publish to: as set, else the subjects of the event stream."""
    if settings.redrive_subjects:
        return settings.redrive_subjects
    try:
        info = await js.stream_info(settings.events_stream)
    except APIError:
        return list(settings.subjects.events)
    return list(info.config.subjects or settings.subjects.events)


class _Run:
    """One batch on its way."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        connection: Connection[Any],
        follower: OutcomeFollower,
        batch: Batch,
    ) -> None:
        self._settings = settings
        self._policy = policy_of(settings)
        self._js = client.jetstream()
        self._client = client
        self._connection = connection
        self._follower = follower
        self._batch = batch
        self._groups: list[_Group] = []
        self._halted: str | None = None  # the state into which somebody brought the batch

    async def prepare(self) -> None:
        """Find the stream that holds the raw bytes, whom to reach, and how fast to go."""
        subjects, batch = self._settings.subjects, self._batch
        state = await log_state(self._client, self._settings.dlq_stream, subjects.log)
        self._reader = LogReader(self._client, state.stream, subjects.log)
        names = self._settings.stream_names
        self._advisory_stream = await find_stream(self._js, ADVISORIES[0]) or names.advisories
        self._allowed = await allowed_subjects(self._js, self._settings)
        self._receivers = (
            set(await consumers_of(self._js, batch.redirect_to)) if batch.redirect_to else None
        )
        rates = {} if batch.per_second else handled_per_second(self._connection)
        budgets = {service: self._policy.budget_per_second(rate) for service, rate in rates.items()}
        floor = batch.per_second or self._policy.floor_per_second
        self._budget = Budget(self._settings.redrive_per_second, floor, budgets)

    async def all(
        self, redrives: Iterable[_Redrive], progress: Progress | None
    ) -> tuple[Counter[str], dict[str, str]]:
        """Every group side by side; returns the outcomes, and why groups were stopped."""
        history = learn(self._connection, datetime.now(UTC), self._policy)
        rows: dict[tuple[str, str], list[_Redrive]] = {}
        for redrive in redrives:
            rows.setdefault((redrive.group_id, redrive.service), []).append(redrive)
        self._groups = [_Group(group, self._belief(history, group[0])) for group in rows.values()]
        planned = sum(len(group) for group in rows.values())

        def tell() -> None:
            if progress is not None:
                progress(self._outcomes(), planned)

        try:
            async with asyncio.TaskGroup() as tasks:
                for group in self._groups:
                    tasks.create_task(self._ramp(group, tell))
        except ExceptionGroup as errors:
            raise _first(errors) from errors
        stopped: dict[str, str] = {}
        for group in self._groups:
            if group.why is not None:
                stopped.setdefault(group.redrives[0].group_id, group.why)
        return self._outcomes(), stopped

    def _outcomes(self) -> Counter[str]:
        return sum((group.outcomes for group in self._groups), Counter())

    def _belief(self, history: History, redrive: _Redrive) -> Belief:
        cell = Cell(redrive.group_id, redrive.error_type, redrive.attempt)
        types = self._settings.transient_error_types
        transient = is_transient(redrive.error_type, redrive.error_message, types)
        return history.belief(cell, datetime.now(UTC), transient=transient)

    async def _ramp(self, group: _Group, tell: Callable[[], None]) -> None:
        async def one(redrive: _Redrive) -> str:
            state = await self._one(group, redrive)
            group.outcomes[state] += 1
            self._judge(group)
            tell()
            return state

        rest = group.redrives
        for size in STAGES:
            results: Counter[str] = Counter()
            while rest and not group.stop.is_set() and not results:
                stage, rest = rest[:size], rest[size:] if size else []
                results.update(await asyncio.gather(*(one(redrive) for redrive in stage)))
                del results["cancelled"]  # it was closed or parked meanwhile: it says nothing
            if rest and results and not results["succeeded"] and not group.stop.is_set():
                group.why = f"none of {results.total()} succeeded: {_listed(results)}"
                group.stop.set()
        for redrive in rest:
            group.outcomes[await self._left(group, redrive)] += 1
        tell()

    def _judge(self, group: _Group) -> None:
        """Stop a group of which the outcomes say that it is hopeless."""
        told = group.outcomes["succeeded"], group.outcomes["failed_again"]
        if group.stop.is_set() or not is_hopeless(group.belief, *told, self._policy):
            return
        chance = group.belief.after(*told).mean
        group.why = f"chance about {chance:.0%} after {told[0]} of {sum(told)} succeeded"
        group.is_hopeless = True
        group.stop.set()

    async def _left(self, group: _Group, redrive: _Redrive) -> str:
        """What becomes of a redrive that is not published because something was stopped."""
        if self._halted == "paused":
            return "held"
        if self._halted is None:
            if group.is_hopeless:
                await self._park(redrive, f"redriving its group is hopeless: {group.why}")
            self._mark(redrive, "cancelled", group.why)
        return "cancelled"

    def _halt(self, state: str) -> None:
        self._halted = state
        for group in self._groups:
            group.stop.set()

    async def _one(self, group: _Group, redrive: _Redrive) -> str:
        """One redrive from the outbox to its outcome, which is also told to the log."""
        outcome = self._follower.expect(redrive.id)
        try:
            place = None
            if redrive.silent_seconds is None:
                if not await self._budget.turn(redrive.service, group.stop):
                    return await self._left(group, redrive)
                event = await self._event(redrive)
                headers = self._headers(redrive, event)
                if not self._claim(redrive):
                    return await self._not_claimed(group, redrive)
                place = await self._send(redrive, event, headers)
            patience = self._settings.redrive_timeout_seconds - (redrive.silent_seconds or 0)
            async with asyncio.timeout(max(patience, 0)):
                if self._is_elsewhere(redrive):
                    return await self._redirected(redrive, outcome)
                if redrive.is_foreign and place is not None:
                    return await self._inferred(redrive, place, outcome)
                return await outcome
        except RefusedError as error:
            return await self._ended(redrive, "refused", str(error))
        except ExpiredError as error:
            return await self._ended(redrive, "expired", str(error))
        except NoStreamResponseError:
            return await self._ended(redrive, "unroutable", "no stream captures its subject")
        except TimeoutError:
            seconds = self._settings.redrive_timeout_seconds
            return await self._ended(redrive, "outcome_unknown", f"silent for {seconds:.0f} s")
        finally:
            self._follower.forget(redrive.id)

    def _claim(self, redrive: _Redrive) -> bool:
        """Take a redrive out of the outbox, if its batch still runs and its failure still waits."""
        statuses = (
            ["pending", "parked"] if self._batch.selection.get("failure_ids") else ["pending"]
        )
        claimed = self._connection.execute(
            "UPDATE redrives r SET state = 'published', published_at = now()"
            " FROM redrive_batches b, failed_events f WHERE r.id = %s AND r.state = 'planned'"
            " AND r.batch_id = %s AND b.id = r.batch_id AND b.state = 'running'"
            " AND f.id = r.failure_id AND f.status = ANY(%s) RETURNING r.id",
            [redrive.id, self._batch.id, statuses],
        ).fetchone()
        return claimed is not None

    async def _not_claimed(self, group: _Group, redrive: _Redrive) -> str:
        state = find_batch(self._connection, self._batch.id).state
        if state != "running":
            self._halt(state)
            return await self._left(group, redrive)
        row = self._connection.execute(
            "SELECT status FROM failed_events WHERE id = %s", [redrive.failure_id]
        ).fetchone()
        self._mark(redrive, "cancelled", f"its failure is {row[0] if row else 'gone'} meanwhile")
        return "cancelled"

    def _is_elsewhere(self, redrive: _Redrive) -> bool:
        """Whether it goes where the consumer that failed does not listen."""
        return self._receivers is not None and redrive.addressed_to not in self._receivers

    async def _redirected(self, redrive: _Redrive, outcome: "asyncio.Future[str]") -> str:
        """The outcome of a redrive to others than the consumer that failed; they do not speak for
        its failure, so it is told here."""
        result = await outcome
        where = f"redirected to {self._batch.redirect_to}"
        if result == "succeeded":
            return await self._ended(
                redrive, "succeeded", f"{where}, and handled there", "redirected"
            )
        reason = f"{where}, and failed there: that is a failure of its own"
        return await self._ended(redrive, "outcome_unknown", reason)

    async def _inferred(
        self, redrive: _Redrive, place: Place, outcome: "asyncio.Future[str]"
    ) -> str:
        """The outcome of a redrive to a consumer that does not tell of a success."""
        bridge = (self._advisory_stream, self._settings.bridge_durable)
        result = await inferred_success(self._js, place, bridge, outcome)
        if result != "succeeded":
            return result
        reason = (
            f"inferred: {redrive.addressed_to} acknowledged up to {place.sequence}, and no advisory"
            " came"
        )
        return await self._ended(redrive, "succeeded", reason)

    async def _send(self, redrive: _Redrive, event: Event, headers: dict[str, str]) -> Place | None:
        """Publish; returns where the event stands then, where its consumer is known."""
        await self._tell(redrive, "published", None)
        ack = await self._until_known(event, headers)
        consumer = (redrive.addressed_to or "").partition("/")[2]
        return Place(ack.stream, ack.seq, consumer) if consumer else None

    async def _event(self, redrive: _Redrive) -> Event:
        message = await stored_dead_letter(
            self._reader,
            self._connection,
            redrive.failure_id,
            redrive.dlq_sequence,
            redrive.dead_lettered_at,
        )
        event = await original_event(self._js, message)
        if self._batch.patch:
            event = replace(event, body=patched(event.body, self._batch.patch))
        if self._batch.redirect_to:
            event = replace(event, subject=self._batch.redirect_to)
        check_subject(event.subject, self._allowed, self._settings.subjects)
        return event

    def _headers(self, redrive: _Redrive, event: Event) -> dict[str, str]:
        headers = event.headers | {
            "Nats-Msg-Id": redrive.id,
            "Dlq-Redrive-Id": redrive.id,
            "Dlq-Redrive-Of": redrive.failure_id,
            "Dlq-Redrive-Attempt": str(redrive.attempt),
        }
        if redrive.addressed_to and not self._is_elsewhere(redrive):
            headers["Dlq-Redrive-For"] = redrive.addressed_to
        lines = (len(k.encode()) + len(v.encode()) + 4 for k, v in headers.items())
        size = len(event.body) + sum(lines) + 100
        if size > self._client.max_payload:  # the server would drop the connection
            raise RefusedError(f"with its headers it has {size} bytes, more than the server takes")
        return headers

    async def _until_known(self, event: Event, headers: dict[str, str]) -> PubAck:
        """Publish; a publish that timed out may have landed, so it is repeated under its id."""
        for pause in (0.2, 1.0, 3.0):
            try:
                return await self._js.publish(event.subject, event.body, headers=headers, timeout=5)
            except NoStreamResponseError:
                raise
            except (nats.errors.TimeoutError, nats.errors.NoServersError) as error:
                logger.warning("Publishing to %s: %r, trying again", event.subject, error)
                await asyncio.sleep(pause)
            except (nats.errors.Error, APIError) as error:
                raise RefusedError(f"the server refused it: {error}") from error
        raise ServerUnavailableError(
            f"NATS does not acknowledge what is published to {event.subject}: the batch stays"
            " running, and the next run takes it up."
        )

    async def _ended(
        self, redrive: _Redrive, state: str, reason: str, name: str | None = None
    ) -> str:
        await self._tell(redrive, state, reason, name)
        self._mark(redrive, state, reason)
        return state

    async def _tell(
        self, redrive: _Redrive, kind: str, reason: str | None, name: str | None = None
    ) -> None:
        """Tell the log; `name` is what its message is called where others tell the same."""
        body = encode_case_event(
            failure_id=redrive.failure_id,
            redrive_id=redrive.id,
            batch_id=self._batch.id,
            attempt=redrive.attempt,
            trigger=self._batch.trigger,
            consumer=redrive.addressed_to,
            actor=self._batch.requested_by,
            reason=reason,
            at=datetime.now(UTC),
        )
        subject = self._settings.subjects.redrive(kind)
        await self._publish(subject, body, f"{redrive.id}-{name or kind}")

    async def _park(self, redrive: _Redrive, reason: str) -> None:
        body = encode_case_event(
            failure_id=redrive.failure_id,
            batch_id=self._batch.id,
            actor=self._batch.requested_by,
            reason=reason,
            at=datetime.now(UTC),
        )
        subject = self._settings.subjects.triage("parked")
        await self._publish(subject, body, f"{redrive.id}-parked")

    async def _publish(self, subject: str, body: bytes, message_id: str) -> None:
        headers = {"Nats-Msg-Id": message_id}
        try:
            await self._js.publish(subject, body, headers=headers, timeout=5)
        except (nats.errors.Error, APIError) as error:
            raise ServerUnavailableError(
                f"The log can not be written ({error!r}): the batch stays running, and the next"
                " run takes it up."
            ) from error

    def _mark(self, redrive: _Redrive, state: str, reason: str | None) -> None:
        self._connection.execute(
            "UPDATE redrives SET state = %s, state_reason = %s, ended_at = now()"
            " WHERE id = %s AND batch_id = %s AND state IN ('planned', 'published')",
            [state, reason, redrive.id, self._batch.id],
        )


def _listed(results: "Counter[str]") -> str:
    return ", ".join(f"{count} {state}" for state, count in results.most_common())


def _first(errors: "ExceptionGroup[Exception]") -> Exception:
    """The first plain exception in a group of groups."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _load(connection: Connection[Any], batch_id: str) -> list[_Redrive]:
    rows = connection.execute(
        "SELECT r.id::text, r.failure_id::text, r.attempt, coalesce(r.group_id, ''),"  # noqa: S608
        " r.addressed_to, f.dlq_sequence, f.published_at,"
        " CASE WHEN r.state = 'published' THEN extract(epoch FROM now() - r.published_at)::float8"
        f" END, f.dlq_reason = ANY(%s), {SERVICE}, f.error_type, left(f.error_message, 500)"
        " FROM redrives r JOIN failed_events f ON f.id = r.failure_id"
        " WHERE r.batch_id = %s AND r.state IN ('planned', 'published')"
        " ORDER BY (r.state = 'planned'), f.dlq_timestamp, r.id",
        [list(BRIDGED_REASONS), batch_id],
    )
    return [_Redrive(*row) for row in rows]
