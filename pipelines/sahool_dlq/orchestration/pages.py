"""The pages in Prefect for people: dead-letters, one for each of its groups, and incidents.

Their links are relative, so they work in both of Prefect's UIs, at any address.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import polars as pl
from prefect import get_client
from prefect.client.schemas.filters import ArtifactCollectionFilter, ArtifactCollectionFilterKey
from prefect.exceptions import ObjectNotFound

from sahool_dlq.analysis.report.advice import (
    by_urgency,
    care_in_words,
    chance_in_words,
    next_command,
    state_in_words,
    what_failed,
)
from sahool_dlq.analysis.report.incidents import in_words, names, services_in_words
from sahool_dlq.analysis.report.section import (
    Links,
    Section,
    as_markdown,
    as_markdown_table,
    cell_text,
    escaped,
)
from sahool_dlq.analysis.report.sections import headline, sections
from sahool_dlq.orchestration.show import DEAD_LETTERS, INCIDENTS, markdown

__all__ = [
    "MOST_GROUPS",
    "Form",
    "dead_letters_page",
    "form_of",
    "group_page",
    "incidents_page",
    "show_groups",
]

MOST_GROUPS = 20
_MOST_INCIDENTS = 10
_LONGEST = 46  # characters of a cell: Prefect's first UI breaks no line of it
_NARROW = {  # of the report's sections, the columns for which a run's page has room
    "Incidents": ("incident", "services", "lasted", "failures", "open"),
    "What changed since yesterday": ("what", "since yesterday"),
    "Health per service": ("service", "alert", "failures 24 h", "open", "oldest open"),
    "Redrive outcomes": ("error type", "redrives", "succeeded", "failed"),
}
_CARE = ("owner", "ticket", "labels", "muted", "note")
Form = Callable[[Mapping[str, Any]], str]
"""The address of a deployment's form with these parameters."""


async def form_of(deployment: str) -> Form | None:
    """The form of a deployment (`flow/name`); None if it is not deployed."""
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
    marts: Mapping[str, pl.DataFrame],
    now: datetime,
    pages: Mapping[str, str],
    redrive: Form | None,
) -> str:
    """Every group with its error and state first, then changes, health, outcomes.

    `pages` are the addresses of the groups' pages.
    """
    found = {section.title: section for section in sections(marts, now)}
    figures = " · ".join(
        f"{what} **{cell_text(value)}**" for what, value, _ in found["Now"].rows[:4]
    )
    figures += f" · [incidents](../key/{INCIDENTS})"
    shown = by_urgency(marts["failure_groups"]).head(MOST_GROUPS).to_dicts()
    more = marts["failure_groups"].height - len(shown)
    note = f"{more:,} more groups: `dlq groups`." if more > 0 else ""
    is_owned = any(map(care_in_words, shown))
    groups = Section(
        "Failure groups",
        ("what", "state", "open", *(("owner",) if is_owned else ()), "go to"),
        tuple(_row(group, pages[group["group_id"]], redrive, is_owned=is_owned) for group in shown),
        note,
    )
    others = [_narrow(found[title], columns) for title, columns in _NARROW.items()]
    return as_markdown([groups, *others], now, headline(marts, now), figures=figures)


def incidents_page(
    marts: Mapping[str, pl.DataFrame], now: datetime, pages: Mapping[str, str]
) -> str:
    """The newest incidents with their groups, which are linked where `pages` has their address."""
    by_id = {group["group_id"]: group for group in marts["failure_groups"].to_dicts()}
    rows = marts["incidents"].head(_MOST_INCIDENTS).to_dicts()
    lines = [f"# Incidents, {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC", ""]
    lines += [escaped(Links((("All groups", f"../key/{DEAD_LETTERS}"),))), ""]
    if not rows:
        lines += ["No group failed far more than usual in 13 weeks.", ""]
    for row in rows:
        groups = [by_id[id_] for id_ in names(row["groups"]) if id_ in by_id]
        lines += [f"## {escaped(services_in_words(row))}", "", f"{escaped(in_words(row))}.", ""]
        lines += [*as_markdown_table(_members(groups, pages)), ""]
        lines += ["```sh", f"dlq incident {row['incident_id']}", "```", ""]
    return "\n".join(lines)


def _members(groups: Sequence[Mapping[str, Any]], pages: Mapping[str, str]) -> Section:
    rows = []
    for group in groups[:MOST_GROUPS]:
        page = pages.get(group["group_id"])
        links = Links((("page", page),)) if page else "–"
        what, state = what_failed(group, _LONGEST), state_in_words(group)
        rows.append((what, state, group["open_count"], links))
    more = len(groups) - len(rows)
    if more > 0:
        rows.append((f"and {more:,} more groups", "", None, "–"))
    return Section("", ("what", "state", "open", "go to"), tuple(rows))


