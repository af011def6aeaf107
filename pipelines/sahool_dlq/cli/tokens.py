"""`dlq tokens`."""

from typing import Any

import click

from sahool_dlq.cli.output import console, print_table
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.serving.tokens import RIGHTS, Tokens
from sahool_dlq.settings import Settings


@verb
@click.argument(
    "action", type=click.Choice(["list", "add", "remove"]), default="list", required=False
)
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--role", "roles", multiple=True, type=click.Choice(list(RIGHTS)), help="repeatable")
def command(
    settings: Settings, action: str, name: str | None, roles: tuple[str, ...]
) -> Answer[Any]:
    """Tokens of `dlq serve`: list, add, remove.

    NAME is the actor in the audit: a person or a program. The token is printed once; the file (see
    DLQ_TOKENS_FILE) has its hash only. A removed token is refused at once.
    """
    tokens = Tokens(settings)
    if action == "list":
        found = tokens.all()
        return Answer({"tokens": found}, lambda _: _list(tokens))
    if not name:
        raise click.UsageError(f"Give the NAME of the token to {action}.")
    if action == "remove":
        removed = tokens.remove(name)
        return Answer(removed, lambda _: console.print(f"The token {name} is refused from now on."))
    secret = tokens.add(name, roles)
    return Answer({"name": name, "roles": roles, "token": secret}, lambda _: click.echo(secret))


def _list(tokens: Tokens) -> None:
    found = tokens.all()
    if not found:
        console.print(f"{tokens.file} has no token: dlq tokens add NAME --role ROLE")
        return
    rows = [(each.name, ", ".join(each.roles), each.created_at) for each in found]
    print_table("Tokens", ["name", "roles", "created at"], rows)
