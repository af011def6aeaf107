"""`dlq nats-permissions`."""

import re
from dataclasses import replace

import click

from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.consumers import default_durable, durable_name
from sahool_dlq.jetstream.grants import (
    ROLES,
    Consumption,
    Grants,
    as_block,
    as_nsc,
    grants_of_role,
    grants_of_service,
)
from sahool_dlq.settings import Settings

_FILTER = re.compile(r"""[^\s."'\\]+(\.[^\s."'\\]+)*""")


@verb
@click.option("--service", help="name of a service with NATSConsumer or NATSPublisher")
@click.option("--role", type=click.Choice(ROLES), help="a user of the platform itself")
@click.option(
    "--consumes", multiple=True, metavar="FILTER", help="subjects the service consumes; repeatable"
)
@click.option(
    "--consumer", "durable", help="its durable, where it has a consumer_name [from both names]"
)
@click.option(
    "--publishes", multiple=True, metavar="FILTER", help="subjects it publishes; repeatable"
)
@click.option(
    "--dlq-subject-per-service",
    "is_dlq_own",
    is_flag=True,
    help="its dead letters go to their own subject, as with this option of its configuration",
)
@click.option("--user", help="name of the user [the service's]")
@click.option("--nsc", "is_nsc", is_flag=True, help="print the command of nsc, for users with JWTs")
def command(
    settings: Settings,
    service: str | None,
    role: str | None,
    consumes: tuple[str, ...],
    durable: str | None,
    publishes: tuple[str, ...],
    is_dlq_own: bool,
    user: str | None,
    is_nsc: bool,
) -> Answer[Grants]:
    """Print the least permissions of a NATS user, as a block of the server's configuration.

    A service consumes its filters from DLQ_EVENTS_STREAM, each by its own durable consumer. It can
    read no other events and change no other consumer. Needs no connection to a server.
    """
    if bool(service) == bool(role):
        raise click.UsageError("Give one of --service and --role.")
    if durable and len(consumes) > 1:
        raise click.UsageError("--consumer names the durable of one --consumes.")
    if durable and not consumes:
        raise click.UsageError("--consumer needs --consumes, the filter of that durable.")
    if role and (consumes or publishes or durable or user or is_dlq_own):
        raise click.UsageError("--role stands alone: its subjects follow from the settings.")
    for each in (*consumes, *publishes):
        if not _FILTER.fullmatch(each):
            raise click.UsageError(f"{each!r} is not a filter of subjects.")
    names = settings.stream_names
    if role:
        grants = grants_of_role(names, role)
    else:
        name = service or ""
        of_service = [
            Consumption(
                names.events,
                durable_name(durable) if durable else default_durable(name, each),
                each,
            )
            for each in consumes
        ]
        grants = grants_of_service(names, name, of_service, publishes, user, is_dlq_own=is_dlq_own)
    grants = _where_the_api_is(grants, settings.access)
    return Answer(grants, lambda _: click.echo((as_nsc if is_nsc else as_block)(grants)))


def _where_the_api_is(grants: Grants, access: Access) -> Grants:
    """The same rights in the JetStream domain, or below the prefix, that the settings name."""

    def there(subject: str) -> str:
        subject = subject.replace("$JS.API.", f"{access.api_prefix}.")
        return subject.replace("$JS.ACK._.", f"$JS.ACK.{access.jetstream_domain or '_'}.")

    return replace(grants, publish=tuple(map(there, grants.publish)))
