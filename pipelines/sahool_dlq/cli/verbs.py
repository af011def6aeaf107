"""The group of all verbs: its help by chapter, what was meant, and how it ends."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from keyword import iskeyword
from typing import Any

import click

from sahool_dlq.cli import HELP
from sahool_dlq.cli.failing import CHECKOUT_ONLY, checkout_only, fail

__all__ = ["Verbs", "module_of"]

_ALIASES = {
    "retry": "redrive", "replay": "redrive", "requeue": "redrive", "query": "sql", "list": "groups",
    "ls": "groups", "start": "up", "run": "up", "serve": "up", "delete": "discard",
    "close": "discard",
    "metrics": "exporter", "backup": "copy", "schema": "tables", "describe": "tables",
    "tail": "monitor", "watch": "monitor", "init": "migrate", "check": "verify", "history": "audit",
}  # fmt: skip


def module_of(verb: str) -> str:
    """The module of a verb; none can be called `try`."""
    name = verb.replace("-", "_")
    return f"sahool_dlq.cli.{name}{'_' * iskeyword(name)}"


class Verbs(click.Group):
    """`dlq`: verbs by chapter, each loaded from the module of its name when it is called."""

    def __init__(self, chapters: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(
            help="Dead letters of NATS JetStream: drain, explain, redrive.\n\n"
            "Settings come from DLQ_* in the environment, from a running `dlq up`, or from flags.",
            epilog="Run dlq VERB --help for details and examples.",
            no_args_is_help=True,
            context_settings={"help_option_names": HELP, "max_content_width": 100},
        )
        self._chapters = chapters
        version = click.version_option(package_name="sahool-dlq", message="sahool-dlq %(version)s")
        version(self)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (signature of click)
        """Every verb."""
        return [verb for verbs in self._chapters.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a module, or None where there is no such verb.

        Raises click.ClickException where the module needs a part that a wheel does not have.
        """
        if cmd_name not in self.list_commands(ctx):
            return None
        try:
            module = importlib.import_module(module_of(cmd_name))
        except ModuleNotFoundError as error:
            if error.name not in CHECKOUT_ONLY:
                raise
            raise click.ClickException(checkout_only(f"dlq {cmd_name}")) from error
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that was typed; else a usage error that says which was meant."""
        typed = args[0]
        if typed.startswith("-") or typed in self.list_commands(ctx):
            return super().resolve_command(ctx, args)
        near = get_close_matches(typed, self.list_commands(ctx), n=2, cutoff=0.6)
        meant = [_ALIASES[typed]] if typed in _ALIASES else near
        hint = f" Did you mean {' or '.join(meant)}?" if meant else " dlq --help lists them."
        raise click.UsageError(f"There is no verb {typed!r}.{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  (signature of click)
        """The verbs with a word on each, by chapter."""
        for chapter, verbs in self._chapters.items():
            with formatter.section(chapter):
                formatter.write_dl(list(verbs.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a verb; wrong usage ends with 2, Ctrl-C with 130, and --json makes errors JSON."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode, **extra)
        given = sys.argv[1:] if args is None else list(args)
        try:
            status = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            if "--json" in given:
                fail(error.format_message(), error.exit_code, is_json=True)
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Aborted.", err=True)
            sys.exit(130)
        sys.exit(status if isinstance(status, int) else 0)
