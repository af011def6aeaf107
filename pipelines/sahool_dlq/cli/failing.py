"""How an error ends a verb: one sentence on standard error, with --json one object."""

import json
import sys
from typing import NoReturn

import click

from sahool_dlq.deadletter.sanitize import printable

__all__ = ["fail"]


def fail(message: str, status: int, *, is_json: bool) -> NoReturn:
    """Say what went wrong and exit with `status`; standard output gets nothing."""
    if is_json:
        error = {"error": message, "exit_status": status}
        click.echo(json.dumps(error, ensure_ascii=True), err=True)
    else:
        click.echo(f"dlq: {printable(message)}", err=True)
    sys.exit(status)
