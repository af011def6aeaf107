"""The drain: copies the log of failures to the lake and PostgreSQL, each message exactly once in
each.

Each sink stores its watermark atomically with its data, and takes only messages above it. So a
drain may die at any point; the next one reads from the smallest watermark. Nothing is acknowledged
to NATS.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import polars as pl
from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.connections import find_log, open_nats, open_postgres
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.drain.batch import build_batch, without
from sahool_dlq.drain.epochs import Epoch, current_epoch, gaps_before
from sahool_dlq.drain.gc_pause import collecting_rarely
from sahool_dlq.drain.lives import find_life
from sahool_dlq.drain.lock import alone
from sahool_dlq.drain.missing import Missing, in_words
from sahool_dlq.drain.prefetch import ahead
from sahool_dlq.drain.spans import trace_batch
from sahool_dlq.drain.totals import read_totals, store_totals
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.contents import deleted_sequences
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.jetstream.streams import find_stream
from sahool_dlq.refill.level import Leveller
from sahool_dlq.settings import Settings
from sahool_dlq.stores.epoch_ids import Gap, epoch_id, life_of, remember_gap
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.platform import own_lake
from sahool_dlq.stores.postgres.failed_events import Batch, FailedEvents
from sahool_dlq.stores.postgres.payloads import delete_old_payloads
from sahool_dlq.stores.tombstones import erased_messages, recall
from sahool_dlq.tracing import is_tracing

logger = logging.getLogger(__name__)

_PAUSES_SECONDS = (1.0, 4.0)  # before another try, if the last one made no progress
_IDLE_BATCHES = 20  # after this a table without rows still moves its watermark


@dataclass(frozen=True, slots=True)
class DrainReport:
    """The result of one run of the drain."""

    drained: int  # messages newly in the sink that was furthest behind
    quarantined: int  # those of them with a parse_error
    gaps: int  # gap rows written
    last_sequence: int  # position of every sink in the log
    seconds: float  # the work, without process start
    stream: str
    epoch: str
    notes: tuple[str, ...] = ()  # notes for people: a gap, a recreated stream
    new_versions: tuple[str, ...] = ()  # versions that services run in, as `ndvi 2.4`


Progress = Callable[[int, int], None]
"""Called with the messages drained so far, and their approximate total."""


@dataclass(slots=True)
class _Tally:
    """The sums over all tries of one run."""

    drained: int = 0
    quarantined: int = 0
    last_sequence: int = 0
    stream: str = ""
    epoch: str = ""
    gaps: int = 0
    notes: list[str] = field(default_factory=list)
    new_versions: list[str] = field(default_factory=list)

    def add(self, leveller: Leveller) -> None:
        """Add what the sinks took from each other."""
        self.drained += leveller.filled
        self.gaps += leveller.gaps
        self.notes += leveller.notes


async def drain(
    settings: Settings, progress: Progress | None = None, *, is_lake_adopted: bool = False
) -> DrainReport:
    """Drain the current log; if a server goes away meanwhile, wait for it.

    Raises ServerUnavailableError if it stays away, FencedError if another drain took over,
    LakeError if the lake belongs to another platform, unless `is_lake_adopted`.
    """
    with collecting_rarely():
        return await _drain(
            settings, progress or (lambda _done, _total: None), is_lake_adopted=is_lake_adopted
        )


async def _drain(settings: Settings, progress: Progress, *, is_lake_adopted: bool) -> DrainReport:
    started, tally = time.monotonic(), _Tally()
    is_done, tries = False, 0
    while not is_done:
        before = tally.drained
        try:
            await _drain_once(
                settings, tally, progress, is_retry=tries > 0, is_lake_adopted=is_lake_adopted
            )
            is_done = True
        except ServerUnavailableError as error:
            tries = 0 if tally.drained > before else tries
            if tries == len(_PAUSES_SECONDS) or not tally.epoch:
                raise
            logger.warning("%s Retrying in %.0f s.", error, _PAUSES_SECONDS[tries])
            await asyncio.sleep(_PAUSES_SECONDS[tries])
            tries += 1
    return DrainReport(
        drained=tally.drained,
        quarantined=tally.quarantined,
        gaps=tally.gaps,
        last_sequence=tally.last_sequence,
        seconds=round(time.monotonic() - started, 3),
        stream=tally.stream,
        epoch=tally.epoch,
        notes=tuple(tally.notes),
        new_versions=tuple(tally.new_versions),
    )


async def _drain_once(
    settings: Settings,
    tally: _Tally,
    progress: Progress,
    *,
    is_retry: bool,
    is_lake_adopted: bool,
) -> None:
    patience = 5 if is_retry else 0  # it may be restarting
    async with open_nats(settings, "dlq drain", patience_seconds=patience) as client:
        stream = (await find_log(client, settings)).stream
        with open_postgres(settings) as connection:
            async with alone(settings, connection, stream):
                reader = LogReader(client, stream, settings.subjects.log)
                state = await reader.state()
                lake = Lake(settings.lake)
                life = life_of(epoch_id(stream, state.created, 0))
                own_lake(
                    connection, lake, life, settings.subject_prefix, is_adopted=is_lake_adopted
                )
                await asyncio.to_thread(recall, connection, lake)
                tables = {name: lake.table(name) for name in LOG_TABLES}
                state = await find_life(connection, reader, state, tables)
                deleted = await deleted_sequences(client, state)
                leveller = Leveller(connection, tables, state, deleted, settings, datetime.now(UTC))
                await asyncio.to_thread(leveller.level)
                sinks = await _Sinks.open(connection, reader, state, settings, leveller)
                tally.stream, tally.epoch = stream, sinks.epoch.id
                tally.add(leveller)
                _note_epoch(sinks.epoch, tally)
                sinks.note_gaps(gaps_before(state, sinks.watermark, sinks.erased), tally)
                await reader.seek(sinks.watermark + 1, is_suspect=is_retry)
                missing = Missing(client, reader, state, deleted)
                try:
                    await _copy(reader, sinks, missing, settings, tally, progress)
                except ServerUnavailableError:
                    await asyncio.to_thread(sinks.catch_up)  # so the next try starts right here
                    raise
                finally:
                    await reader.close()
                await asyncio.to_thread(sinks.catch_up)
                tally.last_sequence = sinks.watermark
                tally.new_versions += await _sample_totals(client, connection, settings)


async def _copy(
    reader: LogReader,
    sinks: "_Sinks",
    missing: Missing,
    settings: Settings,
    tally: _Tally,
    progress: Progress,
) -> None:
    """Store one batch while the next is ready, another is decoded, and another is read."""
    first, state = sinks.watermark, missing.state
    done = max(first, state.first_sequence - 1)
    decoded = ahead(_decode(ahead(_read(reader, state, settings)), sinks.epoch, state, settings))
    ready = ahead(decoded)  # a second one, so that decoding does not wait for a long commit
    async with aclosing(ready):
        async for sequences, batch in ready:
            sinks.note_gaps(await missing.gaps(sequences, done, sinks), tally)
            done = batch.last_sequence
            batch = sinks.unseen(batch)
            new = sinks.missing_from(batch)
            started_ns = time.time_ns()
            await sinks.store(batch)
            if is_tracing():
                trace_batch(batch, started_ns)
            tally.drained += new.len()
            tally.quarantined += new.count()  # those that are not null
            logger.info(
                "Stored %s messages, up to sequence %s of %s",
                f"{new.len():,}",
                f"{batch.last_sequence:,}",
                f"{state.last_sequence:,}",
            )
            progress(batch.last_sequence - first, max(state.last_sequence - first, 1))
    sinks.note_gaps(await missing.gaps([state.last_sequence + 1], done, sinks), tally)


async def _read(
    reader: LogReader, state: LogState, settings: Settings
) -> AsyncGenerator[list[LogMessage], None]:
    count, size = settings.drain_batch_messages, settings.drain_batch_bytes
    while messages := await reader.read(count, size, state.last_sequence):
        yield messages
        del messages  # before the next are read


async def _decode(
    read: AsyncGenerator[list[LogMessage], None], epoch: Epoch, state: LogState, settings: Settings
) -> AsyncGenerator[tuple[list[int], Batch], None]:
    """The batches, each with its sequences."""
    rules = settings.rules
    redactor, decoders = settings.redactor(rules), settings.decoders(rules)
    async with aclosing(read):
        async for messages in read:
            batch = await asyncio.to_thread(
                build_batch,
                messages,
                epoch=epoch.id,
                stream=state.stream,
                subjects=settings.subjects,
                redactor=redactor,
                grouping=rules.grouping,
                decoders=decoders,
                keeps_payloads=settings.keep_payloads,
            )
            sequences = [message.sequence for message in messages]
            del messages  # before the batch waits
            yield sequences, batch


class _Sinks:
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
    ) -> "_Sinks":
        """Open every sink on the stream's current epoch."""
        tables = leveller.tables
        epoch = await current_epoch(connection, reader, state, tables, leveller.finish)
        row = connection.execute(
            "SELECT last_sequence FROM drain_checkpoints WHERE stream = %s", [state.stream]
        ).fetchone()
        assert row is not None
        postgres = FailedEvents(connection, state.stream)
        if settings.keep_payloads:
            delete_old_payloads(connection, settings.payload_days)
        return cls(connection, epoch, postgres, tables, row[0])

    @property
    def watermark(self) -> int:
        """The watermark of the sink that is furthest behind."""
        return min(self._checkpoint, *(self._held(table) for table in self._tables.values()))

    def note_gaps(self, gaps: Iterable[Gap], tally: _Tally) -> None:
        """Store and report the sequences that were lost before they could be read."""
        new = [gap for gap in gaps if remember_gap(self._connection, self.epoch.id, gap)]
        tally.gaps += len(new)
        if notes := list(in_words(new)):
            tally.notes += notes
            logger.warning("\n".join(notes))

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


def _note_epoch(epoch: Epoch, tally: _Tally) -> None:
    if epoch.reason not in ("the same", "first seen"):
        tally.notes.append(f"New epoch {epoch.id}: {epoch.reason}.")
        logger.warning(tally.notes[-1])


async def _sample_totals(
    client: Client, connection: Connection[Any], settings: Settings
) -> list[str]:
    js = client.jetstream()
    stream = await find_stream(js, settings.subjects.totals, settings.totals_stream)
    if stream is None:
        return []
    info = await js.stream_info(stream)
    redactor = settings.redactor(settings.rules)
    totals = await read_totals(client, stream, settings.subjects.totals, redactor)
    assert info.created is not None
    epoch = epoch_id(stream, info.created, 0)
    table = Lake(settings.lake).table("service_totals")
    return await asyncio.to_thread(store_totals, totals, epoch, table, connection)
