"""The flags that say which failures a verb is about, named as the fields of a `Selection`."""

import functools
import sys
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import click

from sahool_dlq.cli.output import errors
from sahool_dlq.jobs.redrive import known_group
from sahool_dlq.redrive.choose.selection import EVERYTHING, Selection, moment
from sahool_dlq.settings import Settings

_FLAGS = (
    click.argument("failure_ids", nargs=-1, metavar="[FAILURE_ID]…"),
    click.option(
        "--group", "group_id", help="a failure group, or its first digits: see `dlq groups`"
    ),
    click.option("--type", "error_types", multiple=True, help="error type, with its subclasses"),
    click.option("--service", help="the service that failed"),
    click.option("--version", help="the version of the service that failed: see `dlq deploys`"),
    click.option("--tenant", "tenant_id", help="only events of this tenant"),
    click.option("--event-type", help="last token of the event's subject"),
    click.option("--subject", help="the event's subject, or a filter: sahool.analysis.*"),
    click.option("--since", help="failed at or after this time: 24h, 7d, 2026-03-01T12:00:00Z"),
    click.option("--until", help="failed before this time"),
    click.option("--where", help="a condition: \"redrive_count > 0 AND data.crop = 'wheat'\""),
)


def selecting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb's function a `selection` made from the flags that are added to it."""
    return selecting_up_to(Selection().limit)(function)


def selecting_up_to(
    limit: int, what: str = "maximum number of failures"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same for a verb that takes another number of failures, where nothing else is said."""
    shown = "all" if limit == EVERYTHING else f"{limit}"
    most = click.option(
        "--limit",
        type=click.IntRange(1),
        default=limit,
        help=f"{what}  [default: {shown}]",
    )
    return lambda function: _selecting(function, most)


def _selecting(
    function: Callable[..., Any], most: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(settings: Settings, *arguments: Any, **parameters: Any) -> None:
        names = [field.name for field in fields(Selection) if field.name in parameters]
        given = {name: parameters.pop(name) for name in names}
        now = datetime.now(UTC)
        if given["group_id"]:
            given["group_id"] = known_group(settings, given["group_id"])
        for name in ("since", "until"):
            given[name] = moment(given[name], now) if given[name] else None
        function(settings, *arguments, selection=Selection(**given), **parameters)

    for flag in reversed((*_FLAGS, most)):
        run = flag(run)
    return run


def is_agreed(question: str, *, is_yes: bool) -> bool:
    """Whether to go on: asked of a person at a terminal, taken for granted elsewhere."""
    if is_yes or not (sys.stdin.isatty() and errors.is_terminal):
        return True
    return click.confirm(question, err=True)
