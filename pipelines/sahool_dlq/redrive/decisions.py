"""A person's decisions about failures: they are published, and the drain applies them."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from psycopg import Connection

from sahool_dlq.deadletter.cases import CLOSED, OPEN
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import RedriveError, ServerUnavailableError
from sahool_dlq.redrive.choose.selection import Selection

__all__ = [
    "APPLIES_TO",
    "Affected",
    "Decision",
    "DecisionReport",
    "affected",
    "newest_closed",
    "publish_decision",
]

Decision = Literal["resolved", "discarded", "parked", "unparked"]

APPLIES_TO: dict[Decision, tuple[str, ...]] = {
    "resolved": OPEN,
    "discarded": OPEN,
    "parked": ("pending", "retried"),
    "unparked": ("parked",),
}
"""The statuses that a decision changes, see `deadletter.cases`."""

_IN_FLIGHT = 200


class Affected(NamedTuple):
    """A failure that a decision changes."""

    failure_id: str
    group_id: str
    error_type: str
    service: str


@dataclass(frozen=True, slots=True)
class DecisionReport:
    """The result of a decision."""

    decision: Decision
    changed: int  # failures with the decided status
    groups: dict[str, int]  # failures by group
    left: dict[str, str] = field(
        default_factory=dict
    )  # given ids that do not change, with their status
    seconds: float = 0
    limit_reached: bool = False  # more may match
    in_version: str | None = None  # a version that repairs the group, see `dlq resolve`


def affected(
    connection: Connection[Any], selection: Selection, decision: Decision
) -> tuple[list[Affected], dict[str, str]]:
    """The failures that a decision would change; of given ids also those that it would not.

    Raises RedriveError for an empty selection, or an id that no failure has.
    """
    condition, values = selection.condition()
    rows = connection.execute(
        "SELECT f.id::text, coalesce(f.group_id, ''), f.error_type, service(f)"  # noqa: S608  (our own names, bound values)
        f" FROM failed_events f WHERE f.status = ANY(%s) AND {condition}"
        " ORDER BY f.dlq_timestamp, f.id LIMIT %s",
        [list(APPLIES_TO[decision]), *values, selection.limit],
    ).fetchall()
    found = [Affected(*row) for row in rows]
    missing = set(selection.failure_ids) - {each.failure_id for each in found}
    statuses: dict[str, str] = dict(
        connection.execute(
            "SELECT id::text, status FROM failed_events WHERE id = ANY(%s::uuid[])", [list(missing)]
        ).fetchall()
    )
    if unknown := sorted(missing - set(statuses)):
        raise RedriveError(
            f"No failure has the id {unknown[0]}: `dlq show GROUP` shows ids, and `dlq drain` "
            "reads new ones."
        )
    return found, statuses


def newest_closed(
    connection: Connection[Any], selection: Selection, found: Sequence[Affected]
) -> list[str]:
    """The newest closed failure of each service of which none is among the `found` ones.

    A decision about a version is stored with it: its status stays as it is.
    """
    condition, values = selection.condition()
    rows = connection.execute(
        "SELECT DISTINCT ON (service(f)) f.id::text FROM failed_events f"  # noqa: S608
        f" WHERE f.status = ANY(%s) AND service(f) <> ALL(%s) AND {condition}"
        " ORDER BY service(f), f.dlq_timestamp DESC, f.id",
        [list(CLOSED), [each.service for each in found], *values],
    )
    return [failure_id for (failure_id,) in rows]


async def publish_decision(
    js: JetStreamContext,
    subjects: Subjects,
    failure_ids: Sequence[str],
    decision: Decision,
    *,
    decision_id: uuid.UUID,
    actor: str,
    reason: str,
    in_version: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Publish to the log; a repeat with the same `decision_id` has no effect."""
    subject, at = subjects.triage(decision), datetime.now(UTC)

    async def tell(failure_id: str) -> None:
        body = encode_case_event(
            failure_id=failure_id,
            at=at,
            actor=actor,
            reason=reason,
            resolved_in_version=in_version,
        )
        headers = {"Nats-Msg-Id": f"{decision_id}-{failure_id}"}
        await js.publish(subject, body, headers=headers, timeout=10)

    done = 0
    for window in _windows(failure_ids):
        try:
            await asyncio.gather(*map(tell, window))
        except (nats.errors.Error, JetStreamError) as error:
            raise ServerUnavailableError(
                f"The log cannot be written ({error!r}): {done:,} of {len(failure_ids):,} were "
                "decided; repeat it again for the rest."
            ) from error
        done += len(window)
        if progress is not None:
            progress(done)


def _windows(failure_ids: Sequence[str]) -> list[Sequence[str]]:
    starts = range(0, len(failure_ids), _IN_FLIGHT)
    return [failure_ids[start : start + _IN_FLIGHT] for start in starts]
