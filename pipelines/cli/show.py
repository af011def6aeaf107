"""`dlq show`."""

import click

from pipelines.cli.output import cell, console, print_json, print_table, safe
from pipelines.cli.verb import verb
from pipelines.jobs import case_history, find_failure
from pipelines.settings import Settings


@verb
@click.argument("id_", metavar="ID")
def command(settings: Settings, is_json: bool, id_: str) -> None:
    """Show one failure by its id (or its first digits), or the latest of a group by the group's.

    What failed, why, with the trace, what has happened to it since, and what to do next.
    """
    failure = find_failure(settings, id_)
    history = case_history(settings, str(failure["id"]))
    if is_json:
        print_json({"failure": failure, "history": history})
        return
    console.print(f"[bold]{safe(failure['error_type'])}[/bold]: {safe(failure['error_message'])}")
    console.print()
    for name in _FACTS:
        if failure[name] is not None:
            console.print(f"  [cyan]{name:<18}[/cyan] {cell(failure[name])}", soft_wrap=True)
    console.print(f"  [cyan]{'original_data':<18}[/cyan] {safe(failure['original_data'])}")
    if failure["stack_trace"]:
        console.print()
        console.print(safe(failure["stack_trace"].rstrip()).replace("\ufffd", "\n"), soft_wrap=True)
    console.print()
    if history:
        print_table("History", ["at", "what", "by", "reason"], history)
    if failure["status"] in ("pending", "parked"):
        console.print(f"Redrive it:  dlq redrive {failure['id']}", soft_wrap=True)
        console.print(f"The whole group:  dlq redrive --group {failure['group_id']} --dry-run")


_FACTS = (
    "id", "group_id", "status", "consumer_service", "consumer_name", "handler", "event_type",
    "original_subject", "event_id", "source_service", "tenant_id", "field_id", "farmer_id",
    "dlq_reason", "retry_count", "redrive_count", "first_attempt_at", "dlq_timestamp",
    "resolved_at", "resolution_cause", "resolution_notes", "parse_error",
)  # fmt: skip
