"""What all verbs share: flags for the servers, output as JSON or text, exit status."""

import functools
import getpass
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from sahool_dlq.cli import HELP
from sahool_dlq.cli.examples import EXAMPLES
from sahool_dlq.cli.failing import fail
from sahool_dlq.cli.output import print_json
from sahool_dlq.errors import DLQError, UnknownNameError
from sahool_dlq.jobs.known_lake import known_lake as known_lake  # for the verbs
from sahool_dlq.settings import load_settings

Report = TypeVar("Report")

_JSON = click.Option(["--json", "is_json"], is_flag=True, help="print one JSON object")
_DEBUG = click.Option(["--debug"], is_flag=True, help="show tracebacks")
_SETTINGS = (
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
)
FLAGS = (_JSON, *_SETTINGS, _DEBUG)
BY = click.option("--by", default=getpass.getuser, help="who does it [your login name]")
HTML = click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="write one HTML page with charts that needs no network",
)


def limited(default: int, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `--limit`, a number from 1; `what` says of what, and which ones come first."""
    return click.option(
        "--limit", type=click.IntRange(1), default=default, show_default=True, help=what
    )


@dataclass(frozen=True, slots=True)
class Answer(Generic[Report]):
    """The result of a verb: one JSON object with --json, else the output of `show`.

    Without `show` it is always JSON. `error` is raised after the report is printed.
    """

    report: Report
    show: Callable[[Report], object] | None = None
    status: int = 0  # exit status of the command
    error: DLQError | None = None


def wants_json() -> bool:
    """Whether the verb that runs was given --json."""
    return bool(click.get_current_context().params["is_json"])


def tell(report: Report, show: Callable[[Report], object] | None = None) -> None:
    """Print a report like that of an `Answer`: for verbs that print while they run."""
    if show is None or wants_json():
        print_json(report)
    else:
        show(report)


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


def verb(function: Callable[..., Answer[Any] | None]) -> click.Command:
    """A command whose function gets `settings` before its own parameters and returns an `Answer`.

    A function that printed everything itself returns None.
    """

    @functools.wraps(function)
    def run(*, is_json: bool, debug: bool, **parameters: Any) -> None:
        given = {flag.name: parameters.pop(flag.name) for flag in _SETTINGS if flag.name}
        try:
            answer = function(load_settings(**given), **parameters)
            if answer is None:
                return
            tell(answer.report, answer.show)
            if answer.error:
                raise answer.error
            sys.exit(answer.status)
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
