"""Which outbreaks of failure groups are one incident.

Two outbreaks belong together if their groups have the same cause and both last at some time; or if
they begin within minutes of each other and their groups do so more often than by chance. What
belongs together with the same outbreak is one incident.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import combinations
from math import comb
from typing import NamedTuple

import polars as pl
import scipy  # loads its parts, which is slow, on first use

from sahool_dlq.analysis.marts.significance import adjusted, fisher_tail

__all__ = ["MOST_MINUTES_APART", "with_incidents"]

MOST_MINUTES_APART = 2
"""Between the beginnings of two outbreaks that may be one incident; as in `co_failures`."""

_MOST_P = 0.01
_SLOT_MINUTES = 2 * MOST_MINUTES_APART + 1


class _Outbreak(NamedTuple):
    group: str
    cause: str | None
    from_minute: int
    until_minute: int


_Pair = tuple[int, int]  # the places of two outbreaks


def with_incidents(outbreaks: pl.DataFrame) -> pl.DataFrame:
    """The outbreaks (group_id, cause_id, noticed_minute, from_minute, until_minute, and
    history_minutes, the period in which they were looked for) with `incident_id`.

    An incident is named after the outbreak that was noticed first: the hour, and the first digits
    of its group. So its name stays while it grows.
    """
    columns = ("group_id", "cause_id", "from_minute", "until_minute")
    known = [_Outbreak(*row) for row in outbreaks.select(columns).iter_rows()]
    slots = max([_SLOT_MINUTES, *outbreaks["history_minutes"]]) // _SLOT_MINUTES
    parts = _connected(len(known), {*_of_one_cause(known), *_often_together(known, slots)})
    noticed = list(outbreaks.select("noticed_minute", "group_id").iter_rows())
    first: dict[int, tuple[int, str]] = {}
    for part, each in zip(parts, noticed, strict=True):
        first[part] = min(each, first.get(part, each))
    names = pl.Series("incident_id", [_name(*first[part]) for part in parts], pl.String)
    return outbreaks.drop("history_minutes").insert_column(0, names)


def _name(minute: int, group: str) -> str:
    return f"{datetime.fromtimestamp(minute * 60, UTC):%Y%m%d-%H}-{group[:6]}"


def _of_one_cause(outbreaks: list[_Outbreak]) -> Iterator[_Pair]:
    """Outbreaks of groups with the same cause that last at the same time."""
    by_cause: dict[str, list[int]] = {}
    for place, outbreak in enumerate(outbreaks):
        if outbreak.cause:
            by_cause.setdefault(outbreak.cause, []).append(place)
    for places in by_cause.values():
        lasting: list[int] = []
        for place in sorted(places, key=lambda place: outbreaks[place].from_minute):
            began = outbreaks[place].from_minute
            lasting = [before for before in lasting if outbreaks[before].until_minute >= began]
            yield from ((before, place) for before in lasting)
            lasting.append(place)


def _often_together(outbreaks: list[_Outbreak], slots: int) -> Iterator[_Pair]:
    """Outbreaks that begin together, of two groups that do so more often than by chance."""
    met: dict[tuple[str, str], list[_Pair]] = {}
    for a, b in _beginning_together(outbreaks):
        met.setdefault((outbreaks[a].group, outbreaks[b].group), []).append((a, b))
    if not met:
        return
    counts = Counter(outbreak.group for outbreak in outbreaks)
    tails = fisher_tail(
        pl.Series([len({a for a, _ in pairs}) for pairs in met.values()]),
        pl.Series([counts[a] for a, _ in met]),
        pl.Series([counts[b] for _, b in met]),
        slots,
    )
    # All pairs of groups were looked at; of those that never met, the probability is 1.
    adjusted_p = adjusted(tails) * comb(len(counts), 2) / len(met)
    for pairs, p in zip(met.values(), adjusted_p, strict=True):
        if p < _MOST_P:
            yield from pairs


def _beginning_together(outbreaks: list[_Outbreak]) -> Iterator[_Pair]:
    """Pairs of outbreaks of two groups, in the order of the groups' names."""
    by_minute: dict[int, list[int]] = {}
    for place, outbreak in enumerate(outbreaks):
        by_minute.setdefault(outbreak.from_minute, []).append(place)
    for minute, places in by_minute.items():
        later = range(minute + 1, minute + MOST_MINUTES_APART + 1)
        others = [place for at in later for place in by_minute.get(at, ())]
        pairs = [*combinations(places, 2), *((a, b) for a in places for b in others)]
        for a, b in pairs:
            if outbreaks[a].group != outbreaks[b].group:
                yield (a, b) if outbreaks[a].group < outbreaks[b].group else (b, a)


def _connected(count: int, pairs: set[_Pair]) -> list[int]:
    """The number of the connected part that each outbreak is in."""
    ends = ([a for a, _ in pairs], [b for _, b in pairs])
    graph = scipy.sparse.coo_array(([1] * len(pairs), ends), shape=(count, count))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return [int(label) for label in labels]
