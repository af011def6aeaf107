"""`dlq monitor`."""

import asyncio
import logging
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import click

from sahool_dlq.alerts.message import Message
from sahool_dlq.cli.output import PlainHandler, console, errors, print_json, print_line, safe
from sahool_dlq.cli.verb import verb
from sahool_dlq.drain.run import DrainReport
from sahool_dlq.events.monitor.dlq_event import DLQEvent
from sahool_dlq.events.monitor.triage import DLQAction, DLQConsumerConfig
from sahool_dlq.events.signals import set_by_signal
from sahool_dlq.jobs.watch import Screen, monitor_config, watch
from sahool_dlq.settings import Settings

_MOST_REMEMBERED = 10_000  # dead letters, so that one whose alert is tried again is shown once


@verb
@click.option(
    "--alert-on",
    "error_types",
    multiple=True,
    help="alert on this error type and its subclasses [DatabaseError, AuthenticationError]",
)
@click.option(
    "--auto-retry",
    "retry_hours",
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="request a redrive of all other failures, this many hours after they failed",
)
def command(
    settings: Settings,
    is_json: bool,
    error_types: tuple[str, ...],
    retry_hours: float | None,
) -> None:
    """Show dead letters as they arrive, drain them at once and send alerts, until Ctrl-C.

    It begins with everything since its last run. Prints one line for each dead letter and each
    alert. Alerts go to the channels of DLQ_ALERT_URLS: one for an outage, not one per failure.
    """
    changes: dict[str, Any] = {}
    if error_types:
        changes["critical_error_types"] = list(error_types)
    if retry_hours is not None:
        changes |= {"auto_retry_enabled": True, "auto_retry_delay_hours": retry_hours}
    asyncio.run(_run(settings, is_json, monitor_config(settings, **changes)))


async def _run(settings: Settings, is_json: bool, config: DLQConsumerConfig) -> None:
    logging.basicConfig(level=logging.WARNING, handlers=[PlainHandler()])
    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # a channel's failures we tell
    stop = asyncio.Event()
    if not is_json:
        channels = len(settings.alert_urls)
        where = f"{channels} alert channels" if channels else "no alert channels, alerts show here"
        errors.print(f"[dim]Monitoring {config.dlq_subject}; {where}. Ctrl-C stops.[/dim]")
    view = _View(settings, is_json)
    with set_by_signal(stop):
        await watch(settings, config, Screen(view.dead_letter, view.alert, view.drained), stop)
    view.end()


class _View:
    """What is printed: redacted, and nothing that can steer the terminal."""

    def __init__(self, settings: Settings, is_json: bool) -> None:
        self._redactor = settings.redactor(settings.rules)
        self._is_json = is_json
        self._counts: Counter[str] = Counter()
        self._shown: dict[str, None] = {}
        self._last_sequence = 0

    def dead_letter(self, event: DLQEvent, action: DLQAction) -> None:
        if event.failure_id in self._shown:
            return
        if len(self._shown) >= _MOST_REMEMBERED:
            self._shown.pop(next(iter(self._shown)))
        self._shown[event.failure_id] = None
        self._counts["dead_letters"] += 1
        text = event.error_message or event.parse_error or ""
        facts = {
            "error_type": self._redactor.redact_label(event.error_type),
            "service": self._redactor.redact_label(event.service),
            "event_type": self._redactor.redact_label(event.event_type),
            "error_message": self._redactor.redact_text(text[:2_000]),
        }
        if self._is_json:
            self._json("dead_letter", facts | _places(event, action))
            return
        message = " ".join(facts["error_message"].split())
        print_line(
            f"[dim]{_clock(event.published_at)}[/dim] {_ACTIONS[action]} {event.failure_id[:8]}"
            f" [bold]{safe(facts['error_type'][:60])}[/bold]"
            f" [cyan]{safe(facts['service'][:60])}[/cyan] {safe(facts['event_type'][:60])}:"
            f" [dim]{safe(message)}[/dim]"
        )

    def alert(self, message: Message) -> None:
        self._counts["alerts"] += 1
        if self._is_json:
            self._json("alert", {"title": message.title, "body": message.body})
            return
        print_line(
            f"[dim]{_clock(datetime.now(UTC))}[/dim] [bold red]ALERT[/bold red]  "
            f"[bold]{safe(message.title)}[/bold]: {safe(message.command)}"
        )

    def drained(self, report: DrainReport) -> None:
        self._counts["drained"] += report.drained
        self._last_sequence = report.last_sequence
        for note in report.notes:
            if self._is_json:
                self._json("note", {"text": note})
            else:
                console.print(f"[bold red]{safe(note)}[/bold red]", soft_wrap=True)

    def end(self) -> None:
        facts = {name: self._counts[name] for name in ("dead_letters", "alerts", "drained")}
        if self._is_json:
            self._json("end", facts | {"last_sequence": self._last_sequence})
            return
        console.print(
            f"Stopped. Dead letters: {facts['dead_letters']:,}. Alerts: {facts['alerts']:,}."
            f" Drained: {facts['drained']:,} messages, up to sequence {self._last_sequence:,}."
        )

    def _json(self, kind: str, facts: dict[str, Any]) -> None:
        print_json({"kind": kind, "at": datetime.now(UTC), **facts})
        sys.stdout.flush()


_ACTIONS = {
    DLQAction.STORE: "[green]store  [/green]",
    DLQAction.RETRY: "[cyan]retry  [/cyan]",
    DLQAction.ALERT: "[red]alert  [/red]",
    DLQAction.DISCARD: "[dim]discard[/dim]",
}


def _places(event: DLQEvent, action: DLQAction) -> dict[str, Any]:
    return {
        "failure_id": event.failure_id,
        "sequence": event.sequence,
        "published_at": event.published_at,
        "action": action.value,
    }


def _clock(at: datetime) -> str:
    return f"{at.astimezone():%H:%M:%S}"
