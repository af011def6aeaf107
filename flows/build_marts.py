"""build-marts: the small tables that explain the failures, and a page that shows them."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import polars as pl
from prefect import State, flow

from sahool_dlq.analysis.report.section import as_markdown, with_links
from sahool_dlq.analysis.report.sections import NEEDED_MARTS, headline, sections
from sahool_dlq.jobs.marts import build_all_marts, stored_marts
from sahool_dlq.orchestration.show import form_of, happened, markdown, table, told
from sahool_dlq.settings import load_settings


@flow(name="build-marts", flow_run_name="build-marts", timeout_seconds=3600)
async def build_marts(is_rebuild: bool = False) -> State:
    """Compute every mart from the lake and write it to the lake and to Postgres.

    The page "dead-letters" of the run shows groups, health and what changed since yesterday; from
    a group's row the form of a redrive opens, filled in.

    Args:
        is_rebuild: Count every day anew, not only what came since the last run.
    """
    settings = load_settings()
    built = await asyncio.to_thread(build_all_marts, settings, is_rebuild=is_rebuild)
    await table(
        "marts", [{"mart": name, "rows": rows} for name, rows in built.rows.items()], "Their rows."
    )
    marts = await asyncio.to_thread(stored_marts, settings, NEEDED_MARTS)
    await markdown("dead-letters", await _page(marts, datetime.now(UTC)), "How things stand.")
    groups = marts["failure_groups"]
    for group in groups.filter("is_escalating").to_dicts():
        _tell_spike(group)
    total = sum(built.rows.values())
    escalating = (groups["state"] == "escalating").sum()
    spikes = f", {escalating:,} escalating" if escalating else ""
    return await told(
        f"{groups.height:,} groups{spikes}",
        f"Built {len(built.rows)} marts, {total:,} rows, in {built.seconds:.1f} s;"
        f" {groups.height:,} groups{spikes}",
        built.as_dict(),
    )


async def _page(marts: Mapping[str, pl.DataFrame], now: datetime) -> str:
    """Groups with the way to their redrive, what changed, health, resolution, outcomes."""
    now_, groups, *others = sections(marts, now)[:7]
    form = await form_of("redrive/redrive")
    if form is not None:
        groups = with_links(
            groups, "redrive", lambda row: form({"group_id": row["group"]}) if row["open"] else None
        )
    return as_markdown([now_, groups, *others], now, headline(marts, now))


def _tell_spike(group: dict[str, object]) -> None:
    payload = {
        name: group[name]
        for name in ("group_id", "error_class", "services", "failure_count_1h", "escalation_limit")
    }
    happened("dlq.spike", f"dlq.group.{group['group_id']}", str(group["error_class"]), payload)
