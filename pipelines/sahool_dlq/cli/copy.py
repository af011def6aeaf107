"""`dlq copy`."""

from datetime import UTC, datetime
from typing import Any

import click

from sahool_dlq.cli.output import print_table, spinner
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.copy import CopiedTable, copy_lake
from sahool_dlq.stores.lake.lake import Lake


@verb
@click.argument("place")
def command(settings: Settings, place: str) -> Answer[Any]:
    """Copy the lake as it is now to an empty PLACE, a folder or s3://…; drains can run.

    The copy is consistent: each file is checked against its checksum, and the log lists exactly the
    copied files.
    """
    target = Settings(lake_uri=place)
    with spinner("Copying the lake"):
        done = copy_lake(Lake(settings.lake), Lake(target.lake), datetime.now(UTC))
    return Answer({"tables": done}, lambda _: _show(done))


def _show(done: list[CopiedTable]) -> None:
    print_table("", ["table", "files", "bytes"], [(t.table, t.files, t.size_bytes) for t in done])
