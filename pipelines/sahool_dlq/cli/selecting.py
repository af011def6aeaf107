"""The flags that say which failures a verb is about."""

import functools
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from sahool_dlq.cli.output import errors
from sahool_dlq.jobs.redrive import known_group
from sahool_dlq.redrive.choose.selection import Selection, moment
from sahool_dlq.settings import Settings

_FLAGS = (
    click.argument("failure_ids", nargs=-1, metavar="[FAILURE_ID]…"),
    click.option(
        "--group", "group_id", help="a failure group, or its first digits: see `dlq groups`"
    ),
    click.option("--type", "error_types", multiple=True, help="error type, with its subclasses"),
    click.option("--service", help="the service that failed"),
    click.option("--tenant", "tenant_id", help="only events of this tenant"),
    click.option("--event-type", help="last token of the event's subject"),
    click.option("--subject", help="the event's subject, or a filter: sahool.analysis.*"),
    click.option("--since", help="failed at or after this time: 24h, 7d, 2026-03-01T12:00:00Z"),
    click.option("--until", help="failed before this time"),
    click.option("--where", help="a condition: \"redrive_count > 0 AND data.crop = 'wheat'\""),
    click.option(
        "--limit",
        type=click.IntRange(1),
        default=10_000,
        show_default=True,
        help="maximum number of failures",
    ),
)


def selecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb's function a `selection` made from the flags that are added to it."""

    @functools.wraps(function)
    def run(settings: Settings, *arguments: Any, **parameters: Any) -> None:
        given = {name: parameters.pop(name) for name in _NAMES}
        now = datetime.now(UTC)
        if given["group_id"]:
            given["group_id"] = known_group(settings, given["group_id"])
        for name in ("since", "until"):
            given[name] = moment(given[name], now) if given[name] else None
        function(settings, *arguments, selection=Selection(**given), **parameters)

    for flag in reversed(_FLAGS):
        run = flag(run)
    return run


_NAMES = (
    "failure_ids", "group_id", "error_types", "service", "tenant_id", "event_type", "subject",
    "since", "until", "where", "limit",
)  # fmt: skip


def is_agreed(question: str, *, is_yes: bool) -> bool:
    """Whether to go on: asked of a person at a terminal, taken for granted elsewhere."""
    if is_yes or not (sys.stdin.isatty() and errors.is_terminal):
        return True
    return click.confirm(question, err=True)
