"""`dlq regroup`."""

import click

from sahool_dlq.cli.output import console, print_table, progress, safe
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jobs.upkeep import regroup_history
from sahool_dlq.settings import Settings
from sahool_dlq.upkeep.regroup import RegroupReport


@verb
@click.option("--dry-run", "is_dry_run", is_flag=True, help="show what would change")
def command(settings: Settings, is_dry_run: bool) -> Answer[RegroupReport]:
    """Recompute the groups of all failures, after grouping rules or the fingerprint have changed.

    Writes only rows whose group was made by other rules. Drains can run meanwhile. A regroup that
    was killed continues when it is run again. What people said of a group (`dlq group`) follows
    its failures.
    """
    with progress("Regrouping") as advance:
        return Answer(regroup_history(settings, advance, is_dry_run=is_dry_run), _show)


def _show(report: RegroupReport) -> None:
    would = "would get" if report.is_dry_run else "got"
    print_table(
        "",
        ["sink", "rows made by other rules", f"{would} another group", "groups before", "after"],
        [
            [name, *sink.as_dict().values()]
            for name, sink in (("lake", report.lake), ("postgres", report.postgres))
        ],
    )
    for words in report.words:
        where = f"from {words.group_id} to {words.to}, which gets {words.failure_count:,} failures"
        if words.kept is None:
            carried = "would be carried" if report.is_dry_run else "was carried"
            console.print(f"What people said {carried} {where}.", soft_wrap=True)
        else:
            console.print(
                f"What people said is not carried {where}: {safe(words.kept)}. To carry it:\n"
                f"  dlq group {words.to} --from {words.group_id} --reason '…'",
                soft_wrap=True,
            )
    if not report.is_dry_run and report.lake.rows:
        console.print("Run `dlq marts` to rebuild the marts.")
