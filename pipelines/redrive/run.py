"""A frozen batch carried out: announced, published, followed, stage by stage.

For each redrive the order is: outbox row `planned` (by the plan), row `published`, the news in the
log, the event itself. So a redrive is recorded before anything can come of it, its news stands in
the log before its outcome, and a run that is killed never publishes an event twice: the next run
only waits for the outcomes of rows that are `published`, and calls silence `outcome_unknown`.

Each group ramps by itself: 1, then 10, then all. A stage without any success stops its group.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.api import PubAck
from nats.js.errors import APIError, NoStreamResponseError
from psycopg import Connection

from pipelines.deadletter.envelope import encode_case_event
from pipelines.deadletter.record import BRIDGED_REASONS
from pipelines.deadletter.subjects import Subjects
from pipelines.errors import RedriveError, ServerUnavailableError
from pipelines.jetstream.connection import connected
from pipelines.jetstream.reader import LogReader, log_state
from pipelines.jetstream.streams import ADVISORIES, find_stream
from pipelines.redrive.inferred import Place, inferred_success
from pipelines.redrive.origin import (
    Event,
    ExpiredError,
    RefusedError,
    check_subject,
    original_event,
)
from pipelines.redrive.outcomes import OutcomeFollower
from pipelines.settings import Settings
from pipelines.stores.database import database
from pipelines.stores.failed_payloads import kept_payload
from pipelines.tracing import send_span

logger = logging.getLogger(__name__)

STAGES = (1, 10, None)


@dataclass(frozen=True, slots=True)
class RedriveReport:
    """How a batch ended, in redrives."""

    batch_id: str
    planned: int
    outcomes: dict[str, int] = field(default_factory=dict)  # by state of the outbox
    stopped_groups: dict[str, str] = field(default_factory=dict)  # group id: why
    seconds: float = 0

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


Progress = Callable[[Counter[str], int], None]
"""Called with the outcomes so far, and the number planned."""


async def run_batch(
    settings: Settings, batch_id: str, progress: Progress | None = None
) -> RedriveReport:
    """Carry out a planned batch, or what a killed run left of it.

    Raises RedriveError where there is no such batch, or where it has ended.
    """
    started = time.monotonic()
    async with connected(settings.nats_url, settings.nats_creds, "dlq redrive") as client:
        with database(settings.postgres_dsn.get_secret_value()) as connection:
            trigger, actor = _take(connection, batch_id)
            redrives = _load(connection, batch_id)
            async with OutcomeFollower(client, settings.subjects) as follower:
                run = _Run(settings, client, connection, follower, batch_id, trigger, actor)
                await run.prepare()
                outcomes, stopped = await run.all(redrives, progress)
            _end(connection, batch_id, stopped)
    return RedriveReport(
        batch_id,
        len(redrives),
        dict(outcomes),
        stopped,
        round(time.monotonic() - started, 3),
    )


def unfinished_batches(connection: Connection[Any]) -> list[str]:
    """Batches that a killed run left behind, oldest first."""
    rows = connection.execute(
        "SELECT id::text FROM redrive_batches WHERE state IN ('planned', 'running')"
        " ORDER BY created_at"
    )
    return [row[0] for row in rows]


class _Run:
    """One batch on its way."""

    def __init__(
        self,
        settings: Settings,
        client: Client,
        connection: Connection[Any],
        follower: OutcomeFollower,
        batch_id: str,
        trigger: str,
        actor: str,
    ) -> None:
        self._settings = settings
        self._js = client.jetstream()
        self._client = client
        self._connection = connection
        self._follower = follower
        self._batch_id = batch_id
        self._trigger = trigger
        self._actor = actor
        self._pace = _Pace(settings.redrive_per_second)

    async def prepare(self) -> None:
        """Find the stream that holds the raw bytes, and the subjects that may be published to."""
        subjects = self._settings.subjects
        state = await log_state(self._client, self._settings.dlq_stream, subjects.log)
        self._reader = LogReader(self._client, state.stream, subjects.log)
        names = self._settings.stream_names
        self._advisory_stream = await find_stream(self._js, ADVISORIES[0]) or names.advisories
        self._allowed = self._settings.redrive_subjects or await self._event_subjects(subjects)

    async def all(
        self, redrives: Iterable[_Redrive], progress: Progress | None
    ) -> tuple[Counter[str], dict[str, str]]:
        """Every group side by side; returns the outcomes, and why groups were stopped."""
        groups: dict[str, list[_Redrive]] = {}
        for redrive in redrives:
            groups.setdefault(redrive.group_id, []).append(redrive)
        outcomes: Counter[str] = Counter()
        stopped: dict[str, str] = {}
        planned = sum(len(group) for group in groups.values())

        def tell() -> None:
            if progress is not None:
                progress(outcomes, planned)

        async def one_group(group_id: str, group: list[_Redrive]) -> None:
            if reason := await self._ramp(group, outcomes, tell):
                stopped[group_id] = reason

        try:
            async with asyncio.TaskGroup() as tasks:
                for group_id, group in groups.items():
                    tasks.create_task(one_group(group_id, group))
        except ExceptionGroup as errors:
            raise _first(errors) from errors
        return outcomes, stopped

    async def _ramp(
        self, group: list[_Redrive], outcomes: Counter[str], tell: Callable[[], None]
    ) -> str | None:
        rest = group
        for size in STAGES:
            stage, rest = rest[:size], rest[size:] if size else []
            if not stage:
                return None
            results = Counter(await asyncio.gather(*(self._one(redrive) for redrive in stage)))
            outcomes.update(results)
            tell()
            if rest and not results["succeeded"]:
                reason = f"none of {len(stage)} succeeded: " + ", ".join(
                    f"{count} {state}" for state, count in results.most_common()
                )
                for redrive in rest:
                    self._mark(redrive, "cancelled", reason)
                outcomes["cancelled"] += len(rest)
                return reason
        return None

    async def _one(self, redrive: _Redrive) -> str:
        """One redrive from the outbox to its outcome, which is also told to the log."""
        outcome = self._follower.expect(redrive.id)
        try:
            place = None
            if redrive.silent_seconds is None:
                place = await self._send(redrive)
            patience = self._settings.redrive_timeout_seconds - (redrive.silent_seconds or 0)
            async with asyncio.timeout(max(patience, 0)):
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

    async def _send(self, redrive: _Redrive) -> Place | None:
        """Publish; returns where the event stands then, where its consumer is known."""
        event = await self._event(redrive)
        headers = self._headers(redrive, event)
        trace = event.headers | {"traceparent": event.traceparent or ""}
        span = send_span(
            "redrive",
            trace,
            headers,
            dlq__failure_id=redrive.failure_id,
            dlq__redrive_id=redrive.id,
        )
        async with self._pace, span:
            self._mark(redrive, "published", None)
            await self._tell(redrive, "published", None)
            ack = await self._until_known(event, headers)
        consumer = (redrive.addressed_to or "").partition("/")[2]
        return Place(ack.stream, ack.seq, consumer) if consumer else None

    async def _event(self, redrive: _Redrive) -> Event:
        if redrive.dlq_sequence is None:
            raise ExpiredError("it was stored by an older monitor, without its place in the stream")
        message = await self._reader.read_raw(redrive.dlq_sequence)
        # A recreated stream has another message there.
        place = (redrive.dlq_sequence, redrive.dead_lettered_at)
        if message is None or (message.sequence, message.published_at) != place:
            message = kept_payload(self._connection, redrive.failure_id)
        if message is None:
            raise ExpiredError("the stream no longer holds its dead letter")
        event = await original_event(self._js, message)
        check_subject(event.subject, self._allowed, self._settings.subjects)
        return event

    def _headers(self, redrive: _Redrive, event: Event) -> dict[str, str]:
        headers = event.headers | {
            "Nats-Msg-Id": redrive.id,
            "Dlq-Redrive-Id": redrive.id,
            "Dlq-Redrive-Of": redrive.failure_id,
            "Dlq-Redrive-Attempt": str(redrive.attempt),
        }
        if redrive.addressed_to:
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

    async def _ended(self, redrive: _Redrive, state: str, reason: str) -> str:
        await self._tell(redrive, state, reason)
        self._mark(redrive, state, reason)
        return state

    async def _tell(self, redrive: _Redrive, kind: str, reason: str | None) -> None:
        body = encode_case_event(
            failure_id=redrive.failure_id,
            redrive_id=redrive.id,
            batch_id=self._batch_id,
            attempt=redrive.attempt,
            trigger=self._trigger,
            consumer=redrive.addressed_to,
            actor=self._actor,
            reason=reason,
            at=datetime.now(UTC),
        )
        subject = self._settings.subjects.redrive(kind)
        headers = {"Nats-Msg-Id": f"{redrive.id}-{kind}"}
        try:
            await self._js.publish(subject, body, headers=headers, timeout=5)
        except (nats.errors.Error, APIError) as error:
            raise ServerUnavailableError(
                f"The log can not be written ({error!r}): the batch stays running, and the next"
                " run takes it up."
            ) from error

    def _mark(self, redrive: _Redrive, state: str, reason: str | None) -> None:
        published = ", published_at = now()" if state == "published" else ", ended_at = now()"
        self._connection.execute(
            f"UPDATE redrives SET state = %s, state_reason = %s{published}"  # noqa: S608
            " WHERE id = %s AND state IN ('planned', 'published')",
            [state, reason, redrive.id],
        )

    async def _event_subjects(self, subjects: Subjects) -> list[str]:
        """The subjects of the event streams, which a redrive may publish to by default."""
        try:
            info = await self._js.stream_info(self._settings.events_stream)
        except APIError:
            return list(subjects.events)
        return list(info.config.subjects or subjects.events)


class _Pace:
    """At most so many publishes a second, evenly spaced."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._next = 0.0

    async def __aenter__(self) -> None:
        now = asyncio.get_running_loop().time()
        start = max(self._next, now)
        self._next = start + self._interval
        await asyncio.sleep(start - now)

    async def __aexit__(self, *_: object) -> None:
        return None


