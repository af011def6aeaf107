"""`dlq views`."""

from sahool_dlq.cli.output import console
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jobs.lake_views import write_views
from sahool_dlq.settings import Settings


@verb
def command(settings: Settings) -> Answer[dict[str, str | None]]:
    """Write views.sql next to the lake, so that a DuckDB shell can read its tables."""
    return Answer({"file": write_views(settings)}, _show)


def _show(report: dict[str, str | None]) -> None:
    if file := report["file"]:
        console.print(f"Wrote {file}: duckdb -init {file}", soft_wrap=True)
    else:
        console.print("The lake is in an object store: use `dlq sql` instead, which can read it.")
