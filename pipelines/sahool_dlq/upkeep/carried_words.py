"""What people said of a group follows its failures, when a regroup gives them another group.

Words go to the group that gets more than half of the failures. Where several groups become one, or
it has words already, only one set of words can stay: its own, else those of the group that gives it
most failures. The others are told, with the command that carries them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import Connection

from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.postgres.group_care import worded_groups
from sahool_dlq.upkeep.regroup import Carried, stale_groups

__all__ = ["carried", "planned_carries"]


def planned_carries(connection: Connection[Any], lake: Lake, rules: GroupingRules) -> list[Carried]:
    """Whose words a regroup with these rules carries, and whose not."""
    worded = worded_groups(connection)
    if not worded:
        return []
    moves: Counter[tuple[str, str]] = Counter()
    for before, after in stale_groups(connection, lake, rules, sorted(worded)):
        moves.update(zip(before, after, strict=True))
    totals: dict[str, int] = dict(
        connection.execute(
            "SELECT group_id, count(*) FROM failed_events WHERE group_id = ANY(%s) GROUP BY 1",
            [sorted(worded)],
        ).fetchall()
    )
    return list(carried(worded, moves, totals))


def carried(
    worded: Mapping[str, Any], moves: Mapping[tuple[str, str], int], totals: Mapping[str, int]
) -> Iterator[Carried]:
    """The same from what was said of groups, how many failures move from which group to which, and
    how many each group has. What was carried by a regroup that was killed is left out.
    """
    taken: set[str] = set()
    by_count = sorted(moves.items(), key=lambda move: (-move[1], move[0]))
    for (before, after), count in by_count:
        if before == after or 2 * count <= totals.get(before, 0):
            continue
        kept = None
        if after in worded:
            if worded[after] == worded[before]:
                continue
            kept = "that group has words of its own"
        elif after in taken:
            kept = "it gets the words of a group with more failures"
        taken.add(after)
        yield Carried(before, after, count, kept)
