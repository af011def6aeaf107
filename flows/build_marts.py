"""build-marts: the small tables that explain the failures, and the pages that show them."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

import polars as pl
from prefect import State, flow

from sahool_dlq.alerts.text import quantity
from sahool_dlq.analysis.report.advice import by_urgency, to_look_at
from sahool_dlq.analysis.report.incidents import names
from sahool_dlq.analysis.report.sections import NEEDED_MARTS, printable_frames
from sahool_dlq.jobs.care import with_care
from sahool_dlq.jobs.lookup import samples
from sahool_dlq.jobs.marts import MartsReport, build_all_marts, escalating_groups, stored_marts
from sahool_dlq.orchestration.pages import (
    MOST_GROUPS,
    dead_letters_page,
    form_of,
    group_page,
    incidents_page,
    show_groups,
)
from sahool_dlq.orchestration.show import DEAD_LETTERS, INCIDENTS, happened, markdown, table, told
from sahool_dlq.orchestration.stages import in_one_sentence, stage
from sahool_dlq.settings import Settings, load_settings


@flow(name="build-marts", flow_run_name="build-marts", timeout_seconds=3600)
@in_one_sentence
async def build_marts(is_rebuild: bool = False) -> State:
    """Compute every mart from the lake and write it to the lake and to Postgres.

    The page "dead-letters" of the run shows groups, health and what changed since yesterday; a
    group's name links to its page, which links to the filled-in form of its redrive. The page
    "incidents" shows which groups failed together.

    Args:
        is_rebuild: Count every day again, not only what is new since the last run.
    """
    settings = load_settings()
    before = await asyncio.to_thread(escalating_groups, settings)
    built = await stage(
        "Build the marts",
        lambda: asyncio.to_thread(build_all_marts, settings, is_rebuild=is_rebuild),
        _built,
        is_repeatable=True,
    )
    marts = await asyncio.to_thread(stored_marts, settings, NEEDED_MARTS)
    groups = marts["failure_groups"]
    escalating = groups.filter("is_escalating")
    _tell_escalating(escalating.filter(~pl.col("group_id").is_in(before)))
    await table(
        "marts", [{"mart": name, "rows": rows} for name, rows in built.rows.items()], "Their rows."
    )
    await stage("Write the pages", lambda: _show(settings, marts, datetime.now(UTC)), str)
    count = quantity(groups.height, "groups")
    notable = to_look_at(groups).height  # by the states of the page, as in the report
    found = f"{count}, {notable:,} to look at" if notable else count
    lasting = marts["incidents"].filter(pl.col("until_at").is_null()).height
    found += f", {quantity(lasting, 'incidents')}" if lasting else ""
    return await told(found, f"{_built(built)}; {found}", asdict(built))


def _built(built: MartsReport) -> str:
    total = sum(built.rows.values())
    return f"Built {len(built.rows)} marts, {total:,} rows, in {built.seconds:.1f} s"


async def _show(settings: Settings, marts: Mapping[str, pl.DataFrame], now: datetime) -> str:
    """Write the page of all groups, and those of changed groups; returns how many."""
    redrive, dry_run = (
        await form_of("redrive-group/redrive-group"),
        await form_of("dry-run/dry-run"),
    )
    owned = await asyncio.to_thread(with_care, settings, marts["failure_groups"])
    marts = {**marts, **printable_frames({"failure_groups": owned})}
    groups = by_urgency(marts["failure_groups"]).head(MOST_GROUPS).to_dicts()
    ids = [group["sample_failure_id"] for group in groups]
    said = await asyncio.to_thread(samples, settings, ids)
    pages = {
        group["group_id"]: group_page(group, said.get(group["sample_failure_id"]), redrive, dry_run)
        for group in groups
    }
    addresses, written = await show_groups(groups, pages)
    await markdown(
        DEAD_LETTERS,
        dead_letters_page(marts, now, addresses, redrive),
        "Start here: the groups, their state, their redrive.",
    )
    await markdown(
        INCIDENTS, incidents_page(marts, now, addresses), "What failed together, and what it cost."
    )
    return f"{DEAD_LETTERS}, {INCIDENTS}, and {written:,} of {len(pages):,} groups that changed"


def _tell_escalating(escalating: pl.DataFrame) -> None:
    """One event, whatever number of groups has begun to escalate since the last build."""
    if escalating.is_empty():
        return
    columns = ("group_id", "error_class", "services", "failure_count_1h", "escalation_limit")
    payload = {"groups": escalating.select(columns).to_dicts()}
    happened(
        *("dlq.groups.escalating", "dlq.groups", quantity(escalating.height, "groups")),
        payload,
        groups=escalating["group_id"],
        services=[name for text in escalating["services"] for name in names(text)],
    )
