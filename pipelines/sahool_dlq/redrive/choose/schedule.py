"""What the schedule redrives: redrives that are worth it by the policy, and requested ones that are
due.
"""

import functools
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from sahool_dlq.deadletter.cases import ATTEMPTS_PER_OPENING
from sahool_dlq.redrive.choose.plan import IDLE, Addressee, Plan, PlannedFailure, find_pending
from sahool_dlq.redrive.choose.policy import (
    Belief,
    Cell,
    History,
    Policy,
    Verdict,
    delay_before,
    judge,
)
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.choose.versions import (
    IS_NEW_TO_IT,
    judge_version,
    running_versions,
    standings,
)
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.addressees import ADDRESS

__all__ = [
    "Judged",
    "Pending",
    "changed_redrives",
    "handled_per_second",
    "judged",
    "learn",
    "plan_scheduled",
    "policy_of",
]

logger = logging.getLogger(__name__)

_CELL = "(coalesce(f.group_id, ''), f.error_type, f.redrive_count)"
_REMEMBERED_HALF_LIVES = 8  # what is older weighs less than 1/256


class Pending(NamedTuple):
    """Failures that are judged together."""

    cell: Cell
    failure_count: int
    services: str
    message: str  # of one of them


@dataclass(frozen=True, slots=True)
class Judged:
    """The policy's decision about some pending failures, with its reason."""

    pending: Pending
    belief: Belief
    verdict: Verdict


def policy_of(settings: Settings) -> Policy:
    """The policy from the settings."""
    return Policy(
        base_delay_seconds=settings.redrive_delay_seconds,
        budget_share=settings.redrive_budget_share,
        floor_per_second=settings.redrive_floor_per_second,
        transient_types=tuple(settings.transient_error_types),
    )


def learn(connection: Connection[Any], now: datetime, policy: Policy) -> History:
    """The outcomes in the outbox; those with an edit or redirect do not count here.

    Nor do those in another version than the one that a service runs in.
    """
    versions = running_versions(connection, now)
    rows = connection.execute(
        "SELECT coalesce(r.group_id, ''), f.error_type, (r.attempt - 1) %% %(per_opening)s + 1,"
        " sum(weight) FILTER (WHERE r.has_succeeded),"
        " sum(weight) FILTER (WHERE NOT r.has_succeeded), max(r.ended_at)"
        " FROM answered_redrives r JOIN failed_events f ON f.id = r.failure_id"
        " JOIN redrives d ON d.id = r.redrive_id"  # the view has no version
        " JOIN redrive_batches b"
        "   ON b.id = r.batch_id AND b.patch IS NULL AND b.redirect_to IS NULL"
        " LEFT JOIN unnest(%(services)s::text[], %(versions)s::text[]) AS v (service, version)"
        "   ON v.service = service(f),"
        " LATERAL (SELECT power(0.5, greatest(extract(epoch FROM %(now)s - r.ended_at)::float8, 0)"
        "   / %(half_life)s) AS weight) w"
        " WHERE r.ended_at > %(since)s AND coalesce(d.consumer_version = v.version, true)"
        " GROUP BY 1, 2, 3 ORDER BY 6",
        {
            "now": now,
            "per_opening": ATTEMPTS_PER_OPENING,
            "half_life": policy.half_life.total_seconds(),
            "services": [each.service for each in versions],
            "versions": [each.version for each in versions],
            "since": now - _REMEMBERED_HALF_LIVES * policy.half_life,
        },
    )
    history = History(policy)
    for group, error_type, attempt, successes, failures, last_at in rows:
        history.recall(
            Cell(group, error_type, attempt), successes or 0.0, failures or 0.0, last_at, now
        )
    return history


def changed_redrives(connection: Connection[Any]) -> set[tuple[str, int]]:
    """Failure and attempt of each redrive with an edit or redirect: never one of the policy."""
    rows = connection.execute(
        "SELECT r.failure_id::text, r.attempt FROM redrives r JOIN redrive_batches b"
        " ON b.id = r.batch_id WHERE b.patch IS NOT NULL OR b.redirect_to IS NOT NULL"
    )
    return set(rows.fetchall())


def judged(
    connection: Connection[Any], selection: Selection, history: History, now: datetime
) -> list[Judged]:
    """The policy's decisions about everything pending in a selection, the largest first."""
    condition, values = selection.condition()
    rows = connection.execute(
        "SELECT coalesce(f.group_id, ''), f.error_type, f.redrive_count + 1, count(*),"  # noqa: S608  (our own names, bound values)
        f" string_agg(DISTINCT service(f), ', '),"
        " min(left(f.error_message, 500))"
        f" FROM failed_events f WHERE f.status = 'pending' AND {condition} AND {IDLE}"
        " GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 3",
        values,
    )
    found = []
    for group, error_type, attempt, count, services, message in rows:
        cell = Cell(group, error_type, attempt)
        transient = history.policy.is_transient(error_type, message)
        belief = history.belief(cell, now, transient=transient)
        verdict = judge(belief, history.last_at(cell), now, history.policy)
        found.append(Judged(Pending(cell, count, services, message), belief, verdict))
    return found


