"""Rows of the lake as batches for PostgreSQL: fills a lost or older database again."""

from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.rows import EVENT_SCHEMA
from sahool_dlq.stores.epoch_ids import epoch_order
from sahool_dlq.stores.postgres.failed_events import Batch


def batch_of(
    epoch: str, letters: pl.DataFrame, events: pl.DataFrame, last_sequence: int | None = None
) -> Batch:
    """One epoch's rows of the lake, in log order, as decoded."""
    letters, events = letters.sort("dlq_sequence"), events.sort("dlq_sequence")
    rows = pl.concat([frame.select("dlq_sequence", "published_at") for frame in (letters, events)])
    end = rows.sort("dlq_sequence").tail(1).rows()
    last, last_at = end[0] if end else (0, datetime.fromtimestamp(0, UTC))
    return Batch(
        epoch=epoch,
        last_sequence=last if last_sequence is None else last_sequence,
        events=[CaseEvent(**row) for row in events.select(*EVENT_SCHEMA).iter_rows(named=True)],
        letter_frame=letters,
        event_frame=events,
        last_timestamp_ns=int(last_at.timestamp() * 1_000_000) * 1000,
    )


def by_epoch(letters: pl.DataFrame, events: pl.DataFrame) -> Iterator[Batch]:
    """The rows as one batch for each epoch, oldest epoch first."""
    for epoch in sorted({*letters["epoch"], *events["epoch"]}, key=epoch_order):
        yield batch_of(
            epoch,
            letters.filter(pl.col("epoch") == epoch),
            events.filter(pl.col("epoch") == epoch),
        )
