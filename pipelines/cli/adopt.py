"""`dlq adopt`."""

import asyncio
import getpass
import logging

import click

from pipelines.adoption_jobs import adopt, preview_adoption
from pipelines.bridge.adopt import Adoption
from pipelines.cli.output import PlainHandler, cell, console, print_json, safe
from pipelines.cli.verb import verb
from pipelines.settings import Settings


@verb
@click.argument("consumer", metavar="[STREAM/]CONSUMER")
@click.option("--proof", "is_proof", is_flag=True, help="let the server tell of each success")
@click.option("--undo", "is_undo", is_flag=True, help="as it was before --proof")
@click.option("--reason", help="why; kept in the audit")
@click.option("--by", default=getpass.getuser, help="who does it [your login]")
@click.option("--dry-run", is_flag=True, help="show the change, touch nothing")
def command(
    settings: Settings,
    is_json: bool,
    consumer: str,
    is_proof: bool,
    is_undo: bool,
    reason: str | None,
    by: str,
    dry_run: bool,
) -> None:
    """Let the server prove what a consumer without our code handles.

    Sets its sample_freq to 100 %, and nothing else of it: the server then says of each event that
    it was acknowledged. A redrive's success is proved by that instead of inferred, and the service
    gets totals, and so a failure rate. It costs a message of about 300 bytes for each event.
    """
    if is_proof == is_undo:
        raise click.UsageError("Say --proof, or --undo to take it back.")
    if not dry_run and reason is None:
        raise click.UsageError("Say why: --reason TEXT is kept in the audit.")
    logging.basicConfig(level=logging.WARNING, handlers=[PlainHandler()])
    found = asyncio.run(preview_adoption(settings, consumer, is_undo=is_undo))
    if not is_json:
        _show(found)
    if not dry_run:
        done = adopt(settings, found.address, actor=by, reason=reason or "", is_undo=is_undo)
        found = asyncio.run(done)
    if is_json:
        print_json(found.as_dict() | {"dry_run": dry_run})
    elif found.is_change:
        console.print("Nothing was changed." if dry_run else "Done; it is in the audit.")


def _show(found: Adoption) -> None:
    if not found.is_change:
        console.print(f"{safe(found.address)} is so already: sample_freq {_freq(found.before)}.")
        return
    console.print(
        f"[bold]{safe(found.address)}[/bold]: sample_freq {_freq(found.before)} →"
        f" {_freq(found.after)}; its other {len(found.before.keys() - {'sample_freq'})} settings"
        " stay.",
        soft_wrap=True,
    )


def _freq(config: dict[str, object]) -> str:
    return cell(config.get("sample_freq"))
