"""Compares stream, lake and PostgreSQL: what one has and another lacks. No I/O.

Two messages of the log are the same if life of the stream, sequence and server time are equal; the
forks of one life (see `epochs`) share the sequences below the fork.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import polars as pl

from sahool_dlq.deadletter.rows import IDENTITY
from sahool_dlq.stores.epoch_ids import fork_of, is_of, life_column, life_of, runs
from sahool_dlq.stores.lake.files import LakeFile

LAKE_IDENTITY = IDENTITY | {"path": pl.String()}
_SHOWN_RANGES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem."""

    kind: str  # torn_log | damaged_file | behind | missing_in_lake | doubled_in_lake | …
    where: str  # a file, an epoch or a sink
    what: str  # a sentence
    count: int  # of messages, rows or files
    is_repaired: bool = False


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file of the lake whose content differs from what was written, or is unreadable."""

    table: str
    file: LakeFile
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The content of each store, up to the sequence that all of them reached."""

    epoch: str  # the current one
    up_to: int
    forks: Mapping[str, int]  # first sequence of each fork of this life, the newest last
    stored: Sequence[int]  # sequences that the stream has, up to `up_to`
    letters: pl.DataFrame  # LAKE_IDENTITY, every dead letter of the lake that can be read
    events: pl.DataFrame  # LAKE_IDENTITY
    rows: pl.DataFrame  # IDENTITY, every row of failed_events that came from the log
    damaged: Sequence[DamagedFile]
    erased: pl.DataFrame  # ERASED_SCHEMA; none of the above has these
    leftover: Mapping[str, int]  # number of erased messages that are still in a store
    kept_since: datetime | None = None  # the lake's retention removed older ones

    @property
    def life(self) -> str:
        """The stream and its creation, which the forks share."""
        return life_of(self.epoch)


def settled(before: Sequence[Finding], after: Sequence[Finding]) -> list[Finding]:
    """The findings before a repair, marked as repaired if they are not found after it, then the
    rest.
    """
    left = {(finding.kind, finding.where) for finding in after}
    mended = [
        replace(finding, is_repaired=True)
        for finding in before
        if finding.kind != "lost_rows" and (finding.kind, finding.where) not in left
    ]
    return [*mended, *after, *(finding for finding in before if finding.kind == "lost_rows")]


def findings(picture: Picture) -> list[Finding]:
    """All problems, one finding for each kind and epoch."""
    return [
        *(
            Finding(
                "damaged_file",
                f"{damaged.table}/{damaged.file.path}",
                f"{damaged.table}/{damaged.file.path} is damaged: {damaged.reason}.",
                damaged.file.row_count or 0,
            )
            for damaged in picture.damaged
        ),
        *(
            Finding(
                "erased",
                store,
                f"{count:,} messages that were erased are in {store}: run `dlq erase` for their"
                " tenant again.",
                count,
            )
            for store, count in picture.leftover.items()
            if count
        ),
        *_by_epoch(
            "missing_in_lake",
            "in the stream but not in the lake",
            missing_in_lake(picture).with_columns(epoch=pl.lit(picture.epoch)),
        ),
        *_by_epoch("doubled_in_lake", "in the lake more than once", doubled_in_lake(picture)),
        *_by_epoch(
            "missing_in_postgres",
            "in the lake but not in failed_events",
            missing_in_postgres(picture),
        ),
        *_by_epoch(
            "unknown_to_lake",
            "in failed_events but neither in the lake nor in the stream",
            unknown_to_lake(picture),
        ),
    ]


def counts(picture: Picture) -> list[dict[str, Any]]:
    """For each epoch, its sequences and the number of messages in each store."""
    tables = {"lake_dead_letters": picture.letters, "lake_case_events": picture.events}
    found = [
        frame.group_by("epoch")
        .agg(
            pl.len().alias("n"),
            pl.col("dlq_sequence").min().alias("first"),
            pl.col("dlq_sequence").max().alias("last"),
        )
        .with_columns(store=pl.lit(name))
        for name, frame in {**tables, "postgres": picture.rows}.items()
    ]
    report = []
    for (epoch,), rows in sorted(pl.concat(found).group_by("epoch"), key=lambda item: item[0]):
        held = dict(rows.select("store", "n").iter_rows())
        report.append(
            {
                "epoch": epoch,
                "first_sequence": rows["first"].min(),
                "last_sequence": rows["last"].max(),
                "stream": len(picture.stored) if epoch == picture.epoch else None,
                **{name: held.get(name, 0) for name in (*tables, "postgres")},
            }
        )
    return report


