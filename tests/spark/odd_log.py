"""Rows that engines may read differently: NULLs in every column, ties, unusual values."""

import itertools
import types
import typing
import uuid
from datetime import datetime, timedelta

import polars as pl

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.record import FINGERPRINT_COLUMNS, DeadLetter
from sahool_dlq.stores.lake.lake import Lake

COPIES = 3
"""Of each row with a NULL: as many consumers that failed on its event, the last two at one time."""


def _nullable(record: type) -> list[str]:
    hints = typing.get_type_hints(record).items()
    return [name for name, hint in hints if isinstance(hint, types.UnionType)]


LETTER_COLUMNS = [*_nullable(DeadLetter), *FINGERPRINT_COLUMNS]
EVENT_COLUMNS = [*_nullable(CaseEvent)]


def add_odd_rows(lake: Lake, now: datetime) -> None:
    """Add to a history: for each nullable column some rows in which it is NULL, up to `now`."""
    letters = lake.read("dead_letters").sort("dlq_sequence")
    events = lake.read("case_events").sort("dlq_sequence")
    roots = letters.filter(pl.col("root_failure_id").is_null()).tail(len(LETTER_COLUMNS))
    told = events.filter(pl.col("kind").str.starts_with("redrive.")).tail(len(EVENT_COLUMNS))
    epoch = letters["epoch"][-1]
    place = itertools.count(max(letters["dlq_sequence"].max(), events["dlq_sequence"].max()) + 1)

    def placed(row: dict[str, typing.Any], at: datetime) -> dict[str, typing.Any]:
        return row | {
            "dlq_sequence": next(place),
            "published_at": at,
            "dlq_date": at.date(),
        }

    times = iter(_times(now, len(LETTER_COLUMNS) + len(EVENT_COLUMNS)))
    odd_letters, odd_events = [], []
    for row, column in zip(roots.iter_rows(named=True), LETTER_COLUMNS, strict=True):
        at = next(times)
        for copy in range(COPIES):
            new = {
                "failure_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{column} {copy}")),
                "consumer_name": f"{row['consumer_name']}-{copy}",
                "first_attempt_at": at - timedelta(hours=1, microseconds=copy),
                "dlq_timestamp": at + timedelta(microseconds=copy),
                "group_id": f"odd {column}",
                "original_stream": "ODD",
                "original_sequence": len(odd_letters) // COPIES,
                "event_type": f"{row['event_type']} {copy}",
            }
            # of three the latest, by its place alone, has the NULL; of others it has a value
            missing = {column: None} if copy == COPIES - 1 else {}
            odd_letters.append(placed(row | new | missing, at + timedelta(microseconds=copy // 2)))
    for (row, column), letter in zip(
        itertools.product(told.iter_rows(named=True), EVENT_COLUMNS),
        itertools.cycle(odd_letters),
        strict=False,
    ):
        at = next(times, now)
        new = {"failure_id": letter["failure_id"], "at": at, "kind": row["kind"]}
        if letter["consumer_name"] and letter["original_stream"]:
            new["consumer"] = f"{letter['original_stream']}/{letter['consumer_name']}"
        odd_events.append(placed(row | new | {column: None}, at))
    for name, rows in (("dead_letters", odd_letters), ("case_events", odd_events)):
        frame = pl.DataFrame(rows, schema=lake.table(name).empty_frame().schema)
        lake.table(name).append(frame, epoch, rows[-1]["dlq_sequence"])


def _times(now: datetime, count: int) -> list[datetime]:
    """Some in every hour before, most of them in the last two, none of them round."""
    return sorted(
        now - timedelta(seconds=1 + 1.618034 * step**2.3, microseconds=step * 7 + 1)
        for step in range(count)
    )
