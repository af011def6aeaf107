"""An epoch is one fork of one life of the stream: `<stream>@<creation time>#<fork>`.

Builds and reads such ids, and stores the gaps of an epoch. Sequences are meaningful only within one
epoch; the forks of one life share the sequences below the fork (see `drain.epochs`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.jetstream.reader import life_id


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences that were lost before they could be read."""

    first_sequence: int
    last_sequence: int
    reason: str
    is_certain: bool  # False on a shared stream, where others' messages have sequences too


def fork_id(life: str, fork: int) -> str:
    """The epoch of this fork of a life of the stream."""
    return f"{life}#{fork}"


def epoch_id(stream: str, created: datetime, fork: int) -> str:
    """The same, for the life that began with the creation of the stream."""
    return fork_id(life_id(stream, created), fork)


def life_of(epoch: str) -> str:
    """An epoch's id without its fork."""
    return epoch.rpartition("#")[0]


def fork_of(epoch: str) -> int:
    """The number of an epoch's fork; later ones are higher."""
    return int(epoch.rpartition("#")[2])


def epoch_order(epoch: str) -> tuple[str, int]:
    """By creation of the stream, then by fork: the order of epochs."""
    return life_of(epoch), fork_of(epoch)


def life_column() -> pl.Expr:
    """The life of each row's epoch."""
    return pl.col("epoch").str.replace("#[0-9]+$", "")


def is_of(life: str) -> pl.Expr:
    """Whether a row's epoch is a fork of this life."""
    return life_column() == life


def remember_gap(connection: Connection[Any], epoch: str, gap: Gap) -> bool:
    """Store a gap, or the growth of a known one; False if it is already stored."""
    cursor = connection.execute(
        "INSERT INTO stream_gaps (epoch, first_sequence, last_sequence, reason, is_certain)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (epoch, first_sequence) DO UPDATE"
        " SET last_sequence = excluded.last_sequence, found_at = now()"
        " WHERE stream_gaps.last_sequence < excluded.last_sequence",
        [epoch, gap.first_sequence, gap.last_sequence, gap.reason, gap.is_certain],
    )
    return cursor.rowcount == 1


def runs(sequences: Iterable[int]) -> list[tuple[int, int]]:
    """Sequences in order as ranges of first and last."""
    found: list[tuple[int, int]] = []
    for sequence in sequences:
        if found and sequence <= found[-1][1] + 1:
            found[-1] = (found[-1][0], sequence)
        else:
            found.append((sequence, sequence))
    return found