def missing_in_lake(picture: Picture) -> pl.DataFrame:
    """`dlq_sequence` of messages in the stream that the lake lacks."""
    held = pl.concat([picture.letters, picture.events]).filter(_is_in_stream(picture))
    stored = pl.DataFrame({"dlq_sequence": picture.stored}, schema={"dlq_sequence": pl.Int64})
    if picture.kept_since is not None and not held.is_empty():
        stored = stored.filter(pl.col("dlq_sequence") >= held["dlq_sequence"].min())
    return stored.join(held, on="dlq_sequence", how="anti")


def doubled_in_lake(picture: Picture) -> pl.DataFrame:
    """LAKE_IDENTITY of all but the first row of each message that is twice in the lake."""
    everything = pl.concat([picture.letters, picture.events])
    message = (life_column(), pl.col("dlq_sequence"), pl.col("published_at"))
    return everything.sort("epoch", "path").filter(pl.int_range(pl.len()).over(message) > 0)


def missing_in_postgres(picture: Picture) -> pl.DataFrame:
    """LAKE_IDENTITY of the first dead letter of each failure without a row."""
    expected = picture.letters.filter(_is_expected(picture))
    absent = expected.join(picture.rows, on="failure_id", how="anti")
    return absent.sort("epoch", "dlq_sequence").unique("failure_id", maintain_order=True)


def unknown_to_lake(picture: Picture) -> pl.DataFrame:
    """IDENTITY of the rows of failed_events whose dead letter only PostgreSQL has."""
    expected = picture.rows.filter(_is_expected(picture))
    if picture.kept_since is not None:
        expected = expected.filter(pl.col("published_at") >= picture.kept_since)
    absent = _without_message(expected, picture.letters)
    is_stored = pl.col("dlq_sequence").is_in(list(picture.stored)) & _is_in_stream(picture)
    return absent.filter(~is_stored).sort("epoch", "dlq_sequence")


def _without_message(frame: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Rows whose exact message the others lack; other dead letters of a failure do not count."""
    message = (life_column(), pl.col("dlq_sequence"), pl.col("published_at"))
    return frame.join(others, on=message, how="anti", maintain_order="left")


def _is_in_stream(picture: Picture) -> pl.Expr:
    """Whether it is of this life of the stream, and not of a part that was removed when it was set
    back.
    """
    is_lost = pl.lit(value=False)
    for epoch in picture.forks:
        later = [start for name, start in picture.forks.items() if fork_of(name) > fork_of(epoch)]
        if later:
            is_lost |= (pl.col("epoch") == epoch) & (pl.col("dlq_sequence") >= min(later))
    return is_of(picture.life) & ~is_lost


def _is_expected(picture: Picture) -> pl.Expr:
    """Whether every sink should have it by now."""
    return ~is_of(picture.life) | (pl.col("dlq_sequence") <= picture.up_to)


def _by_epoch(kind: str, where: str, frame: pl.DataFrame) -> list[Finding]:
    found = []
    for (epoch,), rows in sorted(frame.group_by("epoch"), key=lambda item: str(item[0])):
        sequences = sorted(rows["dlq_sequence"])
        found.append(
            Finding(
                kind,
                str(epoch),
                f"{len(sequences):,} messages of {epoch} are {where}: sequences"
                f" {ranges(sequences)}.",
                len(sequences),
            )
        )
    return found


def ranges(sequences: Iterable[int]) -> str:
    """1, 2, 3, 7 as `1–3, 7`; at most one line."""
    found = runs(sequences)
    shown = [f"{a}–{b}" if a < b else str(a) for a, b in found[:_SHOWN_RANGES]]
    more = f" and {len(found) - len(shown)} more ranges" if len(found) > len(shown) else ""
    return ", ".join(shown) + more
