"""Decoded messages as the rows that both sinks take: redacted, fingerprinted, dated."""

from collections.abc import Sequence

import polars as pl

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.fingerprint.fingerprint import add_fingerprint
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.rows import DEAD_LETTER_SCHEMA, EVENT_SCHEMA, frame_of

__all__ = ["case_event_frame", "dead_letter_frame"]


def dead_letter_frame(
    letters: pl.DataFrame, redactor: Redactor, grouping: GroupingRules | None = None
) -> pl.DataFrame:
    """LETTER_SCHEMA, redacted, then fingerprinted on the redacted text; DEAD_LETTER_SCHEMA."""
    frame = add_fingerprint(redactor.redact_frame(letters), grouping).with_columns(_dlq_date())
    return frame.select(pl.col(name).cast(dtype) for name, dtype in DEAD_LETTER_SCHEMA.items())


def case_event_frame(events: Sequence[CaseEvent], redactor: Redactor) -> pl.DataFrame:
    """The case events, redacted; CASE_EVENT_SCHEMA."""
    frame = frame_of(events, EVENT_SCHEMA)
    redacted = frame.with_columns(
        pl.col("body").map_elements(redactor.redact_json, return_dtype=pl.String),
        pl.col("reason", "actor", "parse_error").map_elements(
            redactor.redact_text, return_dtype=pl.String
        ),
    )
    return redacted.with_columns(_dlq_date())


def _dlq_date() -> pl.Expr:
    # Never a date from the payload: a producer could make ten thousand partitions.
    return pl.col("published_at").dt.date().alias("dlq_date")
