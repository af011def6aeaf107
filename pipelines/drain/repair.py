"""Mending a lake that lost bytes and a Postgres that lost rows, each from what still has them."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
from psycopg import Connection

from pipelines.drain.batch import build_batch
from pipelines.drain.compare import (
    Finding,
    Picture,
    doubled_in_lake,
    missing_in_lake,
    missing_in_postgres,
    unknown_to_lake,
)
from pipelines.drain.epochs import Gap, remember_gap
from pipelines.drain.from_lake import by_epoch
from pipelines.drain.from_postgres import letters_from_postgres
from pipelines.jetstream.reader import LogReader, LogState
from pipelines.settings import Settings
from pipelines.stores.erased import not_erased
from pipelines.stores.failed_events import FailedEvents
from pipelines.stores.lake_table import LakeTable

_IDS_AT_ONCE = 5_000


class Repair:
    """One repair, under the drain's lock."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection[Any],
        reader: LogReader,
        state: LogState,
        tables: Mapping[str, LakeTable],
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._reader = reader
        self._state = state
        self._tables = tables

    async def lake(self, picture: Picture) -> list[Finding]:
        """Put the lake's rows right, one commit a table; returns what is lost for good."""
        rebuilt = await self._from_stream(
            picture, missing_in_lake(picture)["dlq_sequence"].to_list()
        )
        ids = unknown_to_lake(picture)["failure_id"].to_list()
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
        return lost

    def postgres(self, picture: Picture) -> None:
        """Fold the cases that lack a row anew, from all that the lake knows of them."""
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
        postgres = FailedEvents(self._connection, self._state.stream, self._settings.redrive_cap)
        postgres.refold(list(by_epoch(letters, events)))

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


def _without(frame: pl.DataFrame, doubled: pl.DataFrame, path: str) -> pl.DataFrame:
    """A file's rows less the repeats that are in this file."""
    here = doubled.filter(pl.col("path") == path)
    message = ["epoch", "dlq_sequence", "published_at"]
    numbered = frame.with_columns(_nth=pl.int_range(pl.len()).over(message))
    total = frame.group_by(message).agg(_here=pl.len())
    drop = here.group_by(message).agg(_drop=pl.len())
    numbered = numbered.join(total, on=message, how="left", maintain_order="left")
    numbered = numbered.join(drop, on=message, how="left", maintain_order="left")
    is_kept = pl.col("_nth") < pl.col("_here") - pl.col("_drop").fill_null(0)
    return numbered.filter(is_kept).drop("_nth", "_here", "_drop")
