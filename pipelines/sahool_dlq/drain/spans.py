"""Adds spans for drained dead letters to their traces."""

import json
import time

import polars as pl

from sahool_dlq.deadletter.headers import value_of
from sahool_dlq.stores.postgres.failed_events import Batch
from sahool_dlq.tracing import spans_of_drained


def trace_batch(batch: Batch, started_ns: int) -> None:
    """One span for each stored dead letter of a batch that contains a trace."""
    letters = (
        batch.letter_frame.filter(pl.col("traceparent").is_not_null())
        .select("traceparent", "failure_id", "dlq_sequence", "original_headers")
        .iter_rows(named=True)
    )
    spans_of_drained(
        (
            letter | {"tracestate": value_of(json.loads(letter["original_headers"]), "tracestate")}
            for letter in letters
        ),
        started_ns,
        time.time_ns(),
    )
