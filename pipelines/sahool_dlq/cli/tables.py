"""`dlq tables`."""

from collections.abc import Sequence
from typing import Any

import click

from sahool_dlq.analysis.dictionary import Relation, as_markdown, relation, relations
from sahool_dlq.cli.output import console, print_table, safe
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.settings import Settings


@verb
@click.argument("name", required=False)
@click.option("--markdown", "is_markdown", is_flag=True, help="print everything as in docs/data.md")
def command(settings: Settings, name: str | None, is_markdown: bool) -> Answer[Any]:  # noqa: ARG001  (signature of all verbs)
    """List the tables, views and marts of `dlq sql`, or the columns of NAME.

    Needs neither a server nor a lake. docs/data.md has the same on one page, also for PostgreSQL.
    """
    if name and not is_markdown:
        return Answer(relation(name), _explain)
    found = relations()
    keys = ("name", "kind", "title", "grain")
    told = {"tables": [{key: getattr(each, key) for key in keys} for each in found]}
    if is_markdown:
        return Answer(told, lambda _: click.echo(as_markdown(), nl=False))
    return Answer(told, lambda _: _list(found))


def _list(found: Sequence[Relation]) -> None:
    for kind in ("table", "view", "mart"):
        shown = [(each.name, each.title) for each in found if each.kind == kind]
        print_table(f"{kind.capitalize()}s", ["name", "what"], shown)
    console.print("[dim]Columns of a table: dlq tables NAME. Query it: dlq sql.[/dim]")


def _explain(found: Relation) -> None:
    console.print(f"[bold]{found.name}[/bold] ({found.kind}): {safe(found.title)}")
    console.print(f"[dim]{safe(found.grain)}[/dim]\n")
    print_table(
        "",
        ["column", "type", "unit", "meaning"],
        [(c.name, c.kind, c.unit, c.meaning) for c in found.columns],
        drop=["type"],
    )
