"""`unfounded_outcomes`: reports about redrives that are not in the log, stored to be shown.

They change no case. Once the redrive's `published` comes, they are removed and applied to their
case.
"""

import logging
from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any

from psycopg import Connection

from sahool_dlq.deadletter.case_events import CaseEvent
from sahool_dlq.deadletter.claims import Claim

__all__ = ["early_claims", "store_claims", "unfounded_counts"]

logger = logging.getLogger(__name__)

_NAMES = [field.name for field in fields(Claim)]
_UUIDS = ("failure_id", "redrive_id", "letter_id")
_COLUMNS = ", ".join(f"{n}::text" if n in _UUIDS else n for n in _NAMES)


def early_claims(connection: Connection[Any], events: Sequence[CaseEvent]) -> list[Claim]:
    """Stored reports about the redrives that these events announce, in the order of the log."""
    announced = [
        event.redrive_id
        for event in events
        if event.kind == "redrive.published" and not event.parse_error and event.redrive_id
    ]
    if not announced:
        return []
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM unfounded_outcomes"  # noqa: S608  (our own names, bound values)
        " WHERE redrive_id = ANY(%s::uuid[]) ORDER BY published_at, dlq_sequence",
        [announced],
    )
    return [Claim(*row) for row in rows]


def store_claims(
    connection: Connection[Any], claims: Sequence[Claim], founded: Sequence[Claim]
) -> None:
    """Store new ones, which are logged with their number, and remove those that count now."""
    with connection.cursor() as cursor:
        if founded:
            cursor.executemany(
                "DELETE FROM unfounded_outcomes WHERE epoch = %s AND dlq_sequence = %s",
                [[claim.epoch, claim.dlq_sequence] for claim in founded],
            )
        if claims:
            cursor.executemany(
                f"INSERT INTO unfounded_outcomes ({', '.join(_NAMES)})"  # noqa: S608  (our own names, bound values)
                f" VALUES ({', '.join(['%s'] * len(_NAMES))}) ON CONFLICT DO NOTHING",
                [astuple(claim) for claim in claims],
            )
            first = claims[0]
            logger.warning(
                "%d outcomes are ignored: the log has no such redrive, or it was for another"
                " consumer. The first: %s of failure %s by %s, sequence %d.",
                len(claims),
                first.kind,
                first.failure_id,
                first.consumer or "an unknown consumer",
                first.dlq_sequence,
            )


def unfounded_counts(connection: Connection[Any]) -> dict[str, int]:
    """Their number by kind of message, the most frequent first."""
    rows = connection.execute(
        "SELECT kind, count(*) FROM unfounded_outcomes GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    return dict(rows.fetchall())