def plan_scheduled(
    connection: Connection[Any],
    selection: Selection,
    policy: Policy,
    now: datetime,
    unreached: Collection[Addressee],
) -> Plan:
    """The failures that the schedule redrives now; changes nothing.

    Those of `unreached` are left out, because no consumer would get them.
    """
    find = functools.partial(_find_reached, connection, unreached)
    asked_for = find("f.redrive_not_before <= %s", [now], selection.limit)
    history = learn(connection, now, policy)
    verdicts = judged(connection, selection, history, now)
    tried = _in_versions(connection, find, policy, now)
    rows = {row.failure_id: row for row in (*asked_for, *tried)}
    for row in _worth_it(find, selection, verdicts):
        if _rested(row, policy) <= now:
            rows.setdefault(row.failure_id, row)
    for each in verdicts:
        if each.verdict.kind == "canary":
            rows |= {row.failure_id: row for row in _of_cells(find, selection, [each], 1)}
    return Plan(tuple(rows.values())[: selection.limit])


_Find = Callable[[str, list[Any], int], list[PlannedFailure]]


def _find_reached(
    connection: Connection[Any],
    unreached: Collection[Addressee],
    condition: str,
    values: list[Any],
    limit: int,
) -> list[PlannedFailure]:
    """Pending failures whose consumer would get a redrive."""
    return find_pending(
        connection,
        f"f.status = 'pending' AND {condition}"  # noqa: S608  (our own names, bound values)
        f" AND (coalesce({ADDRESS}, ''), f.original_subject)"
        " NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
        [*values, [address for address, _ in unreached], [subject for _, subject in unreached]],
        limit,
    )


def _in_versions(
    connection: Connection[Any], find: _Find, policy: Policy, now: datetime
) -> list[PlannedFailure]:
    """The canaries of groups in a version that is new to them, and the rest after a success."""
    rows = []
    for each in standings(connection, now):
        verdict = judge_version(each, policy)
        if verdict.kind == "wait":
            continue
        limit = 1 if verdict.kind == "canary" else each.pending
        condition = IS_NEW_TO_IT.format(version="%s")
        values = [each.version, each.version, each.group_id, each.service]
        found = find(f"{condition} AND f.group_id = %s AND service(f) = %s", values, limit)
        if found:
            logger.info("%s in %s: %s", each.group_id, each.service, verdict.why)
        rows += found
    return rows


def _worth_it(find: _Find, selection: Selection, verdicts: list[Judged]) -> list[PlannedFailure]:
    paying = [each for each in verdicts if each.verdict.kind == "redrive"]
    return _of_cells(find, selection, paying, selection.limit) if paying else []


def _of_cells(
    find: _Find, selection: Selection, cells: list[Judged], limit: int
) -> list[PlannedFailure]:
    condition, values = selection.condition()
    found = [each.pending.cell for each in cells]
    return find(
        f"{condition} AND"  # noqa: S608  (our own names, bound values)
        f" {_CELL} IN (SELECT * FROM unnest(%s::text[], %s::text[], %s::int[]))",
        [
            *values,
            [cell.group_id for cell in found],
            [cell.error_type for cell in found],
            [cell.attempt - 1 for cell in found],
        ],
        limit,
    )


def _rested(row: PlannedFailure, policy: Policy) -> datetime:
    """When a failure has waited long enough for a redrive."""
    last = max(filter(None, (row.failed_at, row.ended_at)))
    return last + delay_before(row.failure_id, row.redrive_count + 1, policy)


def handled_per_second(connection: Connection[Any]) -> dict[str, float]:
    """Events per second handled by each service, from its consumers' totals of the last hour."""
    rows = connection.execute(
        "SELECT service, sum(CASE WHEN last_at > first_at"
        "   THEN (last_handled - first_handled) / extract(epoch FROM last_at - first_at)"
        "   ELSE last_handled / greatest(extract(epoch FROM last_at - started_at), 1) END)::float8"
        " FROM (SELECT service, consumer, started_at, min(published_at) AS first_at,"
        "   max(published_at) AS last_at, min(handled) AS first_handled,"
        "   max(handled) AS last_handled FROM service_totals"
        "   WHERE published_at > now() - interval '1 hour' GROUP BY 1, 2, 3) AS process"
        " GROUP BY service"
    )
    return dict(rows.fetchall())
