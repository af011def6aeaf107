"""What a redrive would do: how many events, which consumers, which outcomes to expect."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext
from psycopg import Connection

from sahool_dlq.connections import find_log
from sahool_dlq.jetstream.consumers import consumers_of
from sahool_dlq.jetstream.contents import deleted_sequences
from sahool_dlq.jetstream.reach import Lookout
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.redrive.allowed import AllowedSubjects, allowed_subjects
from sahool_dlq.redrive.choose.plan import Order, Plan, PlannedFailure
from sahool_dlq.redrive.choose.policy import Cell, History, Policy
from sahool_dlq.redrive.choose.schedule import handled_per_second, learn, policy_of
from sahool_dlq.redrive.edit.patch import edit_of
from sahool_dlq.redrive.edit.plan import edits_of
from sahool_dlq.redrive.edit.preview import EditPreview
from sahool_dlq.redrive.lifetime import (
    TTL,
    TooLateError,
    age_in_words,
    check_age,
    remaining_ttl,
    ttl_of,
)
from sahool_dlq.redrive.origin import RefusedError
from sahool_dlq.redrive.reach import (
    Reached,
    unreached_of,
    whom_it_reaches,
    why_no_lifetime,
)
from sahool_dlq.redrive.receivers import Receivers
from sahool_dlq.redrive.source import absent_count
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.payloads import kept_count

__all__ = ["Preview", "also_reached", "preview", "rates", "refusals", "seconds_for"]

_SAMPLE = 5


@dataclass(frozen=True, slots=True)
class Preview:
    """A plan, with all known facts."""

    plan: Plan
    also_reached: Mapping[str, list[str]]  # consumers that get it besides the one that failed
    refused: Mapping[str, int]  # failures that would be parked instead, by reason
    own_copies: int  # events missing in their stream: copies in the dead letters
    payloads: Mapping[str, int]  # raw dead letters: in_stream, kept (in Postgres), gone
    expected_successes: float
    per_second: float  # redrives, over all services
    seconds: float  # for publishing, about
    redirect_to: str | None = None
    edits: EditPreview | None = None
    patch: Any = None  # the edit as the batch stores it; not redacted
    reached: Reached = field(default_factory=Reached)
    repeated: int = 0  # failures with more than one dead letter; it is unknown which is true

    @property
    def sample(self) -> list[PlannedFailure]:
        """The oldest failures."""
        return list(self.plan.rows[:_SAMPLE])

    def as_dict(self) -> dict[str, Any]:
        """For `--json`, and for a form on which somebody approves it."""
        return {
            "planned": self.plan.count,
            "groups": [asdict(group) for group in self.plan.groups],
            "services": self.plan.services,
            "subjects": self.plan.subjects,
            "redirect_to": self.redirect_to,
            "also_reached": dict(self.also_reached),
            "refused": dict(self.refused),
            "unreached": self.reached.as_list(),
            "limit_reached": self.plan.limit_reached,
            "own_copies": self.own_copies,
            "payloads": dict(self.payloads),
            "repeated": self.repeated,
            "expected_successes": round(self.expected_successes, 1),
            "per_second": round(self.per_second, 2),
            "seconds": round(self.seconds, 1),
            "sample": [
                {
                    "failure_id": row.failure_id,
                    "group_id": row.group_id,
                    "service": row.service,
                    "subject": row.subject,
                    "error_type": row.error_type,
                    "error_message": row.error_message,
                    "failed_at": row.failed_at,
                    "redrive_count": row.redrive_count,
                }
                for row in self.sample
            ],
            "edits": self.edits
            and {
                **asdict(self.edits),
                "changes": [change._asdict() for change in self.edits.changes],
            },
        }


async def preview(
    settings: Settings,
    client: Client,
    connection: Connection[Any],
    planned: Plan,
    order: Order,
) -> Preview:
    """Check everything that a plan affects, and change nothing.

    Raises RefusedError if the order redirects to a subject that no redrive may publish to.
    """
    js, now, redirect_to = client.jetstream(), datetime.now(UTC), order.redirect_to
    log, history = await find_log(client, settings), learn(connection, now, policy_of(settings))
    allowed = await allowed_subjects(js, settings)
    if redirect_to is not None:
        allowed.check(redirect_to)
    disallowed = {} if redirect_to else refusals(planned, allowed)
    late, mortal = _lifetimes(connection, planned, order.max_age_seconds, now)
    refused = {
        row.failure_id: reason
        for row in planned.rows
        if (reason := disallowed.get(row.subject) or late.get(row.failure_id))
    }
    accepted = [row for row in planned.rows if row.failure_id not in refused]
    reached = await _short_lived(
        client, [r for r in accepted if r.failure_id in mortal], redirect_to
    )
    accepted = [row for row in accepted if row.failure_id not in reached.unreached_ids]
    if redirect_to is None:
        reached += await whom_it_reaches(js, connection, accepted, order.addressed_to)
    else:
        reached += await _redirected(js, accepted, redirect_to)
    accepted = [row for row in accepted if row.failure_id not in reached.unreached_ids]
    paces = rates(history.policy, connection, planned, order.per_second)
    edits, patch = None, order.patch
    if patch:
        reader = LogReader(client, log.stream, settings.subjects.log)
        rules = settings.rules
        edits, patch = await edits_of(
            client,
            reader,
            connection,
            settings.redactor(rules),
            settings.decoders(rules),
            planned,
            edit_of(patch),
        )
    return Preview(
        planned,
        {redirect_to: await consumers_of(js, redirect_to)}
        if redirect_to
        else await also_reached(js, planned, order.addressed_to),
        Counter(refused.values()),
        await absent_count(client, connection, [row.failure_id for row in accepted]),
        await _payloads(log, client, connection, planned),
        _expected(history, accepted, now),
        min(settings.redrive_per_second, sum(paces.values())),
        seconds_for(settings, planned, paces),
        redirect_to,
        edits,
        patch,
        reached,
        _repeated(connection, planned),
    )


def _repeated(connection: Connection[Any], planned: Plan) -> int:
    row = connection.execute(
        "SELECT count(*) FROM failed_events WHERE id = ANY(%s::uuid[]) AND seen_count > opening",
        [[row.failure_id for row in planned.rows]],
    ).fetchone()
    return row[0] if row else 0


async def _short_lived(
    client: Client, mortal: Sequence[PlannedFailure], redirect_to: str | None
) -> Reached:
    """Failures whose stream refuses events with a time to live."""
    goals = {redirect_to or row.subject for row in mortal}
    reasons = {goal: await why_no_lifetime(client, goal) for goal in goals}
    return unreached_of(
        (row, goal, why)
        for row in mortal
        if (why := reasons[goal := redirect_to or row.subject]) is not None
    )


async def _redirected(
    js: JetStreamContext, rows: Sequence[PlannedFailure], redirect_to: str
) -> Reached:
    """Failures that no consumer would get at the other subject, as the run would find."""
    receivers = await Receivers.of(js, Lookout(js), redirect_to)
    return unreached_of(
        (row, redirect_to, why)
        for row in rows
        if (why := receivers.why_nobody(row.address, is_foreign=row.is_foreign)) is not None
    )


async def also_reached(
    js: JetStreamContext, planned: Plan, addressed_to: str | None
) -> dict[str, list[str]]:
    """By subject, the durable consumers that also get an event meant for another one."""
    found = {}
    for subject, failed_at in planned.addressees.items():
        addressees = {addressed_to} if addressed_to else failed_at
        only = addressees if len(addressees) == 1 else set()
        if others := [each for each in await consumers_of(js, subject) if each not in only]:
            found[subject] = others
    return found


def seconds_for(settings: Settings, planned: Plan, paces: Mapping[str, float]) -> float:
    """How long publishing takes, at these redrives per second by service."""
    return max(
        planned.count / settings.redrive_per_second,
        *(planned.services[service] / rate for service, rate in paces.items()),
        0.0,
    )


def rates(
    policy: Policy, connection: Connection[Any], planned: Plan, per_second: float | None
) -> dict[str, float]:
    """The redrives per second of each service, or the requested ones."""
    if per_second is not None:
        return dict.fromkeys(planned.services, per_second)
    handled = handled_per_second(connection)
    return {s: policy.budget_per_second(handled.get(s, 0.0)) for s in planned.services}


def refusals(planned: Plan, allowed: AllowedSubjects) -> dict[str, str]:
    """The subjects of a plan that are not allowed, and why."""
    found = {}
    for subject in planned.subjects:
        try:
            allowed.check(subject)
        except RefusedError as error:
            found[subject] = str(error)
    return found


def _lifetimes(
    connection: Connection[Any], planned: Plan, max_age_seconds: float | None, now: datetime
) -> tuple[dict[str, str], set[str]]:
    """The failures of a plan whose events are certainly too old, and why; those with a time to
    live.

    Their exact age is in the raw dead letters, which are read when publishing.
    """
    rows = connection.execute(
        "SELECT id::text, least(first_attempt_at, published_at), original_headers->'Nats-TTL'"
        " FROM failed_events WHERE id = ANY(%s::uuid[])"
        " AND (%s OR original_headers ? 'Nats-TTL')",
        [[row.failure_id for row in planned.rows], max_age_seconds is not None],
    )
    found, mortal = dict[str, str](), set[str]()
    for failure, since, ttl in rows:
        try:
            check_age(max_age_seconds, since, now)
        except TooLateError:
            found[failure] = f"older than {age_in_words(max_age_seconds or 0)}"
            continue
        try:
            if remaining_ttl(ttl_of({TTL: ttl} if ttl else {}), since, now):
                mortal.add(failure)
        except TooLateError:
            found[failure] = f"the time limit of its producer ({TTL}) is over"
    return found, mortal


def _expected(history: History, rows: Sequence[PlannedFailure], now: datetime) -> float:
    """The expected number of successes, from outcomes so far."""
    chances: dict[tuple[Cell, bool], float] = {}
    total = 0.0
    for row in rows:
        transient = history.policy.is_transient(row.error_type, row.error_message)
        key = Cell(row.group_id, row.error_type, row.redrive_count + 1), transient
        if key not in chances:
            chances[key] = history.belief(key[0], now, transient=transient).mean
        total += chances[key]
    return total


async def _payloads(
    log: LogState, client: Client, connection: Connection[Any], planned: Plan
) -> dict[str, int]:
    """Where the raw dead letters are, without reading them."""
    deleted = set(await deleted_sequences(client, log))
    current = connection.execute(
        "SELECT split_part(epoch, '#', 1) FROM drain_checkpoints WHERE stream = %s", [log.stream]
    ).fetchone()
    absent = [
        row.failure_id
        for row in planned.rows
        if row.dlq_sequence is None
        or not log.first_sequence <= row.dlq_sequence <= log.last_sequence
        or row.dlq_sequence in deleted
        or ((row.epoch or "").partition("#")[0],) != current
    ]
    in_postgres = kept_count(connection, absent) if absent else 0
    return {
        "in_stream": planned.count - len(absent),
        "kept": in_postgres,
        "gone": len(absent) - in_postgres,
    }
