"""`dlq erase`."""

import asyncio
import sys
from functools import partial

import click

from sahool_dlq.cli.output import console, errors, print_table, safe, spinner
from sahool_dlq.cli.verb import BY, Answer, verb
from sahool_dlq.erasure.erase import COUNTED, ErasureReport, preview
from sahool_dlq.errors import ErasureError
from sahool_dlq.jobs.upkeep import erase_tenant
from sahool_dlq.settings import Settings


@verb
@click.option("--tenant", required=True, help="the tenant's id, as its events say it")
@click.option("--reason", help="the reason; stored in the audit, so without the tenant's id")
@BY
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--dry-run", is_flag=True, help="show what would be deleted; delete nothing")
def command(
    settings: Settings,
    tenant: str,
    reason: str | None,
    by: str,
    yes: bool,
    dry_run: bool,
) -> Answer[ErasureReport] | None:
    """Delete all data of a tenant from stream, lake and Postgres, up to now. Cannot be undone.

    Later failures of the tenant are stored as usual. Safe to run again: a second run finishes what
    was interrupted, or what NATS did not permit. The stream of events itself is not changed.
    """
    if not dry_run and reason is None:
        raise click.UsageError(
            "A reason is missing: give --reason TEXT. It is stored in the audit."
        )
    is_asked = not (yes or dry_run)
    if is_asked and not (sys.stdin.isatty() and errors.is_terminal):
        raise ErasureError(
            "Standard input is not a terminal, so nobody can confirm: check with --dry-run,"
            " then give --yes."
        )
    with spinner("Looking"):
        found = asyncio.run(preview(settings, tenant))
    would_go = partial(_show, tenant=tenant, went="would go")
    if dry_run or found.is_empty:
        return Answer(found, would_go)
    if is_asked:
        would_go(found)
        if not click.confirm("Delete all this? It cannot be undone.", err=True):
            console.print("Nothing was changed.")
            return None
    with errors.status("Erasing") as status:
        report = asyncio.run(
            erase_tenant(
                settings,
                tenant,
                actor=by,
                reason=reason or "",
                tell=lambda step: status.update(f"Erasing: {step}"),
            )
        )
    left = ErasureError(
        f"All else is erased, but {report.left}: no drain stores them; run this again once"
        " NATS permits it, or when they have aged out."
    )
    show = partial(_show, tenant=tenant, went="went")
    return Answer(report, show, error=left if report.left is not None else None)


def _show(report: ErasureReport, tenant: str, went: str) -> None:
    if report.is_empty:
        console.print(f"There are no data of {safe(tenant)}.")
    else:
        counts = {name: getattr(report, name) for name in COUNTED}
        by_status = ", ".join(f"{n:,} {status}" for status, n in report.failures.items())
        counts["failures"] = sum(report.failures.values())
        words = COUNTED | (
            {"failures": f"rows of failed_events ({by_status})"} if by_status else {}
        )
        print_table(
            f"Of {safe(tenant)}, up to sequence {report.last_sequence:,} of {report.stream}",
            ["what", went],
            [(words[name], count) for name, count in counts.items()],
        )
    if report.audit_mentions:
        console.print(
            f"Rows of the audit that mention it, and stay because the audit is append-only:"
            f" {report.audit_mentions:,}."
        )
    if count := report.unread_dead_letters:
        noun, stay = ("dead letter", "stays") if count == 1 else ("dead letters", "stay")
        console.print(
            f"{count:,} {noun} that cannot be read may hold data of the tenant, and {stay}."
        )
