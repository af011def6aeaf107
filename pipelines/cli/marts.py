"""`dlq marts`."""

import click

from pipelines.cli.output import print_json, print_table, spinner
from pipelines.cli.verb import verb
from pipelines.jobs import build_all_marts
from pipelines.settings import Settings


@verb
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "spark"]),
    default="duckdb",
    show_default=True,
    help="spark runs the same SQL where SPARK_CONF_DIR says, else here",
)
def command(settings: Settings, is_json: bool, engine: str) -> None:
    """Compute every mart from the lake; write it to the lake and to Postgres (mart_<name>)."""
    with spinner("Building the marts"):
        report = build_all_marts(settings, engine=engine)
    if is_json:
        print_json(report.as_dict())
        return
    print_table(
        f"Marts, built in {report.seconds:.1f} s", ["mart", "rows"], list(report.rows.items())
    )
