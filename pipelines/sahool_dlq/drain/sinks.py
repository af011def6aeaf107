"""The sinks of the drain, PostgreSQL and the lake: which messages each has, and which it takes."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.drain.batch import without
from sahool_dlq.drain.epochs import Epoch, current_epoch
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.refill.level import Leveller
from sahool_dlq.settings import Settings
from sahool_dlq.stores.epoch_ids import Gap, life_of, remember_gap
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.postgres.failed_events import Batch, FailedEvents
from sahool_dlq.stores.postgres.group_care import refresh_owners
from sahool_dlq.stores.postgres.payloads import delete_old_payloads
from sahool_dlq.stores.tombstones import erased_messages

__all__ = ["Sinks"]

_IDLE_BATCHES = 20  # after this a table without rows still moves its watermark


class Sinks:
    """PostgreSQL and the lake's tables, each with its own watermark."""

    def __init__(
        self,
        connection: Connection[Any],
        epoch: Epoch,
        postgres: FailedEvents,
        tables: Mapping[str, LakeTable],
        checkpoint: int,
    ) -> None:
        self.epoch = epoch
        self._connection = connection
        self._postgres = postgres
        self._tables = tables
        self._checkpoint = checkpoint
        self._reached = self.watermark  # every sink is complete up to here
        self._idle_batches = dict.fromkeys(tables, 0)
        erased = erased_messages(connection, life_of(epoch.id), after=self.watermark)
        self.erased = erased["dlq_sequence"].to_list()
        self._seen = erased.select("dlq_sequence", "published_at")
        if not epoch.id.endswith("#0"):
            others = (t.of_other_forks(epoch.id, self.watermark) for t in tables.values())
            self._seen = pl.concat([self._seen, *others])

    @classmethod
    async def open(
        cls,
        connection: Connection[Any],
        reader: LogReader,
        state: LogState,
        settings: Settings,
        leveller: Leveller,
    ) -> "Sinks":
        """Open every sink on the stream's current epoch."""
        tables = leveller.tables
        epoch = await current_epoch(connection, reader, state, tables, leveller.finish)
        row = connection.execute(
            "SELECT last_sequence FROM drain_checkpoints WHERE stream = %s", [state.stream]
        ).fetchone()
        assert row is not None
        owners = settings.owners(settings.rules)
        refresh_owners(connection, owners)
        postgres = FailedEvents(connection, state.stream, owners)
        if settings.keep_payloads:
            delete_old_payloads(connection, settings.payload_days)
        return cls(connection, epoch, postgres, tables, row[0])

    @property
    def watermark(self) -> int:
        """The watermark of the sink that is furthest behind."""
        return min(self._checkpoint, *(self._held(table) for table in self._tables.values()))

    def remember(self, gaps: Iterable[Gap]) -> list[Gap]:
        """Store gaps, and return those that were not stored before."""
        return [gap for gap in gaps if remember_gap(self._connection, self.epoch.id, gap)]

    def knows(self, sequences: Sequence[int]) -> set[int]:
        """Those of these sequences that were erased, or that a sink has in this epoch."""
        known = {*self.erased} | {s for s in sequences if s <= self._checkpoint}
        for table in self._tables.values():
            if sequences and sequences[0] <= self._held(table):
                is_one = pl.col("dlq_sequence").is_in(sequences)
                is_one &= pl.col("epoch") == self.epoch.id
                known |= {*table.select(["dlq_sequence"], is_one)["dlq_sequence"]}
        return known

    def unseen(self, batch: Batch) -> Batch:
        """The batch without erased messages and those of other forks: messages of a stream that was
        set back may come again.
        """
        return without(batch, self._seen)

    def missing_from(self, batch: Batch) -> pl.Series:
        """The parse_error, or null, of each message of the batch that a sink does not have."""
        return pl.concat(
            frame.filter(
                pl.col("dlq_sequence") > min(self._checkpoint, self._held(self._tables[name]))
            )["parse_error"]
            for name, frame in _frames(batch).items()
        )

    async def store(self, batch: Batch) -> None:
        """Store a batch in all sinks at the same time; each takes what is missing there."""
        results = await asyncio.gather(
            asyncio.to_thread(self._store_in_postgres, batch),
            asyncio.to_thread(self._store_in_lake, batch),
            return_exceptions=True,  # after an error in one, wait for the other
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self._reached = max(self._reached, batch.last_sequence)

    def catch_up(self) -> None:
        """Move the watermarks of tables without new rows, so that they do not delay others."""
        for table in self._tables.values():
            if self._held(table) < self._reached:
                table.append(table.empty_frame(), self.epoch.id, self._reached)

    def _store_in_postgres(self, batch: Batch) -> None:
        if batch.last_sequence > self._checkpoint:
            self._postgres.store(batch, self._checkpoint)
            self._checkpoint = batch.last_sequence
        else:
            self._postgres.show_life()

    def _store_in_lake(self, batch: Batch) -> None:
        for name, frame in _frames(batch).items():
            table = self._tables[name]
            held = self._held(table)
            missing = frame.filter(pl.col("dlq_sequence") > held)
            self._idle_batches[name] += 1
            if not missing.is_empty() or (
                held < batch.last_sequence and self._idle_batches[name] >= _IDLE_BATCHES
            ):
                table.append(missing, self.epoch.id, batch.last_sequence)
                self._idle_batches[name] = 0

    def _held(self, table: LakeTable) -> int:
        watermark = table.watermark(self.epoch.id)
        if watermark is not None:
            return watermark
        # An empty table takes everything; another one already has earlier messages, under older
        # epochs.
        return 0 if table.is_empty else self.epoch.start_sequence - 1


def _frames(batch: Batch) -> dict[str, pl.DataFrame]:
    return {"dead_letters": batch.letter_frame, "case_events": batch.event_frame}
