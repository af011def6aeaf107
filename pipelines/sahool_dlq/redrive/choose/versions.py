"""Whether the running version of a service repairs earlier failures: one redrive tests it.

A group that has never failed in the running version gets a canary. If it succeeds, the rest of the
group follows, as long as that is worth it; if it fails, this version gets no other redrive of the
group. Versions are only compared for equality here, so any text will do.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg import Connection

from sahool_dlq.redrive.choose.plan import IDLE
from sahool_dlq.redrive.choose.policy import Belief, Policy, Verdict

__all__ = [
    "IS_NEW_TO_IT",
    "Process",
    "Running",
    "Standing",
    "judge_version",
    "running",
    "running_versions",
    "standings",
]

_HEARD_WITHIN = timedelta(minutes=5)
"""A running process publishes its totals every 30 s; a drain samples some of them."""

IS_NEW_TO_IT = (
    "f.status = 'pending' AND f.redrive_not_before IS NULL"
    " AND f.consumer_version IS DISTINCT FROM {version} AND NOT EXISTS (SELECT FROM failed_events c"
    " WHERE c.root_failure_id = f.id AND c.status = 'superseded'"
    " AND c.consumer_version = {version})"
)
"""A pending failure, over `failed_events f`, that did not fail in `{version}`."""


class Process(NamedTuple):
    """A process of a service, from its recent totals."""

    service: str
    version: str | None  # None if it reports none
    started_at: datetime
    last_at: datetime  # server's time of its latest totals


class Running(NamedTuple):
    """The one version in which a service runs."""

    service: str
    version: str
    started_at: datetime  # its latest process
    appeared_at: datetime  # its first process ever


class Standing(NamedTuple):
    """The outcomes of a group in the running version of its service."""

    group_id: str
    service: str
    version: str
    pending: int  # failures that did not fail in it
    cured: int  # redrives that succeeded in it
    failed: int  # failures of the group in it, those of redrives included
    unanswered: int  # redrives in progress, or without an outcome in this version

    @property
    def belief(self) -> Belief:
        """The chance of a redrive in this version; the prior is uniform."""
        return Belief(1.0 + self.cured, 1.0 + self.failed, self.cured + self.failed)


def running(processes: Iterable[Process]) -> dict[str, tuple[str, datetime]]:
    """By service, the version of its latest process and when that started.

    A service is left out if its latest process reports no version, or if a process of another
    version published totals since that start: either process could get a redrive.
    """
    by_service: dict[str, list[Process]] = {}
    for process in processes:
        by_service.setdefault(process.service, []).append(process)
    found = {}
    for service, its in by_service.items():
        latest = max(its, key=lambda process: (process.started_at, process.last_at))
        others = [process for process in its if process.version != latest.version]
        if latest.version and not any(each.last_at > latest.started_at for each in others):
            found[service] = latest.version, latest.started_at
    return found


def judge_version(standing: Standing, policy: Policy) -> Verdict:
    """Whether the running version gets a canary of a group, the rest of it, or nothing."""
    version, cured, failed = standing.version, standing.cured, standing.failed
    if cured:
        said = f"{version} cured {cured:,} of {cured + failed:,}"
        if standing.belief.probability_above(policy.worth) >= policy.confidence:
            return Verdict("redrive", f"{said}; {standing.pending:,} follow")
        return Verdict("wait", f"{said}, too few to continue")
    if failed:
        return Verdict("wait", f"{version} does not repair it: it also failed there")
    if standing.unanswered:
        return Verdict("wait", f"a redrive in {version} has no outcome")
    return Verdict("canary", f"it has never failed in {version}: one canary")


def running_versions(connection: Connection[Any], now: datetime) -> list[Running]:
    """The services that run in one known version, from their totals of the last five minutes."""
    rows = connection.execute(
        "SELECT service, consumer_version, started_at, max(published_at) FROM service_totals"
        " WHERE published_at > %s GROUP BY 1, 2, 3",
        [now - _HEARD_WITHIN],
    )
    found = running(Process(*row) for row in rows)
    if not found:
        return []
    appeared = connection.execute(
        "SELECT service, consumer_version, min(started_at) FROM service_totals"
        " WHERE service = ANY(%s) AND consumer_version IS NOT NULL GROUP BY 1, 2",
        [list(found)],
    )
    return [
        Running(service, version, found[service][1], appeared_at)
        for service, version, appeared_at in appeared
        if found[service][0] == version
    ]


_STANDINGS = f"""
WITH running (service, version, started_at, appeared_at) AS (
    SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[])
),
waiting AS (
    SELECT f.group_id, r.service, r.version, count(*) AS pending_count
    FROM failed_events f JOIN running r ON r.service = service(f)
    WHERE f.group_id IS NOT NULL AND {IS_NEW_TO_IT.format(version="r.version")} AND {IDLE}
    GROUP BY 1, 2, 3
),
failed AS (
    SELECT g.group_id, r.service, count(*) AS failed_count
    FROM failed_events f
    JOIN running r ON r.service = service(f) AND (f.consumer_version = r.version
        -- Its version is unknown, and this version existed already.
        OR f.consumer_version IS NULL AND f.dlq_timestamp >= r.appeared_at)
    LEFT JOIN failed_events c ON f.status = 'superseded' AND c.id = f.root_failure_id
    CROSS JOIN LATERAL (SELECT f.group_id UNION SELECT c.group_id) AS g
    GROUP BY 1, 2
),
redriven AS (
    SELECT f.group_id, r.service,
        count(*) FILTER (WHERE d.state = 'succeeded' AND d.consumer_version = r.version)
            AS cured_count,
        count(*) FILTER (WHERE d.state IN ('planned', 'published')
            OR d.state = 'outcome_unknown' AND d.published_at >= r.appeared_at
            OR d.state = 'failed_again' AND d.consumer_version IS DISTINCT FROM r.version
                AND d.published_at >= r.started_at) AS unanswered_count
    FROM redrives d JOIN failed_events f ON f.id = d.failure_id
    JOIN running r ON r.service = service(f)
    GROUP BY 1, 2
)
SELECT w.group_id, w.service, w.version, w.pending_count, coalesce(d.cured_count, 0),
    coalesce(f.failed_count, 0), coalesce(d.unanswered_count, 0)
FROM waiting w
LEFT JOIN failed f ON f.group_id = w.group_id AND f.service = w.service
LEFT JOIN redriven d ON d.group_id = w.group_id AND d.service = w.service
ORDER BY 4 DESC, 1, 2
"""  # noqa: S608  (our own names, bound values)


def standings(connection: Connection[Any], now: datetime) -> list[Standing]:
    """Every group with pending failures of a service that runs in one known version.

    The largest first. Parked failures, and those with a requested redrive, do not count.
    """
    found = running_versions(connection, now)
    if not found:
        return []
    rows = connection.execute(
        _STANDINGS,
        [
            [each.service for each in found],
            [each.version for each in found],
            [each.started_at for each in found],
            [each.appeared_at for each in found],
        ],
    )
    return [Standing(*row) for row in rows]
