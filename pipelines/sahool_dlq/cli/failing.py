"""How an error ends a verb: one sentence on standard error, with --json one object."""

import json
import sys
from typing import NoReturn

import click

from sahool_dlq.deadletter.sanitize import printable

__all__ = ["CHECKOUT_ONLY", "checkout_only", "fail"]

CHECKOUT_ONLY = ("sahool_dlq.demo", "sahool_dlq.simulation")
"""Packages of the source checkout that the wheel leaves out."""


def checkout_only(what: str) -> str:
    """The sentence that says where `what` can be had."""
    return (
        f"{what} is not part of the installed package: get the source of sahool-dlq, run"
        " `make setup` in its folder, and call it there."
    )


def fail(message: str, status: int, *, is_json: bool) -> NoReturn:
    """Say what went wrong and exit with `status`; standard output gets nothing."""
    if is_json:
        error = {"error": message, "exit_status": status}
        click.echo(json.dumps(error, ensure_ascii=True), err=True)
    else:
        click.echo(f"dlq: {printable(message)}", err=True)
    sys.exit(status)
