"""The history of one case, and of what people said of one group."""

from typing import Any

from sahool_dlq.deadletter.group_changes import change_in_words, change_of
from sahool_dlq.deadletter.ids import is_uuid
from sahool_dlq.deadletter.replays import REPLAY
from sahool_dlq.errors import QueryError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect

__all__ = ["case_history", "group_history"]


def case_history(settings: Settings, failure_id: str) -> list[tuple[Any, ...]]:
    """The history of a case, in order: time, what, by whom, reason; including each failure,
    and the replay that it comes from.

    Reports about a redrive that is not in the log are included, and their reason says so.
    """
    if not is_uuid(failure_id):
        raise QueryError(f"{failure_id!r} is not a failure id.")
    with connect(Lake(settings.lake)) as connection:
        given = {"id": failure_id, "doubt": _UNFOUNDED, "replay": REPLAY}
        return connection.execute(_HISTORY, given).fetchall()


def group_history(settings: Settings, group_id: str) -> list[tuple[Any, ...]]:
    """Who changed owner, note, ticket, labels or mute of a group, in order.

    Time, what, by whom, reason, as in `case_history`.
    """
    with connect(Lake(settings.lake)) as connection:
        rows = connection.execute(_CHANGES, {"id": group_id}).fetchall()
    return [
        (at, change_in_words(change), actor, reason)
        for at, kind, body, actor, reason in rows
        if (change := change_of(kind, group_id, body))
    ]


_CHANGES = """
SELECT "at", kind, body, actor, reason FROM case_events
WHERE group_id = $id AND parse_error IS NULL
ORDER BY published_at, dlq_sequence
"""
_UNFOUNDED = "changes nothing: the log has no redrive.published with its id"

_HISTORY = """
WITH announced AS (
    SELECT redrive_id, attempt FROM case_events
    WHERE failure_id = $id AND kind = 'redrive.published' AND parse_error IS NULL
),
said AS (
    SELECT "at", kind, actor,
        concat_ws(': ', 'in version ' || resolved_in_version, reason) AS reason,
        redrive_id, attempt, kind = 'redrive.succeeded'
        OR (starts_with(kind, 'triage.') AND redrive_id IS NOT NULL) AS is_claim
    FROM case_events WHERE failure_id = $id
    UNION ALL
    SELECT dlq_timestamp, CASE WHEN failure_id = $id THEN 'failed' ELSE 'redrive.failed_again' END,
        service, error_type, redrive_id, redrive_attempt, failure_id <> $id
            AND redrive_id IS NOT NULL
    FROM dead_letters WHERE $id IN (failure_id, root_failure_id)
    UNION ALL
    SELECT p."at", 'replay.published', p.actor, p.reason, NULL, NULL, FALSE
    FROM case_events AS p
    WHERE p.trigger = $replay AND p.kind = 'redrive.published' AND p.parse_error IS NULL
        AND (p.failure_id, p.redrive_id) IN (
            SELECT (root_failure_id, redrive_id) FROM dead_letters WHERE failure_id = $id
        )
)
SELECT "at", kind, actor, CASE
    WHEN is_claim AND NOT EXISTS (
        SELECT 1 FROM announced AS a
        WHERE a.redrive_id = said.redrive_id AND a.attempt = said.attempt
    ) THEN concat_ws('; ', reason, $doubt) ELSE reason END AS reason
FROM said ORDER BY "at"
"""
