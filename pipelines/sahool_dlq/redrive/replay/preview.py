"""What a replay would do: which events, at which consumer, how fast."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.redrive.allowed import allowed_subjects
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.schedule import policy_of
from sahool_dlq.redrive.lifetime import (
    TTL,
    TooLateError,
    age_in_words,
    check_age,
    remaining_ttl,
)
from sahool_dlq.redrive.preview import also_reached, rates, refusals, seconds_for
from sahool_dlq.redrive.reach import Reached, unreached_of, whom_it_reaches, why_no_lifetime
from sahool_dlq.redrive.replay.plan import ReplayPlan
from sahool_dlq.settings import Settings

__all__ = ["ReplayPreview", "preview_of"]

_SAMPLE = 5


@dataclass(frozen=True, slots=True)
class ReplayPreview:
    """A plan of a replay, with all known facts."""

    found: ReplayPlan
    consumer: str  # <stream>/<durable>
    also_reached: Mapping[str, list[str]]  # by subject: other consumers that get the events
    refused: Mapping[str, int]  # events that would not be published, by reason
    reached: Reached
    per_second: float  # events
    seconds: float  # for publishing, about

    @property
    def planned(self) -> int:
        """The number of events."""
        return self.found.plan.count

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        found = self.found
        return {
            "planned": self.planned,
            "consumer": self.consumer,
            "services": found.plan.services,
            "subjects": found.plan.subjects,
            "also_reached": dict(self.also_reached),
            "refused": dict(self.refused),
            "unreached": self.reached.as_list(),
            "left_out": dict(found.left_out),
            "unfinished": found.unfinished,
            "limit_reached": found.plan.limit_reached,
            "begins_at": found.begins_at,
            "read": found.read_count,
            "read_seconds": round(found.seconds, 3),
            "rest_from": found.rest_from,
            "per_second": round(self.per_second, 2),
            "seconds": round(self.seconds, 1),
            "sample": [
                {"sequence": event.sequence, "stored_at": row.failed_at, "subject": row.subject}
                for event, row in self.sample
            ],
        }

    @property
    def sample(self) -> list[Any]:
        """The oldest events, each with its row of the plan."""
        return list(zip(self.found.events, self.found.plan.rows, strict=True))[:_SAMPLE]


async def preview_of(
    settings: Settings,
    client: Client,
    connection: Connection[Any],
    found: ReplayPlan,
    consumer: str,
    order: Order,
) -> ReplayPreview:
    """Check everything that the plan affects, and change nothing."""
    js, planned = client.jetstream(), found.plan
    disallowed = refusals(planned, await allowed_subjects(js, settings))
    late, mortal = _lifetimes(found, order.max_age_seconds, datetime.now(UTC))
    refused = {
        row.failure_id: reason
        for row in planned.rows
        if (reason := disallowed.get(row.subject) or late.get(row.failure_id))
    }
    accepted = [row for row in planned.rows if row.failure_id not in refused]
    lifeless = {
        subject: await why_no_lifetime(client, subject)
        for subject in {row.subject for row in accepted if row.failure_id in mortal}
    }
    reached = unreached_of(
        (row, row.subject, why)
        for row in accepted
        if row.failure_id in mortal and (why := lifeless[row.subject]) is not None
    )
    accepted = [row for row in accepted if row.failure_id not in reached.unreached_ids]
    reached += await whom_it_reaches(js, connection, accepted)
    paces = rates(policy_of(settings), connection, planned, order.per_second)
    return ReplayPreview(
        found,
        consumer,
        await also_reached(js, planned, consumer),
        Counter(refused.values()),
        reached,
        min(settings.redrive_per_second, sum(paces.values())),
        seconds_for(settings, planned, paces),
    )


def _lifetimes(
    found: ReplayPlan, max_age_seconds: float | None, now: datetime
) -> tuple[dict[str, str], set[str]]:
    """The events that are too old, and why; those with a time to live."""
    late, mortal = dict[str, str](), set[str]()
    for row in found.plan.rows:
        try:
            check_age(max_age_seconds, row.failed_at, now)
        except TooLateError:
            late[row.failure_id] = (
                f"older than {age_in_words(max_age_seconds or 0)} (DLQ_REDRIVE_MAX_AGE_SECONDS)"
            )
            continue
        try:
            if remaining_ttl(found.ttls.get(row.failure_id), row.failed_at, now):
                mortal.add(row.failure_id)
        except TooLateError:
            late[row.failure_id] = f"the time limit of its producer ({TTL}) is over"
    return late, mortal
