"""`dlq tables`."""

from dataclasses import asdict

import click

from sahool_dlq.analysis.dictionary import as_markdown, relation, relations
from sahool_dlq.cli.output import console, print_json, print_table, safe
from sahool_dlq.cli.verb import verb
from sahool_dlq.settings import Settings


@verb
@click.argument("name", required=False)
@click.option("--markdown", "is_markdown", is_flag=True, help="print everything as in docs/data.md")
def command(settings: Settings, is_json: bool, name: str | None, is_markdown: bool) -> None:  # noqa: ARG001
    """List the tables, views and marts of `dlq sql`, or the columns of NAME.

    Needs neither a server nor a lake. docs/data.md has the same on one page, also for PostgreSQL.
    """
    if is_markdown:
        click.echo(as_markdown(), nl=False)
    elif name is None:
        _list(is_json)
    else:
        _explain(name, is_json)


def _list(is_json: bool) -> None:
    found = relations()
    if is_json:
        rows = [
            {key: each[key] for key in ("name", "kind", "title", "grain")}
            for each in map(asdict, found)
        ]
        print_json({"tables": rows})
        return
    for kind in ("table", "view", "mart"):
        shown = [(each.name, each.title) for each in found if each.kind == kind]
        print_table(f"{kind.capitalize()}s", ["name", "what"], shown)
    console.print("[dim]Columns of a table: dlq tables NAME. Query it: dlq sql.[/dim]")


def _explain(name: str, is_json: bool) -> None:
    found = relation(name)
    if is_json:
        print_json(asdict(found))
        return
    console.print(f"[bold]{found.name}[/bold] ({found.kind}): {safe(found.title)}")
    console.print(f"[dim]{safe(found.grain)}[/dim]\n")
    print_table(
        "",
        ["column", "type", "unit", "meaning"],
        [(c.name, c.kind, c.unit, c.meaning) for c in found.columns],
        drop=["type"],
    )
