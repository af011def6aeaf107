"""Which life of the dead-letter stream this is: the same, a recreated one, or a rewound one.

Sequences mean something only within one epoch. A stream that was recreated starts at 1 again with
another creation time; one that lost its disk, or was restored from an older snapshot, may reuse
sequences with the same. The last message of each batch is remembered as an anchor: where the
stream now shows another message there, or ends before it, it was rewound.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from pipelines.jetstream.reader import LogReader, LogState

_ANCHORS_KEPT = 1_000


@dataclass(frozen=True, slots=True)
class Epoch:
    """One life of the stream, and where its reading starts."""

    id: str
    start_sequence: int  # first sequence that belongs to it
    reason: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences that were gone before they could be read."""

    first_sequence: int
    last_sequence: int
    reason: str
    is_certain: bool  # False on a shared stream, where others' messages have sequences too


def epoch_id(stream: str, created: datetime, fork: int) -> str:
    """`<stream>@<creation time>#<fork>`."""
    return f"{stream}@{created.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z#{fork}"


async def current_epoch(
    connection: Connection[Any],
    reader: LogReader,
    state: LogState,
    lake_knows: Callable[[str], bool],
) -> Epoch:
    """The epoch to read now, remembered in the database; a new one where the stream has changed.

    A database that knows nothing (new, or lost) takes up the newest epoch that the lake knows.
    """
    known = connection.execute(
        "SELECT epoch, start_sequence, created, fork FROM drain_epochs WHERE stream = %s"
        " ORDER BY started_at DESC, fork DESC LIMIT 1",
        [state.stream],
    ).fetchone()
    if known is None:
        fork = 0
        while lake_knows(epoch_id(state.stream, state.created, fork + 1)):
            fork += 1
        return _begin(connection, state, fork, 1, "first seen")
    epoch, start, created, fork = known
    if created != state.created.astimezone(UTC):
        return _begin(connection, state, 0, 1, "the stream was recreated")
    match = await _newest_match(connection, reader, state, epoch)
    if match is None:
        return Epoch(epoch, start, "the same")
    return _begin(
        connection, state, fork + 1, match + 1, f"the stream was rewound to sequence {match}"
    )


def gap_before(state: LogState, watermark: int) -> Gap | None:
    """The gap between what a sink holds and what the stream still has, if there is one."""
    if state.first_sequence <= watermark + 1:
        return None
    return Gap(
        watermark + 1,
        state.first_sequence - 1,
        "the stream's limits or a purge removed them before they were drained",
        is_certain=not state.is_shared,
    )


def remember_gap(connection: Connection[Any], epoch: str, gap: Gap) -> bool:
    """Write a gap row; False where it is known already."""
    cursor = connection.execute(
        "INSERT INTO stream_gaps (epoch, first_sequence, last_sequence, reason, is_certain)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        [epoch, gap.first_sequence, gap.last_sequence, gap.reason, gap.is_certain],
    )
    return cursor.rowcount == 1


def _begin(
    connection: Connection[Any], state: LogState, fork: int, start: int, reason: str
) -> Epoch:
    """Start an epoch and point the checkpoint at it, in one transaction."""
    epoch = epoch_id(state.stream, state.created, fork)
    with connection.transaction():
        connection.execute(
            "INSERT INTO drain_epochs (epoch, stream, created, fork, start_sequence, reason)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [epoch, state.stream, state.created, fork, start, reason],
        )
        connection.execute(
            "INSERT INTO drain_checkpoints (stream, epoch, last_sequence) VALUES (%s, %s, %s)"
            " ON CONFLICT (stream) DO UPDATE SET epoch = excluded.epoch,"
            " last_sequence = excluded.last_sequence, updated_at = now()",
            [state.stream, epoch, start - 1],
        )
    return Epoch(epoch, start, reason)


async def _newest_match(
    connection: Connection[Any], reader: LogReader, state: LogState, epoch: str
) -> int | None:
    """None where the newest anchor still matches; else the newest older one that does, or 0.

    An anchor below the stream's first sequence has aged out, and one that was deleted says
    nothing: both are passed over.
    """
    anchors = connection.execute(
        "SELECT sequence, timestamp_ns FROM drain_anchors WHERE epoch = %s AND sequence >= %s"
        " ORDER BY sequence DESC LIMIT %s",
        [epoch, state.first_sequence, _ANCHORS_KEPT],
    ).fetchall()
    is_rewound = False
    for sequence, timestamp_ns in anchors:
        if sequence > state.last_sequence:
            is_rewound = True
            continue
        stored = await reader.read_raw(sequence)
        if stored is None or stored.sequence != sequence:
            continue
        if stored.timestamp_ns == timestamp_ns:
            return sequence if is_rewound else None
        is_rewound = True
    return 0 if is_rewound else None
