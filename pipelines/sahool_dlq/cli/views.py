"""`dlq views`."""

from sahool_dlq.cli.output import console, print_json
from sahool_dlq.cli.verb import verb
from sahool_dlq.jobs.lake_views import write_views
from sahool_dlq.settings import Settings


@verb
def command(settings: Settings, is_json: bool) -> None:
    """Write views.sql next to the lake, so that a DuckDB shell can read its tables."""
    file = write_views(settings)
    if is_json:
        print_json({"file": file})
    elif file:
        console.print(f"Wrote {file}: duckdb -init {file}", soft_wrap=True)
    else:
        console.print("The lake is in an object store: use `dlq sql` instead, which can read it.")
