"""Before a drain reads: data that one sink lost and the stream no longer has are copied from the
other sink.

A new database, or one restored from an old backup, takes all from the lake; a lake takes the dead
letters that PostgreSQL still has. Data that the stream has are read from there as usual.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.jetstream.reader import LogState
from sahool_dlq.refill.from_lake import batch_of
from sahool_dlq.refill.from_postgres import letters_from_postgres
from sahool_dlq.settings import Settings
from sahool_dlq.stores.epoch_ids import Gap, epoch_order, fork_id, life_of, remember_gap, runs
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.postgres.failed_events import FailedEvents
from sahool_dlq.stores.tombstones import erased_messages, not_erased

logger = logging.getLogger(__name__)

# Rows of one epoch above its position in the lake, without those that the stream still has.
_ROWS = """
SELECT id::text, dlq_sequence FROM failed_events f
WHERE epoch = %s AND dlq_sequence > %s AND dlq_sequence <= %s
  AND (%s::timestamptz IS NULL OR published_at >= %s::timestamptz)
  AND NOT (dlq_sequence >= %s AND dlq_sequence < %s)
  AND NOT EXISTS (SELECT FROM erased_messages e WHERE e.life = %s
                  AND e.dlq_sequence = f.dlq_sequence AND e.published_at = f.published_at)
