"""`dlq groups`."""

import click

from pipelines.cli.output import console, print_json, print_table
from pipelines.cli.verb import verb
from pipelines.jobs import compute_mart
from pipelines.settings import Settings


@verb
@click.option("--state", type=click.Choice(["new", "ongoing", "regressed", "resolved"]))
@click.option("--service", help="only groups of this service")
@click.option("--limit", default=20, show_default=True, help="most groups to print")
def command(
    settings: Settings, is_json: bool, state: str | None, service: str | None, limit: int
) -> None:
    """Failures alike, the largest first: what, since when, in which state, who is hit."""
    frame = compute_mart(settings, "failure_groups")
    groups = [
        row
        for row in frame.to_dicts()
        if (state is None or row["state"] == state)
        and (service is None or service in (row["services"] or "").split(", "))
    ]
    if is_json:
        print_json({"groups": groups})
        return
    if not groups:
        console.print("No failures there. `dlq drain` brings in what is new.")
        return
    print_table(
        f"{len(groups)} failure groups",
        ["group", "state", "failures", "open", "tenants", "redriven", "last seen", "what"],
        [
            (
                row["group_id"],
                row["state"],
                row["failure_count"],
                row["open_count"],
                row["tenant_count"],
                f"{row['redrive_succeeded_count']}/{row['redrive_count']}",
                row["last_seen_at"],
                f"{row['error_class']}: {row['template']}".removesuffix(": "),
            )
            for row in groups[:limit]
        ],
        note="dlq show GROUP says more; dlq redrive --group GROUP --dry-run shows what a redrive"
        " would do.",
    )
