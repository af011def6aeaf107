"""`dlq deploys`."""

from typing import Any

import click

from sahool_dlq.cli.as_of import AS_OF, moment
from sahool_dlq.cli.output import console, print_table
from sahool_dlq.cli.verb import Answer, known_lake, verb
from sahool_dlq.jobs.deploys import Deploy, list_deploys
from sahool_dlq.settings import Settings


@verb
@click.option("--service", help="only versions of this service")
@AS_OF
def command(settings: Settings, service: str | None, as_of: str | None) -> Answer[Any]:
    """List the versions of each service, with the groups that each brought and cured.

    A version brought a group that failed first in it. It cured a group if redrives succeeded in it
    and the group never failed in it. It brought back a group that failed in it after an earlier
    version had cured it. Reads the lake.
    """
    known_lake(settings)
    deploys = list_deploys(settings, moment(settings, as_of), service)
    return Answer({"deploys": deploys}, lambda _: print_deploys(deploys))


def print_deploys(deploys: list[Deploy]) -> None:
    """Print the table."""
    if not deploys:
        console.print(
            "No version is known: consumers report theirs with NATSConsumerConfig(version=…)."
        )
        return
    print_table(
        "Versions by service, the highest first",
        ["service", "version", "first seen", "failures", "brought", "cured", "brought back"],
        [
            (
                each.service,
                each.version,
                each.first_seen_at,
                each.failures,
                *(", ".join(groups) or None for groups in (each.brought, each.cured)),
                ", ".join(each.brought_back) or None,
            )
            for each in deploys
        ],
        note="Details of a group: dlq show GROUP",
        drop=["failures", "first seen"],
    )
