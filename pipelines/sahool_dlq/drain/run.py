"""The drain: copies the log of failures to the lake and PostgreSQL, each message exactly once in
each.

Each sink stores its watermark atomically with its data, and takes only messages above it. So a
drain may die at any point; the next one reads from the smallest watermark. Nothing is acknowledged
to NATS.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.connections import find_log, open_nats, open_postgres
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.drain.batch import build_batch
from sahool_dlq.drain.epochs import Epoch, gaps_before
from sahool_dlq.drain.gc_pause import collecting_rarely
from sahool_dlq.drain.lives import find_life
from sahool_dlq.drain.lock import alone
from sahool_dlq.drain.missing import Missing, in_words
from sahool_dlq.drain.prefetch import ahead
from sahool_dlq.drain.sinks import Sinks
from sahool_dlq.drain.spans import trace_batch
from sahool_dlq.drain.totals import read_totals, store_totals
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.contents import deleted_sequences
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.jetstream.streams import find_stream
from sahool_dlq.refill.level import Leveller
from sahool_dlq.settings import Settings
from sahool_dlq.stores.epoch_ids import Gap, epoch_id, life_of
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.platform import own_lake
from sahool_dlq.stores.postgres.failed_events import Batch
from sahool_dlq.stores.tombstones import recall
from sahool_dlq.tracing import is_tracing

logger = logging.getLogger(__name__)

_PAUSES_SECONDS = (1.0, 4.0)  # before another try, if the last one made no progress


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
    is_read_in_bulk: bool | None = None  # see `jetstream.tap`; None if nothing was read


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
    is_read_in_bulk: bool | None = None

    def add(self, leveller: Leveller) -> None:
        """Add what the sinks took from each other."""
        self.drained += leveller.filled
        self.gaps += leveller.gaps
        self.notes += leveller.notes

    def add_gaps(self, gaps: Sequence[Gap]) -> None:
        """Add and report sequences that were lost before they could be read."""
        self.gaps += len(gaps)
        if notes := list(in_words(gaps)):
            self.notes += notes
            logger.warning("\n".join(notes))


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
        is_read_in_bulk=tally.is_read_in_bulk,
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
                sinks = await Sinks.open(connection, reader, state, settings, leveller)
                tally.stream, tally.epoch = stream, sinks.epoch.id
                tally.add(leveller)
                _note_epoch(sinks.epoch, tally)
                tally.add_gaps(sinks.remember(gaps_before(state, sinks.watermark, sinks.erased)))
                await reader.seek(sinks.watermark + 1, is_suspect=is_retry)
                missing = Missing(client, reader, state, deleted)
                try:
                    await _copy(reader, sinks, missing, settings, tally, progress)
                except ServerUnavailableError:
                    await asyncio.to_thread(sinks.catch_up)  # so the next try starts right here
                    raise
                finally:
                    tally.is_read_in_bulk = reader.is_read_in_bulk
                    await reader.close()
                await asyncio.to_thread(sinks.catch_up)
                tally.last_sequence = sinks.watermark
                tally.new_versions += await _sample_totals(client, connection, settings)


async def _copy(
    reader: LogReader,
    sinks: Sinks,
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
            tally.add_gaps(sinks.remember(await missing.gaps(sequences, done, sinks)))
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
    lost_at_the_end = await missing.gaps([state.last_sequence + 1], done, sinks)
    tally.add_gaps(sinks.remember(lost_at_the_end))


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
    assert info.created is not None
    epoch = epoch_id(stream, info.created, 0)
    table = Lake(settings.lake).table("service_totals")
    after = await asyncio.to_thread(table.watermark, epoch)
    redactor = settings.redactor(settings.rules)
    totals = await read_totals(client, stream, settings.subjects.totals, redactor, after)
    return await asyncio.to_thread(store_totals, totals, after, epoch, table, connection)
