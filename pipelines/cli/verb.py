"""What every verb has in common: flags for the servers, `--json`, and errors in one sentence."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelines.errors import DLQError
from pipelines.settings import Settings, load_settings

_FLAGS = (
    click.option("--json", "is_json", is_flag=True, help="print one JSON object"),
    click.option(
        *("-s", "--server", "--nats-url", "nats_url"),
        help="NATS servers' addresses, comma-separated [DLQ_NATS_URL]",
    ),
    click.option(
        "--context", "nats_context", help="context of the nats command [DLQ_NATS_CONTEXT]"
    ),
    click.option("--postgres-dsn", help="connection string [DLQ_POSTGRES_DSN]"),
    click.option("--lake-uri", help="folder or s3://… of the lake [DLQ_LAKE_URI]"),
    click.option(
        "--home", type=click.Path(path_type=Path), help="folder of the embedded data [DLQ_HOME]"
    ),
    click.option("--debug", is_flag=True, help="show tracebacks"),
)


def verb(function: Callable[..., Any]) -> click.Command:
    """A command whose function gets `settings` and `is_json` before its own parameters."""

    @functools.wraps(function)
    def run(
        *,
        is_json: bool,
        debug: bool,
        nats_url: str | None,
        nats_context: str | None,
        postgres_dsn: str | None,
        lake_uri: str | None,
        home: Path | None,
        **parameters: Any,
    ) -> None:
        try:
            settings: Settings = load_settings(
                nats_url=nats_url,
                nats_context=nats_context,
                postgres_dsn=postgres_dsn,
                lake_uri=lake_uri,
                home=home,
            )
            function(settings, is_json, **parameters)
        except DLQError as error:
            if debug:
                raise
            click.echo(f"dlq: {error}", err=True)
            sys.exit(1)
        except BrokenPipeError:
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    for flag in reversed(_FLAGS):
        run = flag(run)
    return click.command(help=function.__doc__)(run)
