"""Repairs a damaged lake and missing rows in PostgreSQL, from stores that still have the data."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import polars as pl
from psycopg import Connection

from sahool_dlq.drain.batch import build_batch
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.refill.from_lake import by_epoch
from sahool_dlq.refill.from_postgres import letters_from_postgres
from sahool_dlq.settings import Settings
from sahool_dlq.stores.epoch_ids import Gap, is_of, life_of, remember_gap, runs
from sahool_dlq.stores.lake.table import LakeTable
from sahool_dlq.stores.postgres.failed_events import FailedEvents
from sahool_dlq.stores.tombstones import LIFE, not_erased
from sahool_dlq.upkeep.compare import (
    Finding,
    Picture,
    doubled_in_lake,
    missing_in_lake,
    missing_in_postgres,
    ranges,
    unknown_to_lake,
)
from sahool_dlq.upkeep.mend import Mended

_IDS_AT_ONCE = 5_000
_MESSAGE = ["life", "dlq_sequence", "published_at"]  # which message a row is about


class Repair:
    """One repair, under the drain's lock."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection[Any],
        reader: LogReader,
        state: LogState,
        tables: Mapping[str, LakeTable],
        mended: Mended,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._reader = reader
        self._state = state
        self._tables = tables
        self._mended = mended

    async def lake(self, picture: Picture) -> list[Finding]:
        """Correct the lake's rows, one commit per table; returns what is permanently lost."""
        missing = missing_in_lake(picture)["dlq_sequence"]
        ids = unknown_to_lake(picture)["failure_id"].to_list()
        rebuilt: dict[str, list[pl.DataFrame]] = {name: [] for name in self._tables}
        if self._mended.tables or picture.damaged or missing.len() or ids:
            rebuilt = await asyncio.to_thread(self._from_left_files, picture)
        found = {s for frames in rebuilt.values() for f in frames for s in _of_life(f, picture)}
        decoded = await self._from_stream(picture, [s for s in missing if s not in found])
        for name, frames in decoded.items():
            rebuilt[name] += frames
        found_ids = {i for frame in rebuilt["dead_letters"] for i in frame["failure_id"]}
        rebuilt["dead_letters"] += self._from_postgres([i for i in ids if i not in found_ids])
        doubled = doubled_in_lake(picture)
        lost = []
        for name, table in self._tables.items():
            damaged = [d.file for d in picture.damaged if d.table == name]
            twice = [file for file in table.files if file.path in set(doubled["path"])]
            if not (damaged or twice or rebuilt[name]):
                continue
            kept = [_without(table.read(file), doubled, file.path) for file in twice]
            now = datetime.now(UTC)
            rows = [*kept, *rebuilt[name]]
            await asyncio.to_thread(
                table.replace, [*damaged, *twice], rows, now, is_data_change=True, is_fencing=True
            )
            absent = sum(file.row_count or 0 for file in damaged)
            absent -= sum(frame.height for frame in rebuilt[name])
            if damaged and absent > 0:
                lost.append(self._tell_loss(picture, name, absent))
        return [*lost, *self._lost_with_entries(picture, rebuilt)]

    def postgres(self, picture: Picture) -> None:
        """Compute missing cases again, from all that the lake knows of them."""
        ids = missing_in_postgres(picture)["failure_id"].to_list()
        if not ids:
            return
        read = {
            name: not_erased(
                pl.concat([table.empty_frame(), *map(table.read, table.files)]), picture.erased
            )
            for name, table in self._tables.items()
        }
        letters, events = read["dead_letters"], read["case_events"]
        roots = pl.coalesce("root_failure_id", "failure_id")
        chains = letters.filter(pl.col("failure_id").is_in(ids)).select(roots).to_series().unique()
        letters = letters.filter(roots.is_in(chains.to_list()))
        events = events.filter(pl.col("failure_id").is_in(letters["failure_id"].to_list()))
        owners = self._settings.owners(self._settings.rules)
        postgres = FailedEvents(self._connection, self._state.stream, owners)
        postgres.refold(list(by_epoch(letters, events)))

    def _from_left_files(self, picture: Picture) -> dict[str, list[pl.DataFrame]]:
        """Rows missing in a table, from files in its folder that are not live, by table.

        A file leaves the log when its rows are in others, and then stays for some days; a file
        whose entry was lost looks the same.
        """
        found: dict[str, list[pl.DataFrame]] = {}
        for name, known in (("dead_letters", picture.letters), ("case_events", picture.events)):
            table = self._tables[name]
            known = known.with_columns(LIFE).select(_MESSAGE)
            found[name] = []
            for file in table.store.left_files({file.path for file in table.files}):
                rows = not_erased(table.read(file), picture.erased).with_columns(LIFE)
                is_wanted = pl.lit(value=False)
                for epoch in rows["epoch"].unique():
                    mark = table.watermark(epoch) or 0
                    is_wanted |= (pl.col("epoch") == epoch) & (pl.col("dlq_sequence") <= mark)
                if picture.kept_since is not None:
                    is_wanted &= pl.col("published_at") >= picture.kept_since
                rows = rows.filter(is_wanted).unique(_MESSAGE, maintain_order=True)
                rows = rows.join(known, on=_MESSAGE, how="anti", maintain_order="left")
                if not rows.is_empty():
                    known = pl.concat([known, rows.select(_MESSAGE)])
                    found[name].append(rows.drop("life"))
        return found

    def _lost_with_entries(
        self, picture: Picture, rebuilt: Mapping[str, Sequence[pl.DataFrame]]
    ) -> list[Finding]:
        """The messages that were only in lost log entries, with their files."""
        findings = []
        for lost in self._mended.lost:
            if life_of(lost.epoch) != picture.life or self._state.is_shared:
                continue  # others' messages have sequences, too
            held = {*picture.stored, *picture.erased["dlq_sequence"]}
            for frame in (picture.letters, picture.events, *chain(*rebuilt.values())):
                held |= {*_of_life(frame, picture)}
            kept = min(held, default=0) if picture.kept_since is not None else 0
            gone = sorted({*range(max(lost.after + 1, kept), lost.up_to + 1)} - held)
            reason = "they were only in a log entry of the lake that was lost"
            news = [
                remember_gap(self._connection, lost.epoch, Gap(a, b, reason, is_certain=True))
                for a, b in runs(gone)
            ]
            if any(news):
                what = f"{len(gone):,} messages of {lost.epoch} are lost: sequences {ranges(gone)}"
                findings.append(Finding("lost_rows", lost.epoch, f"{what}; {reason}.", len(gone)))
        return findings

    async def _from_stream(
        self, picture: Picture, sequences: Sequence[int]
    ) -> dict[str, list[pl.DataFrame]]:
        """The rows of these sequences, decoded again; frames by table."""
        frames: dict[str, list[pl.DataFrame]] = {name: [] for name in self._tables}
        wanted = set(sequences)
        if not wanted:
            return frames
        rules = self._settings.rules
        redactor = self._settings.redactor(rules)
        await self._reader.seek(min(wanted))
        try:
            while messages := await self._reader.read(
                self._settings.drain_batch_messages,
                self._settings.drain_batch_bytes,
                max(wanted),
            ):
                for epoch, start in reversed(list(picture.forks.items())):
                    part = [m for m in messages if m.sequence in wanted and m.sequence >= start]
                    wanted -= {message.sequence for message in part}
                    if part:
                        batch = await asyncio.to_thread(
                            build_batch,
                            part,
                            epoch=epoch,
                            stream=self._state.stream,
                            subjects=self._settings.subjects,
                            redactor=redactor,
                            grouping=rules.grouping,
                        )
                        frames["dead_letters"].append(batch.letter_frame)
                        frames["case_events"].append(batch.event_frame)
                if not wanted:
                    break
        finally:
            await self._reader.close()
        return {name: [f for f in some if not f.is_empty()] for name, some in frames.items()}

    def _from_postgres(self, ids: Sequence[str]) -> list[pl.DataFrame]:
        prefix = self._settings.subject_prefix
        return [
            letters_from_postgres(
                self._connection,
                ids[start : start + _IDS_AT_ONCE],
                prefix,
                self._settings.rules.grouping,
            )
            for start in range(0, len(ids), _IDS_AT_ONCE)
        ]

    def _tell_loss(self, picture: Picture, table: str, count: int) -> Finding:
        files = [d.file for d in picture.damaged if d.table == table]
        first = min(file.first_sequence or 0 for file in files)
        last = max(file.last_sequence or 0 for file in files)
        reason = f"damaged files of {table} held {count} rows that are nowhere else"
        remember_gap(self._connection, picture.epoch, Gap(first, last, reason, is_certain=True))
        return Finding(
            "lost_rows",
            table,
            f"{count:,} rows of {table} between sequences {first} and {last} were only in damaged"
            " files, which stay in its folder until they are vacuumed after 7 days.",
            count,
        )


def _of_life(frame: pl.DataFrame, picture: Picture) -> list[int]:
    """The sequences of a frame's rows in the current life of the stream."""
    return frame.filter(is_of(picture.life))["dlq_sequence"].to_list()


def _without(frame: pl.DataFrame, doubled: pl.DataFrame, path: str) -> pl.DataFrame:
    """A file's rows without the repeats in this file."""
    here = doubled.filter(pl.col("path") == path)
    message = ["epoch", "dlq_sequence", "published_at"]
    numbered = frame.with_columns(_nth=pl.int_range(pl.len()).over(message))
    total = frame.group_by(message).agg(_here=pl.len())
    drop = here.group_by(message).agg(_drop=pl.len())
    numbered = numbered.join(total, on=message, how="left", maintain_order="left")
    numbered = numbered.join(drop, on=message, how="left", maintain_order="left")
    is_kept = pl.col("_nth") < pl.col("_here") - pl.col("_drop").fill_null(0)
    return numbered.filter(is_kept).drop("_nth", "_here", "_drop")
