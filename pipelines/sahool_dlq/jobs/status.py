"""The current state of the platform."""

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from sahool_dlq.connections import find_log, open_nats, open_postgres
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.unfounded import unfounded_counts


@dataclass(frozen=True, slots=True)
class PlatformStatus:
    """The current state of the platform."""

    stream: str
    messages: int
    first_sequence: int
    last_sequence: int
    sinks: dict[str, int]  # last sequence that each holds
    failures: dict[str, int]  # failed_events by status
    redrives: dict[str, int]  # by state
    unfounded: dict[str, int]  # outcomes of redrives that the log does not know, by kind
    gaps: list[str]


async def platform_status(settings: Settings) -> PlatformStatus:
    """The current state of stream, sinks, failures, redrives and gaps."""
    async with open_nats(settings, "dlq status") as client:
        state = await find_log(client, settings)
    with open_postgres(settings) as connection:
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
    """The last sequence of the log in each sink, read again."""
    with open_postgres(settings) as connection:
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
