"""`dlq bridge`."""

import asyncio
from collections import Counter
from typing import Any

import click

from sahool_dlq.bridge.advisory import Advisory
from sahool_dlq.bridge.find_unadvised import Untold
from sahool_dlq.bridge.run import Bridge, bridge_pending
from sahool_dlq.cli.output import console, errors, log_plainly, safe
from sahool_dlq.cli.verb import Answer, tell, verb, wants_json
from sahool_dlq.events.signals import set_by_signal
from sahool_dlq.settings import Settings

_COUNTED = (
    *("bridged", "gone", "skipped", "found", "repeated", "removed"),
    *("moved", "acknowledged", "ids_taken"),
)


@verb
@click.option("--once", "is_once", is_flag=True, help="process what is there, then exit")
def command(settings: Settings, is_once: bool) -> Answer[dict[str, Any]]:
    """Record failures of consumers that do not use this library, until Ctrl-C.

    The server publishes an advisory when a consumer terminates an event, or has received it
    max_deliver times. Each advisory becomes a dead letter that holds the event. The flow drain-dlq
    does the same.
    """
    log_plainly()
    counts, untold = asyncio.run(bridge_pending(settings) if is_once else _run(settings))
    facts: dict[str, Any] = {} if is_once else {"kind": "end"}
    facts |= {name: counts[name] for name in _COUNTED}
    facts["untold"] = [each._asdict() for each in untold]

    def show(_: object) -> None:
        _show(counts)
        if is_once:
            _print_untold(untold)

    return Answer(facts, show)


def _show(counts: Counter[str]) -> None:
    console.print(
        f"Recorded from advisories: {counts['bridged']:,}, and {counts['gone']:,} more without"
        f" their event; without an advisory: {counts['found']:,}."
        f" Advisories ignored: {counts['skipped']:,}."
    )
    if counts["repeated"]:
        console.print(
            f"Advisories about failures that were recorded before: {counts['repeated']:,}."
        )
    if counts["moved"]:
        console.print(
            f"Terminated after their consumer wrote a dead letter itself: {counts['moved']:,}."
            " `dlq import` records them."
        )
    if counts["removed"]:
        console.print(
            f"Events that their stream removed while a consumer had them: {counts['removed']:,}."
            " Nobody can know whether they were handled, so they do not count as failures."
        )
    if counts["acknowledged"]:
        console.print(
            f"Acknowledged after they were given up: {counts['acknowledged']:,}. Their failures are"
            " discarded."
        )
    if counts["ids_taken"]:
        console.print(
            f"Found another dead letter under their id: {counts['ids_taken']:,}. Somebody forged"
            " it, or another version wrote it; both are kept, and `dlq show` tells them apart."
        )


def _print_untold(untold: list[Untold]) -> None:
    for each in untold:
        console.print(
            f"{safe(each.consumer)} on {safe(each.stream)} gave up at least {each.at_least:,}"
            f" more events. Its counters show how many, not which."
        )


async def _run(settings: Settings) -> tuple[Counter[str], list[Untold]]:
    stop = asyncio.Event()
    redactor = settings.redactor(settings.rules)

    def show(advisory: Advisory, fields: dict[str, Any]) -> None:
        facts: dict[str, Any] = {
            "stream": advisory.stream,
            "sequence": advisory.stream_seq,
            "consumer": advisory.consumer,
            "service": redactor.redact_label(fields["consumer_service"]),
            "error_type": redactor.redact_label(fields["error_type"]),
            "deliveries": advisory.deliveries,
        }
        text = (
            f"[bold]{safe(facts['error_type'][:60])}[/bold] [cyan]{safe(facts['service'][:60])}"
            f"[/cyan] on {safe(advisory.stream)} {advisory.stream_seq} after"
            f" {advisory.deliveries} deliveries"
        )
        tell({"kind": "dead_letter", **facts}, lambda _: console.print(text, soft_wrap=True))

    with set_by_signal(stop):
        bridge = Bridge(settings, show)
        await bridge.open()
        if not wants_json():
            errors.print("[dim]Waiting for advisories. Ctrl-C stops.[/dim]")
        bridge.start_in_background()
        untold = await bridge.sample()
        if not wants_json():
            _print_untold(untold)
        await stop.wait()
        await bridge.close()
    return bridge.counts, untold
