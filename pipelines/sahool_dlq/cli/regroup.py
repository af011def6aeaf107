"""`dlq regroup`."""

import click

from sahool_dlq.cli.output import console, print_json, print_table, progress_bar
from sahool_dlq.cli.verb import verb
from sahool_dlq.jobs.upkeep import regroup_history
from sahool_dlq.settings import Settings


@verb
@click.option("--dry-run", "is_dry_run", is_flag=True, help="show what would change")
def command(settings: Settings, is_json: bool, is_dry_run: bool) -> None:
    """Recompute the groups of all failures, after grouping rules or the fingerprint have changed.

    Writes only rows whose group was made by other rules. Drains can run meanwhile. A regroup that
    was killed continues when it is run again.
    """
    with progress_bar("Regrouping") as bar:
        task = bar.add_task("regroup", total=None)
        report = regroup_history(
            settings, lambda rows: bar.update(task, completed=rows), is_dry_run=is_dry_run
        )
    if is_json:
        print_json(report.as_dict())
        return
    would = "would get" if is_dry_run else "got"
    print_table(
        "",
        ["sink", "rows made by other rules", f"{would} another group", "groups before", "after"],
        [
            [name, *sink.as_dict().values()]
            for name, sink in (("lake", report.lake), ("postgres", report.postgres))
        ],
    )
    if not is_dry_run and report.lake.rows:
        console.print("Run `dlq marts` to rebuild the marts.")
