"""The next step for a failure group: pure, with the same words everywhere."""

from collections.abc import Mapping
from typing import Any

import polars as pl

__all__ = [
    "LIKELY",
    "UNLIKELY",
    "by_urgency",
    "care_in_words",
    "chance_in_words",
    "next_command",
    "state_in_words",
    "to_look_at",
    "what_failed",
]

LIKELY = 0.5
UNLIKELY = 0.2
_NOTABLE = ("new", "escalating", "regressed")
_URGENCY = {"escalating": 0, "regressed": 1, "new": 1, "ongoing": 2, "fixed": 3, "resolved": 4}


def by_urgency(failure_groups: pl.DataFrame) -> pl.DataFrame:
    """The groups, first those that got worse, then by open failures."""
    urgency = pl.col("state").replace_strict(_URGENCY, default=2)
    return failure_groups.sort(urgency, -pl.col("open_count"), -pl.col("failure_count"), "group_id")


def to_look_at(failure_groups: pl.DataFrame) -> pl.DataFrame:
    """The groups with open failures that are new, escalating or regressed, by their state."""
    return failure_groups.filter(pl.col("open_count") > 0, pl.col("state").is_in(_NOTABLE))


def what_failed(group: Mapping[str, Any], most: int | None = None) -> str:
    """A group in a few words: its type and message, or where it failed if it has none.

    Cut after a word if it would have more than `most` characters.
    """
    said = (group["template"] or "").strip()
    if said not in ("", "None", "null"):
        told = f"{group['error_class']}: {said}"
        return told if most is None or len(told) <= most else _cut(told, most)
    nearest = (group["frames"] or "").split(" < ")[0].rpartition(":")[2]
    return f"{group['error_class']} (no message){f' in {nearest}' if nearest else ''}"


def _cut(text: str, most: int) -> str:
    kept = text[: most - 1]
    return f"{kept.rpartition(' ')[0] or kept}…"


def state_in_words(group: Mapping[str, Any]) -> str:
    """The state of a group, with the version: `regressed in 2.5`, `fixed in 2.4`.

    `group` is a row of `failure_groups`.
    """
    by_state = {"regressed": "regressed_in_version"} | dict.fromkeys(
        ("fixed", "resolved"), "resolved_in_version"
    )
    state = str(group["state"])
    version = group[by_state[state]] if state in by_state else None
    return f"{state} in {version}" if version else state


def chance_in_words(group: Mapping[str, Any]) -> str:
    """The chance of a redrive, and the number of outcomes behind it, as text.

    `group` is a row of `failure_groups`. Without outcomes the chance is the prior of this kind of
    error (transient or not), and the text says so.
    """
    chance = group["redrive_chance"]
    word = "likely" if chance >= LIKELY else "unlikely" if chance < UNLIKELY else "possible"
    if not group["redrive_count"]:
        return f"{word}, never tried"
    succeeded, tried = group["redrive_succeeded_count"], group["redrive_count"]
    return f"{word}, {chance:.0%} ({succeeded:,} of {tried:,} succeeded)"


def care_in_words(group: Mapping[str, Any]) -> str:
    """Who owns a group, whether it is muted, and what else people said of it; empty if nothing.

    `group` is a row of `failure_groups` with the columns of `jobs.care.CARE`, if they are known.
    """
    muted = group.get("muted")
    said = group.get("owner"), muted and f"muted {muted}", group.get("labels"), group.get("ticket")
    return " · ".join(filter(None, said))


def next_command(group: Mapping[str, Any]) -> str:
    """The next command to run; empty if nothing is open."""
    if not group["open_count"]:
        return ""
    # A parked failure is redriven by its id; a likely bug should be checked before a redrive.
    if group["open_count"] == group["parked_count"] or group["redrive_chance"] < UNLIKELY:
        return f"dlq show {group['group_id']}"
    return f"dlq redrive --group {group['group_id']} --dry-run"
