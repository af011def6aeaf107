"""`dlq completion`."""

import click
from click.shell_completion import get_completion_class

from sahool_dlq.cli.verb import Answer, verb
from sahool_dlq.settings import Settings


@verb
@click.argument("shell", type=click.Choice(["zsh", "bash", "fish"]))
def command(settings: Settings, shell: str) -> Answer[dict[str, str]]:  # noqa: ARG001  (signature of all verbs)
    """Print the script that lets your shell complete verbs, options and their values.

    The shell reads it when it starts: see the examples. bash needs 4.4 or newer.
    """
    found = get_completion_class(shell)
    assert found is not None  # the choices are click's own
    script = found(
        click.get_current_context().find_root().command, {}, "dlq", "_DLQ_COMPLETE"
    ).source()
    return Answer({"script": script}, lambda _: click.echo(script))
