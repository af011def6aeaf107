"""The pages that people read in Prefect: dead-letters, and one for each group of it.

Their links are relative, so they lead on in either of Prefect's UIs, below whatever address.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import polars as pl
from prefect import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.exceptions import ObjectNotFound

from sahool_dlq.analysis.report.advice import (
    by_urgency,
    chance_in_words,
    next_command,
    what_failed,
)
from sahool_dlq.analysis.report.section import (
    Links,
    Section,
    as_markdown,
    as_markdown_table,
    cell_text,
    escaped,
)
from sahool_dlq.analysis.report.sections import headline, sections
from sahool_dlq.orchestration.show import DEAD_LETTERS, markdown

__all__ = ["MOST_GROUPS", "Form", "dead_letters_page", "form_of", "group_page", "show_groups"]

MOST_GROUPS = 20
_LONGEST = 90  # characters of what failed, in a table
_NARROW = {  # of the report's sections, the columns for which a run's page has room
    "What changed since yesterday": ("what", "since yesterday", "failures 24 h"),
    "Health per service": ("service", "alert", "failures 24 h", "open", "oldest open"),
    "Redrive outcomes": ("error type", "redrives", "succeeded", "failed"),
}
Form = Callable[[Mapping[str, Any]], str]
"""The address of a deployment's form, filled in with parameters."""


async def form_of(deployment: str) -> Form | None:
    """The form of a deployment (`flow/name`); None where it is not deployed."""
    async with get_client() as client:
        try:
            found = await client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return None

    def form(parameters: Mapping[str, Any]) -> str:
        query = quote(json.dumps(dict(parameters), separators=(",", ":")), safe="")
        return f"../../deployments/deployment/{found.id}/run?parameters={query}"

    return form


def dead_letters_page(
    marts: Mapping[str, pl.DataFrame], now: datetime, redrive: Form | None
) -> str:
    """Every group with what failed and how it stands first, then what changed, health, outcomes."""
    found = {section.title: section for section in sections(marts, now)}
    figures = " · ".join(
        f"{what} **{cell_text(value)}**" for what, value, _ in found["Now"].rows[:4]
    )
    shown = by_urgency(marts["failure_groups"]).head(MOST_GROUPS).to_dicts()
    more = marts["failure_groups"].height - len(shown)
    note = f"{more:,} more groups: `dlq groups`." if more > 0 else ""
    groups = Section(
        "Failure groups",
        ("what", "state", "service", "open", ""),
        tuple(_row(group, redrive) for group in shown),
        f"{note} A name leads to the group's page.".strip(),
    )
    others = [_narrow(found[title], columns) for title, columns in _NARROW.items()]
    return as_markdown([groups, *others], now, headline(marts, now), figures=figures)


def _row(group: dict[str, Any], redrive: Form | None) -> tuple[Any, ...]:
    what = what_failed(group)
    what = what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…"
    can_be = redrive is not None and group["open_count"]
    return (
        Links(((what, f"../key/{_key(group['group_id'])}"),)),
        group["state"],
        group["services"],
        group["open_count"],
        Links((("redrive", redrive({"group": group["group_id"]})),)) if redrive and can_be else "",
    )


def _narrow(section: Section, columns: Sequence[str]) -> Section:
    places = [section.columns.index(column) for column in columns]
    rows = tuple(tuple(row[place] for place in places) for row in section.rows)
    return Section(section.title, tuple(columns), rows, "")


def group_page(
    group: Mapping[str, Any],
    sample: Mapping[str, Any] | None,
    redrive: Form | None,
    dry_run: Form | None,
) -> str:
    """One group (a row of `failure_groups`), one of its failures, and what can be done.

    It says nothing that only time changes, so that it is written anew when the group changed.
    """
    id_ = group["group_id"]
    links = [("All groups", f"../key/{DEAD_LETTERS}")]
    if dry_run is not None and group["open_count"]:
        links.append(("See what a redrive would do", dry_run({"failures": {"group": id_}})))
    if redrive is not None and group["open_count"]:
        links.append(("Redrive", redrive({"group": id_})))
    facts = Section(
        "",
        ("", ""),
        (
            ("state", group["state"]),
            ("open", group["open_count"]),
            ("of these parked", group["parked_count"]),
            ("failures in all", group["failure_count"]),
            ("tenants", group["tenant_count"]),
            ("services", group["services"]),
            ("consumers", group["consumers"]),
            ("first seen", group["first_seen_at"]),
            ("last seen", group["last_seen_at"]),
            ("a redrive works", chance_in_words(group)),
        ),
    )
    lines = [f"# {escaped(what_failed(group))}", "", escaped(Links(tuple(links))), ""]
    lines += [*as_markdown_table(facts), ""]
    if frames := (group["frames"] or "").split(" < "):
        lines += ["## Where, the nearest first", "", *(f"1. {escaped(f)}" for f in frames if f), ""]
    if sample is not None:
        shown = Section("", ("", ""), tuple(sample.items()))
        lines += ["## The latest of them", "", *as_markdown_table(shown), ""]
    if command := next_command(group):
        lines += ["## At a terminal", "", "```sh", command, f"dlq show {id_}", "```", ""]
    return "\n".join(lines)


async def show_groups(pages: Mapping[str, tuple[str, str]]) -> int:
    """Write the pages (text and description, by group) that are new or say something new.

    How many were written. What is as it was stays the artifact of the run that wrote it.
    """
    keys = {_key(group): group for group in pages}
    async with get_client() as client:
        known = await client.read_latest_artifacts(
            artifact_filter=ArtifactCollectionFilter(
                key=ArtifactCollectionFilterKey(any_=list(keys))
            ),
            limit=len(keys),
        )
    before = {artifact.key: artifact.data for artifact in known}
    new = [key for key, group in keys.items() if before.get(key) != pages[group][0]]
    for key in new:
        await markdown(key, *pages[keys[key]])
    return len(new)


def _key(group_id: str) -> str:
    return f"group-{group_id}"