def _first(errors: "ExceptionGroup[Exception]") -> Exception:
    """The first plain exception in a group of groups."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _take(connection: Connection[Any], batch_id: str) -> tuple[str, str]:
    row = connection.execute(
        "UPDATE redrive_batches SET state = 'running' WHERE id = %s"
        " AND state IN ('planned', 'running') RETURNING trigger, requested_by",
        [batch_id],
    ).fetchone()
    if row is None:
        raise RedriveError(f"There is no batch {batch_id} that is still to be run.")
    return row[0], row[1]


def _load(connection: Connection[Any], batch_id: str) -> list[_Redrive]:
    rows = connection.execute(
        "SELECT r.id::text, r.failure_id::text, r.attempt, coalesce(r.group_id, ''),"
        " r.addressed_to, f.dlq_sequence, f.published_at,"
        " extract(epoch FROM now() - r.published_at)::float8, f.dlq_reason = ANY(%s)"
        " FROM redrives r JOIN failed_events f ON f.id = r.failure_id"
        " WHERE r.batch_id = %s AND r.state IN ('planned', 'published')"
        " ORDER BY f.dlq_timestamp, r.id",
        [list(BRIDGED_REASONS), batch_id],
    )
    return [_Redrive(*row) for row in rows]


def _end(connection: Connection[Any], batch_id: str, stopped: dict[str, str]) -> None:
    state = "aborted" if stopped else "done"
    reason = "; ".join(f"{group}: {why}" for group, why in stopped.items()) or None
    connection.execute(
        "UPDATE redrive_batches SET state = %s, state_reason = %s, ended_at = now() WHERE id = %s",
        [state, reason, batch_id],
    )