def _row(
    group: dict[str, Any], page: str, redrive: Form | None, *, is_owned: bool
) -> tuple[Any, ...]:
    links = _links(group, (("redrive", redrive, {"group": group["group_id"]}),))
    links = Links((("page", page), *links.addresses))
    owner = (_cut(care_in_words(group)),) if is_owned else ()
    return what_failed(group, _LONGEST), state_in_words(group), group["open_count"], *owner, links


def _cut(text: Any) -> Any:
    is_long = isinstance(text, str) and len(text) > _LONGEST
    return f"{text[: _LONGEST - 1]}…" if is_long else text


def _links(
    group: Mapping[str, Any], forms: Iterable[tuple[str, Form | None, Mapping[str, Any]]]
) -> Links:
    """Links to the actions for a group; none if nothing is open."""
    return Links(
        tuple((text, form(given)) for text, form, given in forms if form and group["open_count"])
    )


def _narrow(section: Section, columns: Sequence[str]) -> Section:
    places = [section.columns.index(column) for column in columns]
    rows = tuple(tuple(_cut(row[place]) for place in places) for row in section.rows)
    return Section(section.title, tuple(columns), rows)


def group_page(
    group: Mapping[str, Any],
    sample: Mapping[str, Any] | None,
    redrive: Form | None,
    dry_run: Form | None,
) -> str:
    """One group (a row of `failure_groups`), one of its failures, and the possible actions.

    It contains nothing that changes only with time, so it is written again only when the group
    changed.
    """
    id_ = group["group_id"]
    links = _links(
        group,
        (
            ("See what a redrive would do", dry_run, {"failures": {"group": id_}}),
            ("Redrive", redrive, {"group": id_}),
        ),
    )
    links = Links((("All groups", f"../key/{DEAD_LETTERS}"), *links.addresses))
    facts = Section(
        "",
        ("state", state_in_words(group)),
        (
            ("open", group["open_count"]),
            ("of these parked", group["parked_count"]),
            ("failures in all", group["failure_count"]),
            ("tenants", group["tenant_count"]),
            ("services", group["services"]),
            ("consumers", group["consumers"]),
            *((name, said) for name in _CARE if (said := group.get(name))),
            ("first seen", group["first_seen_at"]),
            ("last seen", group["last_seen_at"]),
            ("a redrive works", chance_in_words(group)),
        ),
    )
    lines = [f"# {escaped(what_failed(group))}", "", escaped(links), ""]
    lines += [*as_markdown_table(facts), ""]
    if frames := (group["frames"] or "").split(" < "):
        lines += [
            "## Where (nearest frame first)",
            "",
            *(f"1. {escaped(f)}" for f in frames if f),
            "",
        ]
    if sample is not None:
        shown = Section("", ("failure", sample["failure"]), tuple(sample.items())[1:])
        lines += ["## The latest failure", "", *as_markdown_table(shown), ""]
    commands = dict.fromkeys(filter(None, (f"dlq show {id_}", next_command(group))))
    lines += ["## At a terminal", "", "```sh", *commands, "```", ""]
    return "\n".join(lines)


async def show_groups(
    groups: Sequence[Mapping[str, Any]], pages: Mapping[str, str]
) -> tuple[dict[str, str], int]:
    """Write the pages (text by group id) that are new or changed.

    Returns the address of each by group id, and how many were written. An unchanged page stays the
    artifact of the run that wrote it.
    """
    keys = {group["group_id"]: _key(group) for group in groups}
    wanted = ArtifactCollectionFilterKey(any_=list(keys.values()))
    async with get_client() as client:
        known = await client.read_latest_artifacts(
            artifact_filter=ArtifactCollectionFilter(key=wanted), limit=max(len(keys), 1)
        )
    before = {artifact.key: artifact for artifact in known}
    addresses, written = {}, 0
    for group in groups:
        id_ = group["group_id"]
        found = before.get(keys[id_])
        if found is not None and found.data == pages[id_]:
            artifact = found.latest_id
        else:
            what = escaped(what_failed(group)[:120])
            said = f"{group['open_count']:,} open, {state_in_words(group)}: {what}"
            artifact, written = await markdown(keys[id_], pages[id_], said), written + 1
        addresses[id_] = f"../artifact/{artifact}"
    return addresses, written


def _key(group: Mapping[str, Any]) -> str:
    """`group-timeout-error-1f0c9a2b`: the name of a group's page in the list of artifacts."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", str(group["error_class"])).lower()
    error = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:40]
    return "-".join(filter(None, ("group", error, group["group_id"][:8])))
