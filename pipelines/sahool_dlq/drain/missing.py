"""Messages that left the middle of the log before a drain read them.

The oldest are removed by age and size; others by a limit per subject, a time to live, a rollup, a
purge by subject or a deletion. In a stream for dead letters only, every sequence is one of our
messages, and the server lists the deleted ones. In a shared stream a missing sequence may have been
any message: lost messages of ours cannot be determined.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

from nats.aio.client import Client

from sahool_dlq.drain.epochs import gaps_before
from sahool_dlq.jetstream.contents import deleted_sequences
from sahool_dlq.jetstream.reader import LogReader, LogState
from sahool_dlq.stores.epoch_ids import Gap, runs

_TOLD_ONE_BY_ONE = 3


class Known(Protocol):
    """Messages that need not be read."""

    erased: list[int]

    def knows(self, sequences: Sequence[int]) -> set[int]:
        """Those of these sequences that are not lost."""


@dataclass(slots=True)
class Missing:
    """Messages missing in the stream, at the latest check."""

    client: Client
    reader: LogReader
    state: LogState  # as the drain began
    deleted: Sequence[int]  # sequences that the stream lacks between its first and its last

    async def gaps(self, sequences: Sequence[int], after: int, known: Known) -> list[Gap]:
        """Messages lost between `after` and the last of these sequences, which were read."""
        if self.state.is_shared or sequences[-1] - after == len(sequences):
            return []
        spans = [(a, b) for a, b in pairwise([after, *sequences]) if b > a + 1]
        first = self.state.first_sequence
        if not all(len(self._between(a, b)) == b - a - 1 for a, b in spans):  # removed since then
            now = await self.reader.state()
            first, self.deleted = now.first_sequence, await deleted_sequences(self.client, now)
        found = list[Gap]()
        for a, b in spans:
            seen = replace(self.state, first_sequence=min(first, b))
            found += gaps_before(seen, a, known.erased)
        gone = [s for a, b in spans for s in self._between(max(a, first - 1), b)]
        lost = sorted({*gone} - known.knows(gone))
        return [*found, *(Gap(a, b, self.state.why_missing, True) for a, b in runs(lost))]

    def _between(self, low: int, high: int) -> Sequence[int]:
        return self.deleted[bisect_left(self.deleted, low + 1) : bisect_left(self.deleted, high)]


def in_words(gaps: Sequence[Gap]) -> Iterator[str]:
    """One sentence for each, or one for all if there are many."""
    certainty = "Lost" if all(gap.is_certain for gap in gaps) else "Possibly lost"
    if len(gaps) > _TOLD_ONE_BY_ONE:
        count = sum(gap.last_sequence - gap.first_sequence + 1 for gap in gaps)
        yield (
            f"{certainty}: {count:,} messages in {len(gaps):,} runs, sequences"
            f" {gaps[0].first_sequence} to {gaps[-1].last_sequence}; {gaps[-1].reason}."
        )
        return
    for gap in gaps:
        yield (f"{certainty}: sequences {gap.first_sequence} to {gap.last_sequence}; {gap.reason}.")
