"""The reference of `dlq`, from its commands: a page for each chapter of `dlq --help`."""

import re
from collections.abc import Iterator, Sequence

import click

from sahool_dlq.cli import CHAPTERS, _command
from sahool_dlq.cli.examples import EXAMPLES
from sahool_dlq.cli.verb import FLAGS

_CODE = re.compile(r"(`[^`]*`)")


def pages() -> dict[str, str]:
    """Markdown by file name without suffix."""
    group = _command()
    context = click.Context(group, info_name="dlq")
    found = {"options": _common(context)}
    for chapter, verbs in CHAPTERS.items():
        lines = [f"# {chapter}"]
        for verb in verbs:
            command = group.get_command(context, verb)
            assert command is not None
            lines += _command_text(command, click.Context(command, context, verb), 2)
        found[chapter.lower().replace(" ", "-")] = "\n\n".join(lines) + "\n"
    return found


def _common(context: click.Context) -> str:
    parts = [
        "# Options of every verb",
        "Every verb takes these as well. An option wins over the setting of the environment.",
        _table(FLAGS, context),
    ]
    return "\n\n".join(parts) + "\n"


def _command_text(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """Heading, usage, description, options and examples; then its subcommands."""
    path = context.command_path
    yield f"{'#' * level} {path}"
    yield f"```text\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```"
    for paragraph in (command.help or "").replace("\b\n", "").split("\n\n"):
        yield _prose(" ".join(paragraph.split()))
    if table := _table([each for each in command.params if each not in FLAGS], context):
        yield table
    if examples := EXAMPLES.get(path.removeprefix("dlq ")):
        yield "```sh\n" + "\n".join(examples) + "\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            assert sub is not None
            yield from _command_text(sub, click.Context(sub, context, name), level + 1)


def _table(parameters: Sequence[click.Parameter], context: click.Context) -> str:
    records = [each.get_help_record(context) for each in parameters]
    rows = [
        f"| `{_cell(names)}` | {_cell(_prose(what))} |"
        for names, what in filter(None, records)
        if what
    ]
    return "\n".join(["| option | what |", "|---|---|", *rows]) if rows else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(text: str) -> str:
    """Text of a terminal as Markdown, in which only backticks have a meaning."""
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_<>\[\]#])", r"\\\1", part)
        for part in _CODE.split(text)
    )
