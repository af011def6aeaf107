"""`dlq marts`."""

import click

from sahool_dlq.cli.output import print_table, spinner
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jobs.marts import MartsReport, build_all_marts
from sahool_dlq.settings import Settings


@verb
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "spark"]),
    default="duckdb",
    show_default=True,
    help="spark runs the same SQL on Spark, configured by SPARK_CONF_DIR or local",
)
@click.option("--rebuild", is_flag=True, help="rebuild from the whole log")
def command(settings: Settings, engine: str, rebuild: bool) -> Answer[MartsReport]:
    """Bring the marts of the lake up to date, and those in Postgres (mart_<name>).

    Adds what is new since the last run, so a run after a small drain is short. Where history was
    changed (regrouped, repaired, expired), all marts are rebuilt, as with --rebuild.
    """
    with spinner("Building the marts"):
        return Answer(build_all_marts(settings, engine, is_rebuild=rebuild), _show)


def _show(report: MartsReport) -> None:
    print_table(
        f"Marts, {'rebuilt' if report.is_rebuilt else 'brought up to date'}"
        f" in {report.seconds:.1f} s",
        ["mart", "rows"],
        list(report.rows.items()),
    )
