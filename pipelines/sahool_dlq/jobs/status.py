"""Where everything stands, and what happened to one case."""

from dataclasses import asdict, dataclass
from typing import Any

from psycopg import Connection

from sahool_dlq.deadletter.ids import is_uuid
from sahool_dlq.errors import QueryError
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.reader import log_state
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.lake.sql import (
    connect,
)
from sahool_dlq.stores.postgres.database import database
from sahool_dlq.stores.unfounded import unfounded_counts


def case_history(settings: Settings, failure_id: str) -> list[tuple[Any, ...]]:
    """What happened to a case, in order: at, what, by whom, reason; each time it failed, too.

    What names a redrive that the log does not know is there, and its reason says so.
    """
    if not is_uuid(failure_id):
        raise QueryError(f"{failure_id!r} is not a failure id.")
    with connect(Lake(settings.lake)) as connection:
        return connection.execute(_HISTORY, {"id": failure_id, "doubt": _UNFOUNDED}).fetchall()


_UNFOUNDED = "changes nothing: the log has no redrive.published with its id"

_HISTORY = """
WITH announced AS (
    SELECT redrive_id, attempt FROM case_events
    WHERE failure_id = $id AND kind = 'redrive.published' AND parse_error IS NULL
),
said AS (
    SELECT "at", kind, actor, reason, redrive_id, attempt, kind = 'redrive.succeeded'
        OR (starts_with(kind, 'triage.') AND redrive_id IS NOT NULL) AS is_claim
    FROM case_events WHERE failure_id = $id
    UNION ALL
    SELECT dlq_timestamp, CASE WHEN failure_id = $id THEN 'failed' ELSE 'redrive.failed_again' END,
        service, error_type, redrive_id, redrive_attempt, failure_id <> $id
            AND redrive_id IS NOT NULL
    FROM dead_letters WHERE $id IN (failure_id, root_failure_id)
)
SELECT "at", kind, actor, CASE
    WHEN is_claim AND NOT EXISTS (
        SELECT 1 FROM announced AS a
        WHERE a.redrive_id = said.redrive_id AND a.attempt = said.attempt
    ) THEN concat_ws('; ', reason, $doubt) ELSE reason END AS reason
FROM said ORDER BY "at"
"""


@dataclass(frozen=True, slots=True)
class PlatformStatus:
    """Where everything stands."""

    stream: str
    messages: int
    first_sequence: int
    last_sequence: int
    sinks: dict[str, int]  # last sequence that each holds
    failures: dict[str, int]  # failed_events by status
    redrives: dict[str, int]  # by state
    unfounded: dict[str, int]  # outcomes of redrives that the log does not know, by kind
    gaps: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


async def platform_status(settings: Settings) -> PlatformStatus:
    """Stream, sinks, failures, redrives and gaps, as of now."""
    async with connected(settings.access, "dlq status") as client:
        state = await log_state(client, settings.dlq_stream, settings.subjects.log)
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        failures = dict(
            connection.execute(
                "SELECT status, count(*) FROM failed_events GROUP BY 1 ORDER BY 2 DESC"
            ).fetchall()
        )
        redrives = dict(
            connection.execute(
                "SELECT state, count(*) FROM redrives GROUP BY 1 ORDER BY 2 DESC"
            ).fetchall()
        )
        unfounded = unfounded_counts(connection)
        gaps = connection.execute(
            "SELECT CASE WHEN is_certain THEN 'Lost' ELSE 'Possibly lost' END || ': '"
            " || CASE count(*) WHEN 1 THEN '' ELSE sum(last_sequence - first_sequence + 1)"
            " || ' messages in ' || count(*) || ' runs, ' END || 'sequences '"
            " || min(first_sequence) || ' to ' || max(last_sequence) || ' of ' || epoch"
            " || '; ' || reason FROM stream_gaps"
            " GROUP BY epoch, is_certain, reason, date_trunc('minute', found_at)"
            " ORDER BY max(found_at) DESC LIMIT 10"
        ).fetchall()
        sinks = _sinks(settings, connection, state.stream)
    return PlatformStatus(
        state.stream,
        state.message_count,
        state.first_sequence,
        state.last_sequence,
        sinks,
        failures,
        redrives,
        unfounded,
        [gap for (gap,) in gaps],
    )


def sink_sequences(settings: Settings, stream: str) -> dict[str, int]:
    """The last sequence of the log that each sink holds, read anew."""
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        return _sinks(settings, connection, stream)


def _sinks(settings: Settings, connection: Connection[Any], stream: str) -> dict[str, int]:
    row = connection.execute(
        "SELECT epoch, last_sequence FROM drain_checkpoints WHERE stream = %s", [stream]
    ).fetchone()
    epoch, checkpoint = row or ("", 0)
    lake = Lake(settings.lake)
    return {"postgres": checkpoint} | {
        f"lake {name}": lake.watermark(name, epoch) for name in LOG_TABLES
    }
