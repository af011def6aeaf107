"""The drain's sink in PostgreSQL: rows, statuses and the checkpoint in one transaction.

Cases are computed in log order before anything is written (`deadletter.cases`), so a new failure is
copied with its final status and an old one is updated once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import polars as pl
from psycopg import Connection

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.cases import Case
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.ownership import Owners
from sahool_dlq.errors import FencedError
from sahool_dlq.stores.postgres.failed_rows import copy_rows, replace_rows, update_rows
from sahool_dlq.stores.postgres.fold import CASE_COLUMNS, Fold, folded, ids_told_of, unfolded
from sahool_dlq.stores.postgres.group_care import apply_changes, learn_owners
from sahool_dlq.stores.postgres.payloads import forget_payloads, keep_payloads
from sahool_dlq.stores.postgres.replays import known_replays, store_announced, store_replays
from sahool_dlq.stores.unfounded import early_claims, store_claims


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of the log, decoded and redacted: rows for both sinks, and events for the cases."""

    epoch: str
    last_sequence: int
    events: Sequence[CaseEvent]
    letter_frame: pl.DataFrame  # DEAD_LETTER_SCHEMA
    event_frame: pl.DataFrame  # CASE_EVENT_SCHEMA
    last_timestamp_ns: int
    payloads: Mapping[int, LogMessage] | None = None  # by sequence; None: not to be kept


class FailedEvents:
    """`failed_events` for its single writer, and whose each failure group is."""

    def __init__(self, connection: Connection[Any], stream: str, owners: Owners) -> None:
        self._connection = connection
        self._stream = stream
        self._owners = owners

    def store(self, batch: Batch, after: int) -> None:
        """Store messages above sequence `after`, which must still be the checkpoint.

        Raises FencedError, without a write, if another drain has moved the checkpoint.
        """
        with self._connection.transaction():
            found = self._connection.execute(
                "SELECT epoch, last_sequence FROM drain_checkpoints WHERE stream = %s FOR UPDATE",
                [self._stream],
            ).fetchone()
            if found != (batch.epoch, after):
                raise FencedError(
                    f"Another drain moved the checkpoint of {self._stream} to {found}; it"
                    f" continues, this one stops."
                )
            self._apply(batch, after)
            self._connection.execute(
                "UPDATE drain_checkpoints SET last_sequence = %s, updated_at = now()"
                " WHERE stream = %s",
                [batch.last_sequence, self._stream],
            )
            self._connection.execute(
                "INSERT INTO drain_anchors (epoch, sequence, timestamp_ns) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [batch.epoch, batch.last_sequence, batch.last_timestamp_ns],
            )

    def refold(self, batches: Sequence[Batch]) -> None:
        """Compute and store these cases again, from all that the lake has of them: one batch per
        epoch.
        """
        ids = [failure_id for batch in batches for failure_id in batch.letter_frame["failure_id"]]
        with self._connection.transaction():
            self._connection.execute(  # raw payloads go with their row
                "CREATE TEMP TABLE kept_payloads ON COMMIT DROP AS"
                " SELECT * FROM failed_payloads WHERE failure_id = ANY(%s::uuid[])",
                [ids],
            )
            self._connection.execute("DELETE FROM failed_events WHERE id = ANY(%s::uuid[])", [ids])
            for batch in batches:
                self._apply(batch, 0)
            self._connection.execute("INSERT INTO failed_payloads SELECT * FROM kept_payloads")

    def show_life(self) -> None:
        """Show that this drain makes progress, although PostgreSQL already has the batch."""
        self._connection.execute(
            "UPDATE drain_checkpoints SET updated_at = now() WHERE stream = %s", [self._stream]
        )

    def _apply(self, batch: Batch, after: int) -> None:
        letters = batch.letter_frame.filter(pl.col("dlq_sequence") > after)
        events = [event for event in batch.events if event.dlq_sequence > after]
        early = early_claims(self._connection, events)
        claimed = {claim.letter_id for claim in early if claim.letter_id}
        told_of = ids_told_of(letters, events)
        known = self._load({*letters["failure_id"], *told_of, *claimed})
        known |= known_replays(self._connection, told_of)
        fold = Fold(letters, events, known, early)
        is_reopened = pl.col("failure_id").is_in(fold.reopened)
        copy_rows(self._connection, fold.new.filter(~is_reopened))
        replace_rows(self._connection, fold.new.filter(is_reopened))
        if fold.reopened:
            forget_payloads(self._connection, fold.reopened)
        if batch.payloads is not None:
            rows = fold.new.select("failure_id", "dlq_sequence").iter_rows()
            keep_payloads(self._connection, {i: batch.payloads[sequence] for i, sequence in rows})
        learn_owners(self._connection, self._owners, fold.new)
        apply_changes(self._connection, events)
        store_replays(self._connection, fold.replays.values())
        self._update(fold)
        self._settle_redrives(fold)
        store_claims(self._connection, fold.claims, fold.founded)

    def _load(self, ids: set[str]) -> dict[str, Case]:
        cursor = self._connection.execute(
            f"SELECT id::text, {', '.join(CASE_COLUMNS)} FROM failed_events"  # noqa: S608  (our own names, bound values)
            " WHERE id = ANY(%s::uuid[])",
            [f"{{{','.join(ids)}}}"],  # a list would be quoted id by id
        )
        return {row[0]: unfolded(row) for row in cursor}

    def _update(self, fold: Fold) -> None:
        changed = fold.changed()
        cases = [[case.failure_id, *folded(case)] for case in changed if not case.is_replay]
        update_rows(self._connection, cases)
        store_announced(self._connection, [case for case in changed if case.is_replay])
        self._execute_each(
            "UPDATE failed_events SET seen_count = seen_count + %s WHERE id = %s",
            [[count, failure_id] for failure_id, count in fold.repeats],
        )

    def _settle_redrives(self, fold: Fold) -> None:
        """Store in the outbox how its redrives ended; a late success corrects `unknown`."""
        self._execute_each(
            "UPDATE redrives SET state = %s, state_reason = %s, ended_at = %s,"
            " consumer_version = %s WHERE id = %s"
            " AND state IN ('planned', 'published', 'outcome_unknown')",
            fold.redrive_ends,
        )

    def _execute_each(self, query: LiteralString, rows: Sequence[Sequence[Any]]) -> None:
        if rows:  # else psycopg asks the server all the same
            self._connection.cursor().executemany(query, rows)
