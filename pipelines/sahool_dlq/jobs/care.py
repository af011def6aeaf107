"""Who owns which failure group, for screens."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import polars as pl

from sahool_dlq.connections import open_postgres
from sahool_dlq.deadletter.group_changes import Mute, until_in_words
from sahool_dlq.errors import DLQError
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.group_care import care_of_group, group_care

__all__ = ["CARE", "care_of", "mute_in_words", "mute_left", "with_care"]

CARE: dict[str, pl.DataType] = {
    "owner": pl.String(),
    "owner_source": pl.String(),
    "note": pl.String(),
    "ticket": pl.String(),
    "labels": pl.String(),
    "muted": pl.String(),
}
"""The columns that `with_care` adds: texts for people, null where nothing was said."""


def care_of(settings: Settings, group_id: str) -> dict[str, Any]:
    """The row of a group in `group_care`; of a group that nobody owns or changed, its id only."""
    with open_postgres(settings) as connection:
        return care_of_group(connection, group_id)


def mute_in_words(row: Mapping[str, Any]) -> str | None:
    """How long the mute in a row of `group_care` lasts; None if it does not hold."""
    mute = mute_left(row)
    return until_in_words(mute) if mute else None


def mute_left(row: Mapping[str, Any]) -> Mute | None:
    """What is left of the mute in a row of `group_care`; None if it does not hold."""
    if not row.get("is_muted"):
        return None
    more = row["mute_more"]
    return Mute(row["mute_until"], None if more is None else more - row["further_count"])


def with_care(settings: Settings, failure_groups: pl.DataFrame) -> pl.DataFrame:
    """The mart with the columns of `CARE`; all null if PostgreSQL does not answer."""
    rows: list[dict[str, Any]] = []
    with suppress(DLQError), open_postgres(settings) as connection:
        rows = group_care(connection)
    known = [
        {
            **{name: row[name] for name in ("group_id", *CARE) if name in row},
            "labels": ", ".join(row["labels"] or ()) or None,
            "muted": mute_in_words(row),
        }
        for row in rows
    ]
    care = pl.DataFrame(known, schema={"group_id": pl.String(), **CARE})
    return failure_groups.join(care, on="group_id", how="left", maintain_order="left")
