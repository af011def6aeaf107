"""`dlq redrive`."""

import asyncio
import getpass

import click

from pipelines.cli.output import console, print_json, print_table, progress_bar, safe
from pipelines.cli.verb import verb
from pipelines.jobs import foreign_receivers, preview_redrive, redrive, transient_selection
from pipelines.redrive.plan import Plan
from pipelines.redrive.selection import Selection
from pipelines.settings import Settings


@verb
@click.argument("failure_ids", nargs=-1, metavar="[FAILURE_ID]…")
@click.option("--group", "group_id", help="a failure group, as `dlq groups` shows it")
@click.option("--type", "error_types", multiple=True, help="error type, with its subclasses")
@click.option("--service", help="the service that failed")
@click.option("--tenant", "tenant_id", help="only events of this tenant")
@click.option("--transient", is_flag=True, help="the types of DLQ_TRANSIENT_ERROR_TYPES")
@click.option("--limit", default=10_000, show_default=True, help="at most so many")
@click.option("--reason", default="by hand", show_default=True, help="why; kept with the batch")
@click.option("--dry-run", is_flag=True, help="show what would be published, touch nothing")
def command(
    settings: Settings,
    is_json: bool,
    failure_ids: tuple[str, ...],
    group_id: str | None,
    error_types: tuple[str, ...],
    service: str | None,
    tenant_id: str | None,
    transient: bool,
    limit: int,
    reason: str,
    dry_run: bool,
) -> None:
    """Publish failed events again, to the consumer that failed: retry, replay, redrive.

    Takes pending failures below the cap; a parked one by its id. Each group ramps 1, 10, all, and
    stops where nothing succeeds.
    """
    if transient:
        error_types = (*error_types, *transient_selection(settings).error_types)
    selection = Selection(failure_ids, group_id, error_types, service, tenant_id, limit=limit)
    if dry_run:
        planned = preview_redrive(settings, selection)
        reached = asyncio.run(foreign_receivers(settings, planned))
        _show_plan(planned, reached, is_json)
        return
    with progress_bar("Redriving") as bar:
        task = bar.add_task("redrive", total=None)
        report = asyncio.run(
            redrive(
                settings,
                selection,
                trigger="manual",
                requested_by=getpass.getuser(),
                reason=reason,
                progress=lambda done, total: bar.update(
                    task, completed=sum(done.values()), total=total
                ),
            )
        )
    if is_json:
        print_json(report.as_dict() if report else {"planned": 0, "outcomes": {}})
        return
    if report is None:
        console.print("Nothing to redrive: no pending failure matches.")
        return
    print_table(
        f"Redrove {report.planned:,} in {report.seconds:.1f} s",
        ["outcome", "redrives"],
        report.outcomes.items(),
    )
    for group, why in report.stopped_groups.items():
        console.print(f"Group {group} was stopped: {why}.")


def _show_plan(plan: Plan, reached: dict[str, list[str]], is_json: bool) -> None:
    groups = [(g.group_id, g.error_type, g.service, g.count) for g in plan.groups]
    if is_json:
        keys = ("group_id", "error_type", "service", "count")
        rows = [dict(zip(keys, group, strict=True)) for group in groups]
        print_json({"planned": plan.count, "groups": rows, "also_reached": reached})
        return
    print_table(
        f"A redrive would publish {plan.count:,} events",
        ["group", "error type", "service", "events"],
        groups,
        note="Nothing was published. Leave out --dry-run to do it.",
    )
    for subject, consumers in reached.items():
        console.print(
            f"{safe(subject)} failed in a consumer without our code. A redrive reaches every"
            f" consumer of the subject: {safe(', '.join(consumers)) or 'there is none now'}.",
            soft_wrap=True,
        )
