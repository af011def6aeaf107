"""`dlq copy`."""

from datetime import UTC, datetime

import click

from pipelines.cli.output import print_json, print_table, spinner
from pipelines.cli.verb import verb
from pipelines.settings import Settings
from pipelines.stores.lake import Lake
from pipelines.stores.lake_copy import copy_lake


@verb
@click.argument("place")
def command(settings: Settings, is_json: bool, place: str) -> None:
    """Copy the lake as it is now to an empty PLACE, a folder or s3://…; drains may go on.

    The copy is whole: each file is read against its checksum, and the log names what was copied.
    """
    target = Settings(lake_uri=place)
    with spinner("Copying the lake"):
        done = copy_lake(Lake(settings.lake), Lake(target.lake), datetime.now(UTC))
    if is_json:
        print_json(
            {
                "tables": [
                    {"table": t.table, "files": t.files, "size_bytes": t.size_bytes} for t in done
                ]
            }
        )
        return
    print_table("", ["table", "files", "bytes"], [(t.table, t.files, t.size_bytes) for t in done])
