"""`dlq import`."""

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from sahool_dlq.bridge.foreign_letter import ImportedLetter
from sahool_dlq.bridge.imports import ImportReport, chosen_profiles, import_pending, previewed
from sahool_dlq.cli.output import console, print_table, progress, safe
from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.deadletter.imports.reading import ForeignMessage
from sahool_dlq.errors import SettingsError
from sahool_dlq.settings import Settings

_SHOWN = ("original_subject", "error_type", "error_message", "consumer_service", "import_error")
_FIELDS = (
    *("failure_id", "original_subject", "event_type", "event_id", "original_stream"),
    *("original_sequence", "consumer_name", "consumer_service", "source_service", "handler"),
    *("error_type", "error_message", "retry_count", "first_attempt_at", "dlq_timestamp"),
    "import_error",
)


@verb
@click.option("--profile", "name", help="who wrote the dead letters: built-in or of your rules")
@click.option("--stream", help="stream with the dead letters; default: that of the profile")
@click.option("--subject", "subjects", multiple=True, help="only these subjects; may be repeated")
@click.option("--dry-run", is_flag=True, help="show the first twenty as they would be read")
def command(
    settings: Settings, name: str | None, stream: str | None, subjects: Sequence[str], dry_run: bool
) -> Answer[Any]:
    """Import dead letters that other software wrote to a stream of its own.

    A profile says where such a dead letter has the event, its subject, and the error. Each message
    is imported once, however often this runs. Without --profile it imports the streams of all
    profiles in DLQ_RULES_FILE; the flow drain-dlq does so on each run. Then run dlq drain.
    """
    if name is None and (stream or subjects or dry_run):
        raise SettingsError("--stream, --subject and --dry-run need --profile.")
    chosen = chosen_profiles(settings, name, stream, subjects)
    if not chosen:
        raise SettingsError(
            "No profile in DLQ_RULES_FILE names a stream: add one, or give --profile and --stream."
        )
    if dry_run:
        return _preview(settings, asyncio.run(previewed(settings, chosen[0])))
    with progress("Importing") as advance:
        reports = asyncio.run(import_pending(settings, chosen, advance))
    return Answer({"imports": [each.as_dict() for each in reports]}, lambda _: _show(reports))


def _preview(
    settings: Settings, found: Sequence[tuple[ForeignMessage, ImportedLetter]]
) -> Answer[Any]:
    redactor = settings.redactor(settings.rules)

    def shown(letter: ImportedLetter, name: str) -> Any:
        value = letter.fields.get(name)
        if not isinstance(value, str) or name == "failure_id":
            return value
        return redactor.redact_text(value)

    rows = [
        {"sequence": message.sequence, "subject": message.subject, "body_bytes": len(letter.body)}
        | {field: shown(letter, field) for field in _FIELDS}
        for message, letter in found
    ]

    def show(_: object) -> None:
        if not rows:
            console.print("The stream has no message that the profile covers.")
            return
        columns = ("sequence", *_SHOWN)
        print_table(
            f"The first {len(rows):,} messages as they would be imported",
            ["sequence", "subject of the event", "error", "message", "service", "problem"],
            [[row[column] for column in columns] for row in rows],
            note="Nothing was imported. --json shows every field.",
        )

    return Answer({"dry_run": True, "letters": rows}, show)


def _show(reports: Sequence[ImportReport]) -> None:
    for each in reports:
        stream = safe(each.stream)
        console.print(
            f"Imported {each.imported:,} dead letters of {stream} by the profile"
            f" {safe(each.profile)}, up to sequence {each.last_sequence:,}."
        )
        if each.unreadable:
            console.print(
                f"{each.unreadable:,} of them are not, or not completely, what the profile says."
                " They are kept, with the reason in parse_error."
            )
        if each.known:
            console.print(f"{each.known:,} more were in the log already.")
        if each.own:
            console.print(f"{each.own:,} messages are the platform's own, and were left out.")
        if each.missed:
            console.print(
                f"[bold red]At most {each.missed:,} messages left {stream} before they were"
                " imported.[/bold red]"
            )
        if each.is_another:
            console.print(
                f"{stream} is not the stream that was imported before: it was created again or set"
                " back, and was read from its first message."
            )
