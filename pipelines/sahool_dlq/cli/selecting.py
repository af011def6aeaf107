"""The flags that select failures, named as the fields of a `Selection`."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from sahool_dlq.cli.output import errors
from sahool_dlq.jobs.selecting import selected
from sahool_dlq.redrive.choose.selection import CONDITIONS, EVERYTHING, Condition, Selection
from sahool_dlq.settings import Settings

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def selecting(
    limit: int = Selection().limit, what: str = "maximum number of failures"
) -> _Decorator:
    """Give a verb's function a `selection` made from the flags that are added to it.

    `limit` is the default maximum number of failures, `what` the help of that flag.
    """
    shown = "all" if limit == EVERYTHING else f"{limit}"
    most: _Decorator = click.option(
        "--limit", type=click.IntRange(1), default=limit, help=f"{what}  [default: {shown}]"
    )
    flags = [_flag(*each) for each in CONDITIONS.items()]

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(settings: Settings, **parameters: Any) -> Any:
            given = {name: parameters.pop(name) for name in (*CONDITIONS, "limit")}
            return function(settings, selection=selected(settings, given), **parameters)

        command: Callable[..., Any] = run
        for flag in (most, *reversed(flags)):
            command = flag(command)
        return command

    return add


def _flag(name: str, condition: Condition) -> _Decorator:
    if condition.flag is None:
        return click.argument(name, nargs=-1, metavar="[FAILURE_ID]…")
    is_repeatable = getattr(Selection(), name) == ()
    return click.option(condition.flag, name, multiple=is_repeatable, help=condition.what)


def is_agreed(question: str, *, is_yes: bool) -> bool:
    """Whether to go on: asked of a person at a terminal, taken for granted elsewhere."""
    if is_yes or not (sys.stdin.isatty() and errors.is_terminal):
        return True
    return click.confirm(question, err=True)
