"""The versions of each service, and the failure groups that each brought or cured."""

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from sahool_dlq.analysis.versions import in_order
from sahool_dlq.jobs.marts import compute_marts
from sahool_dlq.settings import Settings

__all__ = ["Deploy", "list_deploys"]


@dataclass(frozen=True, slots=True)
class Deploy:
    """One version of a service."""

    service: str
    version: str
    first_seen_at: datetime  # UTC; its first process, or failure
    last_seen_at: datetime
    failures: int  # in it, including those of redrives
    successes: int  # redrives that succeeded in it
    brought: tuple[str, ...]  # groups that failed first in it
    cured: tuple[str, ...]  # groups that redrives cured in it
    brought_back: tuple[str, ...]  # groups that an earlier version had cured


def list_deploys(settings: Settings, now: datetime, service: str | None = None) -> list[Deploy]:
    """All versions in the lake, by service, the highest first."""
    rows = compute_marts(settings, ["deploys"], now)["deploys"].to_dicts()  # in order of appearance
    found: list[Deploy] = []
    for name, its in groupby(rows, key=lambda row: row["service"]):
        if service in (None, name):
            deploys = {row["consumer_version"]: _deploy(row) for row in its}
            found += [deploys[version] for version in reversed(in_order(list(deploys)))]
    return found


def _deploy(row: dict[str, Any]) -> Deploy:
    def groups(name: str) -> tuple[str, ...]:
        return tuple(row[name].split(", ")) if row[name] else ()

    return Deploy(
        row["service"],
        row["consumer_version"],
        row["first_seen_at"],
        row["last_seen_at"],
        row["failure_count"],
        row["success_count"],
        groups("brought"),
        groups("cured"),
        groups("brought_back"),
    )
