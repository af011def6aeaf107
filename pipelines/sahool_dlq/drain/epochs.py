"""Finds the epoch of the log: the same, a recreated stream, one that was set back, or a restored
one.

Sequences are meaningful only within one epoch. A recreated stream starts at 1 again with another
creation time; one that lost its disk, or was set back to an older state, may reuse sequences with
the same creation time. So the last message of each batch is stored as an anchor: if the stream now
has another message there, or ends before it, it was set back. A stream restored from a backup
continues the life of its original (`lives`), as the next fork.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from psycopg import Connection

from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.stores.epoch_ids import Gap, fork_id
from sahool_dlq.stores.lake.table import LakeTable

# The newest anchors of this life of the stream, without those that became invalid when it was set
# back.
_ANCHORS = """
SELECT a.sequence, a.timestamp_ns
FROM drain_anchors a JOIN drain_epochs e USING (epoch)
WHERE starts_with(e.epoch, %(forks)s) AND NOT EXISTS (
    SELECT FROM drain_epochs later
    WHERE starts_with(later.epoch, %(forks)s) AND later.fork > e.fork
      AND later.start_sequence <= a.sequence)
ORDER BY a.sequence DESC LIMIT 1000
"""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of the stream, and where reading starts."""

    id: str
    start_sequence: int  # first sequence that belongs to it
    reason: str


async def current_epoch(
    connection: Connection[Any],
    reader: LogReader,
    state: LogState,
    tables: Mapping[str, LakeTable],
    finish: Callable[[str, tuple[int, int]], int],
) -> Epoch:
    """The epoch to read now, stored in the database; a new one if the stream has changed.

    An empty database (new, or lost) takes the newest epoch that the lake knows. `finish` completes
    the sinks for a finished epoch; see `Leveller.finish`.
    """
    known = connection.execute(
        "SELECT e.epoch, e.start_sequence, e.created, e.fork, c.epoch,"
        " starts_with(e.epoch, %s) AS is_of_life"
        " FROM drain_epochs e JOIN drain_checkpoints c USING (stream) WHERE stream = %s"
        " ORDER BY is_of_life DESC, e.fork DESC LIMIT 1",
        [f"{state.life}#", state.stream],
    ).fetchone()
    if known is None:
        fork = 0
        while tables["dead_letters"].watermark(fork_id(state.life, fork + 1)):
            fork += 1
        return _begin(connection, state, fork, 1, "first seen")
    epoch, start, created, fork, latest, is_of_life = known
    if not is_of_life:
        return _begin(connection, state, 0, 1, "the stream was recreated")
    is_restored = created != state.created.astimezone(UTC)
    match, is_rewound = await _newest_match(connection, reader, state)
    if epoch == latest and not is_rewound and not is_restored:
        return Epoch(epoch, start, "the same")
    # Between two anchors, the lake knows what each sequence was.
    match = await _last_match(reader, _places(tables, state.life, match), match)
    held = dict.fromkeys(tables, match)
    checkpoint = match
    if epoch == latest:
        # Both sinks must be complete for the old epoch.
        marks = {name: table.watermark(epoch) for name, table in tables.items()}
        held = {name: min(match, match if mark is None else mark) for name, mark in marks.items()}
        readable = (state.first_sequence, match + 1)
        checkpoint = min(match, await asyncio.to_thread(finish, epoch, readable))
    for name, table in tables.items():  # before it begins, so that a crash loses no mark
        if not table.is_empty:
            table.append(table.empty_frame(), fork_id(state.life, fork + 1), held[name])
    reason = f"the stream was set back to sequence {match}"
    if is_restored:
        reason = f"the stream was restored from a backup and is unchanged up to sequence {match}"
    return _begin(connection, state, fork + 1, match + 1, reason, checkpoint)


def gaps_before(state: LogState, watermark: int, erased: Iterable[int]) -> Iterator[Gap]:
    """Sequences lost between what a sink has and what the stream still has, without erased ones.

    Sequences below the stream's configured first one are not lost.
    """
    watermark = max(watermark, state.made_at_sequence - 1)
    known = [sequence for sequence in erased if watermark < sequence < state.first_sequence]
    for before, after in pairwise([watermark, *known, state.first_sequence]):
        if after > before + 1:
            yield Gap(before + 1, after - 1, state.why_gone, is_certain=not state.is_shared)


def _begin(
    connection: Connection[Any],
    state: LogState,
    fork: int,
    start: int,
    reason: str,
    checkpoint: int | None = None,
) -> Epoch:
    """Start an epoch and set the checkpoint to it, in one transaction."""
    epoch = fork_id(state.life, fork)
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
            [state.stream, epoch, start - 1 if checkpoint is None else checkpoint],
        )
    return Epoch(epoch, start, reason)


async def _newest_match(
    connection: Connection[Any], reader: LogReader, state: LogState
) -> tuple[int, bool]:
    """The newest anchor that still matches, or 0, and whether newer ones do not.

    An anchor below the stream's first sequence has aged out and counts as matching; a deleted one
    is ignored.
    """
    anchors = connection.execute(_ANCHORS, {"forks": f"{state.life}#"}).fetchall()
    is_rewound = False
    for sequence, timestamp_ns in anchors:
        if sequence > state.last_sequence:
            is_rewound = True
            continue
        if sequence < state.first_sequence:
            return sequence, is_rewound
        stored = await reader.read_raw(sequence)
        if stored is None or stored.sequence != sequence:
            continue
        if stored.timestamp_ns // 1000 == timestamp_ns // 1000:  # the lake knows microseconds
            return sequence, is_rewound
        is_rewound = True
    return 0, is_rewound


def _places(
    tables: Mapping[str, LakeTable], life: str, after: int
) -> Sequence[tuple[int, datetime]]:
    """Sequence and server time of the lake's messages of a life above `after`, in order."""
    return sorted(place for table in tables.values() for place in table.positions(life, after))


async def _last_match(reader: LogReader, rows: Sequence[tuple[int, datetime]], match: int) -> int:
    """The last of these rows (sequence, server time) that the stream still has, else `match`."""
    low, high = 0, len(rows)
    while low < high:
        middle = (low + high) // 2
        stored = await reader.read_raw(rows[middle][0])
        place = (stored.sequence, stored.published_at) if stored else None
        found = bisect_left(rows, place, middle, high) if place else high
        if found < high and rows[found] == place:  # those between were deleted
            low = found + 1
        else:
            high = middle
    return rows[low - 1][0] if low else match
