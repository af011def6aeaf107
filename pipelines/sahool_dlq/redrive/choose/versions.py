"""Whether the version of a service that runs now mends what failed before: one redrive finds out.

A group that has never failed in the version that runs gets a canary. Where that succeeds, the rest
of the group follows, for as long as that pays; where it fails, nothing more is tried in this
version. Versions are only told apart here, so any text will do.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from psycopg import Connection

from sahool_dlq.redrive.choose.plan import IDLE
from sahool_dlq.redrive.choose.policy import Belief, Policy, Verdict
from sahool_dlq.stores.postgres.addressees import SERVICE

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
"""A process that runs publishes its totals every half a minute; a drain samples some of them."""

IS_NEW_TO_IT = (
    "f.status = 'pending' AND f.redrive_not_before IS NULL"
    " AND f.consumer_version IS DISTINCT FROM {version} AND NOT EXISTS (SELECT FROM failed_events c"
    " WHERE c.root_failure_id = f.id AND c.status = 'superseded'"
    " AND c.consumer_version = {version})"
)
"""A pending failure, over `failed_events f`, that did not fail in `{version}`."""


class Process(NamedTuple):
    """A process that counts for a service, as its totals of late have it."""

    service: str
    version: str | None  # as it says; None: it does not
    started_at: datetime
    last_at: datetime  # server's time of its latest totals


class Running(NamedTuple):
    """The one version in which a service runs."""

    service: str
    version: str
    started_at: datetime  # its latest process
    appeared_at: datetime  # its first process ever


class Standing(NamedTuple):
    """What is known of a group in the version that its service runs in."""

    group_id: str
    service: str
    version: str
    pending: int  # failures that did not fail in it
    cured: int  # redrives that succeeded in it
    failed: int  # failures of the group in it, those of redrives included
    unanswered: int  # redrives that are out, or that this version did not answer

    @property
    def belief(self) -> Belief:
        """The chance of a redrive in this version, of which nothing was known before."""
        return Belief(1.0 + self.cured, 1.0 + self.failed, self.cured + self.failed)


def running(processes: Iterable[Process]) -> dict[str, tuple[str, datetime]]:
    """By service, the version of its latest process and when that started.

    Not of a service whose latest process says no version, or of which a process of another version
    was heard since: either could get a redrive.
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
    """Whether to try a group in the version that runs, to go on with it, or to leave it."""
    version, cured, failed = standing.version, standing.cured, standing.failed
    if cured:
        said = f"{version} cured {cured:,} of {cured + failed:,}"
        if standing.belief.probability_above(policy.worth) >= policy.confidence:
            return Verdict("redrive", f"{said}; {standing.pending:,} follow")
        return Verdict("wait", f"{said}, too few to go on")
    if failed:
        return Verdict("wait", f"{version} does not mend it: it failed there too")
    if standing.unanswered:
        return Verdict("wait", f"{version} was tried, and has not answered")
    return Verdict("canary", f"it has never failed in {version}: one canary")


def running_versions(connection: Connection[Any], now: datetime) -> list[Running]:
    """The services that run in one known version, by their totals of the last minutes."""
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
    FROM failed_events f JOIN running r ON r.service = {SERVICE}
    WHERE f.group_id IS NOT NULL AND {IS_NEW_TO_IT.format(version="r.version")} AND {IDLE}
    GROUP BY 1, 2, 3
),
failed AS (
    SELECT g.group_id, r.service, count(*) AS failed_count
    FROM failed_events f
    JOIN running r ON r.service = {SERVICE} AND (f.consumer_version = r.version
        -- Nobody said which, and it was there already.
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
    JOIN running r ON r.service = {SERVICE}
    GROUP BY 1, 2
)
SELECT w.group_id, w.service, w.version, w.pending_count, coalesce(d.cured_count, 0),
    coalesce(f.failed_count, 0), coalesce(d.unanswered_count, 0)
FROM waiting w
LEFT JOIN failed f ON f.group_id = w.group_id AND f.service = w.service
LEFT JOIN redriven d ON d.group_id = w.group_id AND d.service = w.service
ORDER BY 4 DESC, 1, 2
"""  # noqa: S608


def standings(connection: Connection[Any], now: datetime) -> list[Standing]:
    """Every group with pending failures of a service that runs in one known version.

    The most first. What has a time for its redrive already, or is parked, is no part of it.
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
