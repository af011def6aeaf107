"""What every verb has in common: flags for the servers, `--json`, and errors in one sentence."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sahool_dlq.cli import HELP
from sahool_dlq.cli.examples import EXAMPLES
from sahool_dlq.cli.failing import fail
from sahool_dlq.errors import DLQError, UnknownNameError
from sahool_dlq.settings import Settings, load_settings

FLAGS = (
    click.Option(["--json", "is_json"], is_flag=True, help="print one JSON object"),
    click.Option(
        ["-s", "--server", "--nats-url", "nats_url"],
        help="NATS servers' addresses, comma-separated [DLQ_NATS_URL]",
    ),
    click.Option(
        ["--context", "nats_context"], help="context of the nats command [DLQ_NATS_CONTEXT]"
    ),
    click.Option(["--postgres-dsn"], help="connection string [DLQ_POSTGRES_DSN]"),
    click.Option(["--lake-uri"], help="folder or s3://… of the lake [DLQ_LAKE_URI]"),
    click.Option(
        ["--home"], type=click.Path(path_type=Path), help="folder of the embedded data [DLQ_HOME]"
    ),
    click.Option(["--debug"], is_flag=True, help="show tracebacks"),
)


class Verb(click.Command):
    """A command whose help has its own options first, then those of every verb, then examples."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, in two parts."""
        own: list[tuple[str, str]] = []
        common: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)):
                is_common = parameter in FLAGS or parameter not in self.params  # --help
                (common if is_common else own).append(record)
        for title, records in (("Options", own), ("Options of every verb", common)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, each as it can be pasted."""
        names = ctx.command_path.split()[1:]
        if examples := EXAMPLES.get(" ".join(names)):
            with formatter.section("Examples"):
                for line in examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def known_lake(settings: Settings) -> None:
    """Raises UnknownNameError where there is no lake at all, rather than to call it empty."""
    from sahool_dlq.stores.lake.lake import LAYOUTS, Lake

    lake = Lake(settings.lake)
    if all(lake.version(name) is None for name in LAYOUTS):
        raise UnknownNameError(
            f"There is no lake at {lake.uri}: say where it is with --lake-uri or DLQ_LAKE_URI, or"
            " run `dlq drain`, which makes it."
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
            status = 2 if isinstance(error, UnknownNameError) else 1
            fail(str(error), status, is_json=is_json)
        except BrokenPipeError:
            sys.exit(1)
        except KeyboardInterrupt:
            sys.exit(130)

    command = click.command(
        cls=Verb, help=function.__doc__, context_settings={"help_option_names": HELP}
    )(run)
    command.params += FLAGS
    return command
