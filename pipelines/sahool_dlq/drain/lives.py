"""Finds the log that a stream belongs to: its own, or an older one of its name, restored from a
backup.

A restored stream has another creation time, but its messages have their old sequences and server
times. If the stores know one of them, the stream is a copy of that log.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.stores.epoch_ids import epoch_order, life_of
from sahool_dlq.stores.lake.table import LakeTable

_PROBES = 16  # messages to look at; those of a backup are the oldest

_IN_POSTGRES = """
SELECT epoch, dlq_sequence, published_at FROM failed_events
WHERE starts_with(epoch, %(stream)s) AND dlq_sequence = ANY(%(sequences)s)
UNION ALL
SELECT epoch, sequence, to_timestamp(0) + timestamp_ns / 1000 * interval '1 microsecond'
FROM drain_anchors WHERE starts_with(epoch, %(stream)s) AND sequence = ANY(%(sequences)s)
UNION ALL
SELECT life || '#0', dlq_sequence, published_at FROM erased_messages
WHERE starts_with(life, %(stream)s) AND dlq_sequence = ANY(%(sequences)s)
"""


async def find_life(
    connection: Connection[Any],
    reader: LogReader,
    state: LogState,
    tables: Mapping[str, LakeTable],
) -> LogState:
    """The state, with the life of the stream's messages."""
    seen = connection.execute(
        "SELECT epoch FROM drain_epochs WHERE stream = %s AND created = %s"
        " ORDER BY started_at DESC, fork DESC LIMIT 1",
        [state.stream, state.created],
    ).fetchone()
    if seen:
        return replace(state, life=life_of(seen[0]))
    places = await _some_places(reader, state)
    sequences = [sequence for sequence, _ in places]
    stream = f"{state.stream}@"
    known = connection.execute(_IN_POSTGRES, {"stream": stream, "sequences": sequences}).fetchall()
    is_there = pl.col("epoch").str.starts_with(stream) & pl.col("dlq_sequence").is_in(sequences)
    for table in tables.values():
        known += table.select(["epoch", "dlq_sequence", "published_at"], is_there).rows()
    same = [epoch for epoch, *place in known if tuple(place) in places]
    return replace(state, life=life_of(max(same, key=epoch_order))) if same else state


async def _some_places(reader: LogReader, state: LogState) -> set[tuple[int, datetime]]:
    """Sequence and server time of some messages of the stream, including the first and the last."""
    first, last = state.first_sequence, state.last_sequence
    found = set()
    for number in range(_PROBES if first <= last else 0):
        stored = await reader.read_raw(first + (last - first) * number // (_PROBES - 1))
        if stored is not None:
            found.add((stored.sequence, stored.published_at))
    return found
