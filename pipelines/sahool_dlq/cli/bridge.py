"""`dlq bridge`."""

import asyncio
import logging
import sys
from collections import Counter
from typing import Any

import click

from sahool_dlq.bridge.advisory import Advisory
from sahool_dlq.bridge.find_unadvised import Untold
from sahool_dlq.bridge.run import Bridge, bridge_pending
from sahool_dlq.cli.output import PlainHandler, console, errors, print_json, safe
from sahool_dlq.cli.verb import verb
from sahool_dlq.events.signals import set_by_signal
from sahool_dlq.settings import Settings

_COUNTED = (
    *("bridged", "gone", "skipped", "found", "repeated", "removed"),
    *("acknowledged", "ids_taken"),
)


@verb
@click.option("--once", "is_once", is_flag=True, help="process what is there, then exit")
def command(settings: Settings, is_json: bool, is_once: bool) -> None:
    """Record failures of consumers that do not use this library, until Ctrl-C.

    The server publishes an advisory when a consumer terminates an event, or has received it
    max_deliver times. Each advisory becomes a dead letter that holds the event. The flow drain-dlq
    does the same.
    """
    logging.basicConfig(level=logging.WARNING, handlers=[PlainHandler()])
    counts, untold = asyncio.run(bridge_pending(settings) if is_once else _run(settings, is_json))
    facts: dict[str, Any] = {name: counts[name] for name in _COUNTED}
    facts["untold"] = [each._asdict() for each in untold]
    if is_json:
        print_json({"kind": "end", **facts} if not is_once else facts)
        return
    console.print(
        f"Recorded from advisories: {facts['bridged']:,}, and {facts['gone']:,} more without their"
        f" event; without an advisory: {facts['found']:,}."
        f" Advisories ignored: {facts['skipped']:,}."
    )
    if facts["repeated"]:
        console.print(
            f"Advisories about failures that were recorded before: {facts['repeated']:,}."
        )
    if facts["removed"]:
        console.print(
            f"Events that their stream removed while a consumer had them: {facts['removed']:,}."
            " Nobody can know whether they were handled, so they do not count as failures."
        )
    if facts["acknowledged"]:
        console.print(
            f"Acknowledged after they were given up: {facts['acknowledged']:,}. Their failures are"
            " discarded."
        )
    if facts["ids_taken"]:
        console.print(
            f"Found another dead letter under their id: {facts['ids_taken']:,}. Somebody forged it,"
            " or another version wrote it; both are kept, and `dlq show` tells them apart."
        )
    if is_once:
        _print_untold(untold)


def _print_untold(untold: list[Untold]) -> None:
    for each in untold:
        console.print(
            f"{safe(each.consumer)} on {safe(each.stream)} gave up at least {each.at_least:,}"
            f" more events. Its counters show how many, not which."
        )


async def _run(settings: Settings, is_json: bool) -> tuple[Counter[str], list[Untold]]:
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
        if is_json:
            print_json({"kind": "dead_letter", **facts})
            sys.stdout.flush()
            return
        console.print(
            f"[bold]{safe(facts['error_type'][:60])}[/bold] [cyan]{safe(facts['service'][:60])}"
            f"[/cyan] on {safe(advisory.stream)} {advisory.stream_seq} after"
            f" {advisory.deliveries} deliveries",
            soft_wrap=True,
        )

    with set_by_signal(stop):
        bridge = Bridge(settings, show)
        await bridge.open()
        if not is_json:
            errors.print("[dim]Waiting for advisories. Ctrl-C stops.[/dim]")
        bridge.start_in_background()
        untold = await bridge.sample()
        if not is_json:
            _print_untold(untold)
        await stop.wait()
        await bridge.close()
    return bridge.counts, untold