ORDER BY dlq_sequence
"""


@dataclass(slots=True)
class Leveller:
    """The sinks of one drain, which holds the lock."""

    connection: Connection[Any]
    tables: Mapping[str, LakeTable]
    state: LogState
    deleted: Sequence[int]  # sequences that the stream lacks between its first and its last
    settings: Settings
    now: datetime
    gaps: int = 0  # gap rows written
    filled: int = 0  # messages that a sink got here
    notes: list[str] = field(default_factory=list)

    def level(self) -> None:
        """Fill both sinks up to the position where the stream continues."""
        if self.deleted:
            self._settle_events()
        checkpoint = self._checkpoint()
        chain = self._epochs_from(checkpoint[0] if checkpoint else None)
        for number, (epoch, start) in enumerate(chain):
            after = start - 1
            if checkpoint and checkpoint[0] == epoch:
                after = checkpoint[1]
            else:
                self._take_up(epoch, start)
            is_over = number < len(chain) - 1 or life_of(epoch) != self._life
            self._fill_postgres(epoch, after, self._limit(epoch, after, is_over=is_over))
        if found := self._checkpoint():
            if life_of(found[0]) != self._life:
                self.finish(found[0])
            else:
                self._fill_lake(*found)
                self._fill_holes(*found)
        self._settle_events()

    def finish(self, epoch: str, readable: tuple[int, int] = (0, 0)) -> int:
        """Complete both sinks for a finished epoch, except sequences that can still be read.

        `readable` is the first of these, and the first after them. Returns the position up to which
        PostgreSQL has all that the lake has.
        """
        checkpoint = self._checkpoint()
        assert checkpoint is not None
        marks = [table.watermark(epoch) or 0 for table in self.tables.values()]
        self._fill_postgres(epoch, checkpoint[1], max(marks))
        held = self.tables["dead_letters"].watermark(epoch)
        last = max(checkpoint[1], *marks)
        if held is not None and held < last:
            self._copy_to_lake(epoch, held, last if readable == (0, 0) else None, readable)
        return max(checkpoint[1], min(marks))

    # Postgres from the lake

    def _epochs_from(self, known: str | None) -> list[tuple[str, int]]:
        """The current epoch of PostgreSQL, and later ones that the lake knows: id and start."""
        letters = self.tables["dead_letters"]
        if known and life_of(known) == self._life:
            _, fork = epoch_order(known)
            if letters.watermark(fork_id(self._life, fork + 1)) is None:
                return [(known, 1)]
        first: dict[str, int] = {}
        for table in self.tables.values():
            for epoch, sequence in table.epochs(f"{self.state.stream}@").items():
                first[epoch] = min(sequence, first.get(epoch, sequence))
        if known:
            order = epoch_order(known)
            first = {known: 1} | {e: s for e, s in first.items() if epoch_order(e) > order}
        # An epoch's own start is not in the lake; its first row is as good.
        starts = {epoch: 1 if epoch.endswith("#0") else start for epoch, start in first.items()}
        return sorted(starts.items(), key=lambda item: epoch_order(item[0]))

    def _limit(self, epoch: str, after: int, *, is_over: bool) -> int:
        """How far PostgreSQL must be filled from the lake."""
        marks = [table.watermark(epoch) or 0 for table in self.tables.values()]
        if is_over:
            return max(marks)
        gone = min(self.state.first_sequence - 1, max(marks))
        by_hand = [s for s in self.deleted if after < s <= min(marks)]
        return max([gone, *by_hand[-1:]])

    def _fill_postgres(self, epoch: str, after: int, up_to: int) -> None:
        if up_to <= after:
            return
        owners = self.settings.owners(self.settings.rules)
        sink = FailedEvents(self.connection, self.state.stream, owners)
        step, before, low = self.settings.drain_batch_messages, self.filled, after
        # By rows, for a stream may have few messages in billions of sequences.
        is_wanted = (pl.col("epoch") == epoch) & pl.col("dlq_sequence").is_between(after + 1, up_to)
        places = [t.select(["dlq_sequence"], is_wanted) for t in self.tables.values()]
        sequences = pl.concat(places)["dlq_sequence"].unique().sort().to_list()
        for high in [*(s for s in sequences[step - 1 :: step] if s < up_to), up_to]:
            erased = erased_messages(self.connection, life_of(epoch), low, high)
            letters, events = (
                not_erased(self.tables[name].rows(epoch, low, high), erased)
                for name in ("dead_letters", "case_events")
            )
            sink.store(batch_of(epoch, letters, events, high), low)
            self.filled += letters.height + events.height
            low = high
        if self.filled > before:
            self._note(f"Postgres took {self.filled - before:,} messages of {epoch} from the lake")

    def _take_up(self, epoch: str, start: int) -> None:
        """Add an epoch to PostgreSQL that only the lake has, and begin it."""
        life, fork = epoch_order(epoch)
        created = life.rpartition("@")[2]
        with self.connection.transaction():
            self.connection.execute(
                "INSERT INTO drain_epochs (epoch, stream, created, fork, start_sequence, reason)"
                " VALUES (%s, %s, %s, %s, %s, 'known by the lake') ON CONFLICT DO NOTHING",
                [epoch, self.state.stream, created, fork, start],
            )
            self.connection.execute(
                "INSERT INTO drain_checkpoints (stream, epoch, last_sequence) VALUES (%s, %s, %s)"
                " ON CONFLICT (stream) DO UPDATE SET epoch = excluded.epoch,"
                " last_sequence = excluded.last_sequence, updated_at = now()",
                [self.state.stream, epoch, start - 1],
            )

    # the lake from Postgres

    def _fill_lake(self, epoch: str, checkpoint: int) -> None:
        letters = self.tables["dead_letters"]
        start = self._starts()[epoch]
        held = letters.watermark(epoch)
        if held is None and checkpoint >= start:  # it lost this epoch, and maybe earlier ones
            held = self._fill_older(epoch)
            if letters.is_empty and self.state.first_sequence <= self.state.made_at_sequence:
                return  # the stream has it all
            for table in self.tables.values():
                if table.watermark(epoch) is None:
                    table.append(table.empty_frame(), epoch, held)
        last = min(checkpoint, self.state.first_sequence - 1)
        if held is not None and (held := max(held, self.state.made_at_sequence - 1)) < last:
            self._copy_to_lake(epoch, held, last)

    def _fill_holes(self, epoch: str, checkpoint: int) -> None:
        """Messages that left the middle of the stream after PostgreSQL read them, and before the
        lake did.

        Its mark stays: the drain reads the others.
        """
        letters = self.tables["dead_letters"]
        held = letters.watermark(epoch)
        gone = [s for s in self.deleted if held is not None and held < s <= checkpoint]
        if held is None or not gone:
            return
        is_there = (pl.col("epoch") == epoch) & pl.col("dlq_sequence").is_in(gone)
        erased = erased_messages(self.connection, life_of(epoch), held, checkpoint)
        known = {*letters.select(["dlq_sequence"], is_there)["dlq_sequence"]}
        lacking = sorted({*gone} - known - {*erased["dlq_sequence"]})
        rows = self.connection.execute(
            "SELECT id::text, dlq_sequence FROM failed_events"
            " WHERE epoch = %s AND dlq_sequence = ANY(%s)",
            [epoch, lacking],
        ).fetchall()
        if rows:
            frame = letters_from_postgres(
                self.connection,
                [name for name, _ in rows],
                self.settings.subject_prefix,
                self.settings.rules.grouping,
            )
            letters.append(frame, epoch, held)
            self.filled += len(rows)
            self._note(f"The lake took {len(rows):,} dead letters of {epoch} from Postgres")
        for first, last in runs(sorted({*lacking} - {sequence for _, sequence in rows})):
            reason = "the lake lost them; their effect on failures is in Postgres"
            if remember_gap(self.connection, epoch, Gap(first, last, reason, is_certain=False)):
                self.gaps += 1
                self.notes.append(f"Possibly lost: sequences {first} to {last}; {reason}.")

    def _fill_older(self, current: str) -> int:
        """Rows of older epochs that only PostgreSQL has; returns how far the lake has this life."""
        starts, held = self._starts(), 0
        for epoch in sorted(starts, key=epoch_order):
            if epoch == current:
                continue
            mark = self.tables["dead_letters"].watermark(epoch) or 0
            readable = (0, 0)
            if life_of(epoch) == self._life:
                until = min(
                    start
                    for later, start in starts.items()
                    if life_of(later) == self._life and epoch_order(later) > epoch_order(epoch)
                )
                readable = (self.state.first_sequence, until)
                held = max(held, min(mark, until - 1))
            self._copy_to_lake(epoch, mark, None, readable)
        return held

    def _copy_to_lake(
        self,
        epoch: str,
        after: int,
        up_to: int | None,
        readable: tuple[int, int] = (0, 0),
    ) -> None:
        """Append PostgreSQL's rows of an epoch above `after`, except those that can be read."""
        end = up_to if up_to is not None else 2**62
        since = self.settings.lake_kept_since(self.now)
        found = self.connection.execute(
            _ROWS, [epoch, after, end, since, since, *readable, life_of(epoch)]
        )
        rows = found.fetchall()
        step, table = self.settings.drain_batch_messages, self.tables["dead_letters"]
        for number in range(0, len(rows), step):
            part = rows[number : number + step]
            frame = letters_from_postgres(
                self.connection,
                [name for name, _ in part],
                self.settings.subject_prefix,
                self.settings.rules.grouping,
            )
            table.append(frame, epoch, part[-1][1])
        self.filled += len(rows)
        if rows:
            self._note(f"The lake took {len(rows):,} dead letters of {epoch} from Postgres")
        if up_to is None:
            return
        for table in self.tables.values():
            if (table.watermark(epoch) or 0) < up_to:
                table.append(table.empty_frame(), epoch, up_to)
        erased = erased_messages(self.connection, life_of(epoch), after, up_to)
        is_here = (pl.col("epoch") == epoch) & pl.col("dlq_sequence").is_between(after + 1, up_to)
        events = self.tables["case_events"].select(["dlq_sequence"], is_here)
        if len(rows) + events.height + erased.height < up_to - after:
            reason = (
                "the lake lost them; their effect on failures is in Postgres, and the dead "
                f"letters among them ({len(rows)}) were restored from there"
            )
            gap = Gap(after + 1, up_to, reason, is_certain=False)
            if remember_gap(self.connection, epoch, gap):
                self.gaps += 1
                self.notes.append(f"Possibly lost: sequences {after + 1} to {up_to}; {reason}.")

    def _settle_events(self) -> None:
        """Move the mark of a table that lacks only dead letters, which the other table has.

        Messages that left the stream between the tables' marks are then no gap.
        """
        checkpoint = self._checkpoint()
        if checkpoint is None or life_of(checkpoint[0]) != self._life:
            return
        epoch = checkpoint[0]
        letters, events = self.tables["dead_letters"], self.tables["case_events"]
        low = 0 if events.is_empty else events.watermark(epoch)
        high = letters.watermark(epoch) or 0
        if low is None or low >= high or self.state.is_shared:
            return
        low = max(low, self.state.made_at_sequence - 1)
        erased = erased_messages(self.connection, life_of(epoch), low, high)
        is_there = (pl.col("epoch") == epoch) & pl.col("dlq_sequence").is_between(low + 1, high)
        found = letters.select(["dlq_sequence"], is_there)
        known = {*found["dlq_sequence"], *erased["dlq_sequence"]}
        if len(known) == high - low:
            events.append(events.empty_frame(), epoch, high)

    # both

    @property
    def _life(self) -> str:
        return self.state.life

    def _checkpoint(self) -> tuple[str, int] | None:
        return self.connection.execute(
            "SELECT epoch, last_sequence FROM drain_checkpoints WHERE stream = %s",
            [self.state.stream],
        ).fetchone()

    def _starts(self) -> dict[str, int]:
        return dict(
            self.connection.execute(
                "SELECT epoch, start_sequence FROM drain_epochs WHERE stream = %s",
                [self.state.stream],
            ).fetchall()
        )

    def _note(self, text: str) -> None:
        self.notes.append(f"{text}.")
        logger.info(self.notes[-1])
