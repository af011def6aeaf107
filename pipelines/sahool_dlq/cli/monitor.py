"""`dlq monitor`."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click

from sahool_dlq.alerts.message import Message
from sahool_dlq.cli.output import console, errors, log_plainly, print_line, safe
from sahool_dlq.cli.verb import tell, verb, wants_json
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
def command(settings: Settings, error_types: tuple[str, ...], retry_hours: float | None) -> None:
    """Show dead letters as they arrive, drain them at once and send alerts, until Ctrl-C.

    It begins with everything since its last run. Prints one line for each dead letter and each
    alert. Alerts go to the channels of DLQ_ALERT_URLS that the alert rule critical_errors names, by
    service, tenant and owner: one for an outage, not one per failure.
    """
    changes: dict[str, Any] = {}
    if error_types:
        changes["critical_error_types"] = list(error_types)
    if retry_hours is not None:
        changes |= {"auto_retry_enabled": True, "auto_retry_delay_hours": retry_hours}
    asyncio.run(_run(settings, monitor_config(settings, **changes)))


async def _run(settings: Settings, config: DLQConsumerConfig) -> None:
    log_plainly()
    stop = asyncio.Event()
    if not wants_json():
        channels = len(settings.alert_urls)
        where = f"{channels} alert channels" if channels else "no alert channels, alerts show here"
        errors.print(f"[dim]Monitoring {config.dlq_subject}; {where}. Ctrl-C stops.[/dim]")
    view = _View(settings)
    with set_by_signal(stop):
        await watch(settings, config, Screen(view.dead_letter, view.alert, view.drained), stop)
    view.end()


class _View:
    """What is printed: redacted, and nothing that can steer the terminal."""

    def __init__(self, settings: Settings) -> None:
        self._redactor = settings.redactor(settings.rules)
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
        message = " ".join(facts["error_message"].split())
        line = (
            f"[dim]{_clock(event.published_at)}[/dim] {_ACTIONS[action]} {event.failure_id[:8]}"
            f" [bold]{safe(facts['error_type'][:60])}[/bold]"
            f" [cyan]{safe(facts['service'][:60])}[/cyan] {safe(facts['event_type'][:60])}:"
            f" [dim]{safe(message)}[/dim]"
        )
        _tell("dead_letter", facts | _places(event, action), partial(print_line, line))

    def alert(self, message: Message) -> None:
        self._counts["alerts"] += 1
        line = (
            f"[dim]{_clock(datetime.now(UTC))}[/dim] [bold red]ALERT[/bold red]  "
            f"[bold]{safe(message.title)}[/bold]: {safe(message.command)}"
        )
        facts = {"title": message.title, "body": message.body}
        _tell("alert", facts, partial(print_line, line))

    def drained(self, report: DrainReport) -> None:
        self._counts["drained"] += report.drained
        self._last_sequence = report.last_sequence
        for note in report.notes:
            text = f"[bold red]{safe(note)}[/bold red]"
            _tell("note", {"text": note}, partial(console.print, text, soft_wrap=True))

    def end(self) -> None:
        facts = {name: self._counts[name] for name in ("dead_letters", "alerts", "drained")}
        text = (
            f"Stopped. Dead letters: {facts['dead_letters']:,}. Alerts: {facts['alerts']:,}."
            f" Drained: {facts['drained']:,} messages, up to sequence {self._last_sequence:,}."
        )
        _tell("end", facts | {"last_sequence": self._last_sequence}, partial(console.print, text))


def _tell(kind: str, facts: dict[str, Any], show: Callable[[], object]) -> None:
    tell({"kind": kind, "at": datetime.now(UTC), **facts}, lambda _: show())


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
