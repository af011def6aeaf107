"""`dlq get`."""

import asyncio
import base64
import sys
from typing import Any

import click

from sahool_dlq.cli.output import cell, console, errors, safe
from sahool_dlq.cli.verb import BY, Answer, verb
from sahool_dlq.deadletter.headers import pairs_of
from sahool_dlq.deadletter.sanitize import UNPRINTABLE, printable
from sahool_dlq.errors import QueryError
from sahool_dlq.jobs.payloads import decoded_body, raw_event, redacted_event
from sahool_dlq.reproduce.commands import check_subject, nats_line, python_program
from sahool_dlq.reproduce.raw import RawEvent
from sahool_dlq.settings import Settings


@verb
@click.argument("id_", metavar="ID")
@click.option("--raw", "form", flag_value="raw", help="the exact bytes of its body: > body.bin")
@click.option("--decoded", "form", flag_value="decoded", help="its body as JSON, of any format")
@click.option("--headers", "form", flag_value="headers", help="all its headers, as they came")
@click.option("--nats", "form", flag_value="nats", help="the `nats pub` line that publishes it")
@click.option("--python", "form", flag_value="python", help="a program that publishes it")
@click.option("--reason", default="", help="why it is read; kept in the audit")
@BY
def command(settings: Settings, id_: str, form: str | None, reason: str, by: str) -> Answer[Any]:
    """The event of a failure, as it was: by the failure's id or its first digits.

    Without a form it is shown as it is stored, masked. --raw, --decoded, --headers, --nats and
    --python are for those who may read payloads, and are in the audit. They come from the events'
    stream, or else from the dead letter; standard error says which.
    """
    if form is None:
        return Answer(redacted_event(settings, id_), _print_redacted)
    event = asyncio.run(raw_event(settings, id_, actor=by, reason=reason))
    _tell_source(event)
    known = {"failure_id": event.failure_id}
    if form == "raw":
        body = base64.b64encode(event.body).decode()
        told = known | {"source": event.source, "body_base64": body}
        return Answer(told, lambda _: _print_body(event.body))
    if form == "decoded":
        kind, text = decoded_body(settings, event)
        decoded = {**known, "source": event.source, "body_format": kind, "body": text}
        return Answer(decoded, lambda _: click.echo(printable(text)))
    if form == "headers":
        headers = dict(event.headers)
        return Answer(known | {"headers": headers}, lambda _: _print_headers(headers))
    check_subject(event, settings.subjects)
    text = nats_line(event) if form == "nats" else python_program(event)
    _tell_left_out(event)
    return Answer({form: text}, lambda _: click.echo(text.removesuffix("\n")))


_SHOWN = (
    *("failure_id", "event_id", "subject", "stream", "sequence"),
    *("payload_encoding", "body_format", "body_error"),
)


def _print_redacted(row: dict[str, Any]) -> None:
    for name in _SHOWN:
        if row[name] is not None:
            shown = safe(row[name]) if name == "sequence" else cell(row[name])
            console.print(f"  [cyan]{name:<16}[/cyan] {shown}", soft_wrap=True)
    for name, value in pairs_of(row["headers"] or {}):
        console.print(f"  [cyan]{'header':<16}[/cyan] {safe(name)}: {safe(value)}", soft_wrap=True)
    console.print(f"  [cyan]{'body':<16}[/cyan] {safe(row['body'])}", soft_wrap=True)
    console.print("[dim]Masked. As it was: --raw, --decoded, --headers, --nats, --python.[/dim]")


def _tell_source(event: RawEvent) -> None:
    if event.source == "stream":
        said = f"From stream {event.stream}, message {event.sequence}."
    else:
        said = f"From the dead letter's own copy: {event.why_copy}."
    errors.print(f"[dim]{safe(said)}[/dim]", soft_wrap=True)


def _tell_left_out(event: RawEvent) -> None:
    """What is published is a new event, whose headers are not all those of the old one."""
    again = event.headers_again
    left = [name for name in event.headers if name not in again]
    if left:
        errors.print(f"[dim]Left out: {safe(', '.join(left))}.[/dim]", soft_wrap=True)
    errors.print(
        f"[dim]Every consumer of {safe(event.subject)} gets it, and what they make of it is no"
        f" outcome: that is what `dlq redrive {event.failure_id}` is for.[/dim]",
        soft_wrap=True,
    )


def _print_body(body: bytes) -> None:
    if sys.stdout.isatty() and not _is_text(body):
        raise QueryError(
            f"The body is {len(body):,} bytes that are no text for a terminal: add > FILE."
        )
    sys.stdout.buffer.write(body)


def _is_text(body: bytes) -> bool:
    try:
        return not UNPRINTABLE.search(body.decode())
    except UnicodeDecodeError:
        return False


def _print_headers(headers: dict[str, Any]) -> None:
    for name, value in pairs_of(headers):
        click.echo(printable(f"{name}: {value}"))
    if not headers:
        errors.print("[dim]It has no headers.[/dim]")
