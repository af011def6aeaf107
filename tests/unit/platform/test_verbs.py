"""The `dlq` command as such: its help, what was meant, how it ends."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import sahool_dlq.cli
from sahool_dlq.cli import CHAPTERS, VERBS, _command
from sahool_dlq.cli.examples import EXAMPLES
from sahool_dlq.cli.verbs import module_of

NO_VERBS = {
    "as_of",
    "__init__", "__main__", "decide", "elsewhere", "examples", "failing", "layout", "output",
    "plan", "results", "selecting", "sql_prompt", "verb", "verbs",
}  # fmt: skip


def dlq(*arguments: str) -> Result:
    return CliRunner().invoke(_command(), arguments, prog_name="dlq")


def test_the_help_has_every_verb_in_one_chapter() -> None:
    folder = Path(sahool_dlq.cli.__file__).parent
    modules = {file.stem for file in folder.glob("*.py")} - NO_VERBS
    assert {module_of(verb).rpartition(".")[2] for verb in VERBS} == modules
    assert sum(map(len, CHAPTERS.values())) == len(VERBS)
    for flag in ("-h", "--help"):
        text = dlq(flag).stdout
        assert [line[:-1] for line in text.splitlines() if line[:-1] in CHAPTERS] == list(CHAPTERS)
        assert all(f"  {verb} " in text for verb in VERBS)


def test_the_version_is_said() -> None:
    assert dlq("--version").stdout.startswith("sahool-dlq 0.")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_verbs_help_has_its_own_options_first_and_examples_that_can_be_run(verb: str) -> None:
    result = dlq(verb, "-h")
    assert result.exit_code == 0, result.output
    text = result.stdout
    if verb == "alerts":  # a group
        return
    own, common = text.find("\nOptions:"), text.index("\nOptions of every verb:")
    assert own < common < text.index("\nExamples:")
    for flag in ("--lake-uri", "--context", "--json"):
        assert f"\n  {flag}" not in text[:common]


@pytest.mark.parametrize(
    "line", [line for lines in EXAMPLES.values() for line in lines if "dlq " in line]
)
def test_each_example_is_a_command_that_there_is(line: str) -> None:
    words = shlex.split(line.removeprefix('eval "$(').replace(')"', ""), comments=True)
    words = words[: next((n for n, word in enumerate(words) if word in ("|", ">", "<")), None)]
    if words[0] != "dlq":
        return
    command: click.Command | None = _command()
    context = click.Context(command, info_name="dlq")
    _, command, rest = _command().resolve_command(context, words[1:])
    assert command is not None
    command.make_context(words[1], rest, parent=context)


def options(command: click.Command, *words: str) -> Iterator[tuple[str, click.Option]]:
    """Each option of a verb and of its commands, with the words that lead to it."""
    context = click.Context(command)
    for each in command.params:
        if isinstance(each, click.Option):
            yield " ".join((*words, each.opts[0])), each
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from options(below, *words, name)


def test_a_number_that_makes_no_sense_is_refused() -> None:
    """`--limit -1` would leave out the last row without a word."""
    numbers = [
        (words, option)
        for words, option in options(_command())
        if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
    ]
    assert len(numbers) > 20
    unbounded = [
        words
        for words, option in numbers
        if not isinstance(option.type, click.IntRange | click.FloatRange) or option.type.min is None
    ]
    assert [words for words in unbounded if not words.endswith("--seed")] == []
    result = dlq("groups", "--limit", "-1")
    assert result.exit_code == 2
    assert "x>=1" in result.stderr


def test_every_verb_has_an_example() -> None:
    assert {name.split()[0] for name in EXAMPLES} == set(VERBS)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("retry", "redrive"), ("redive", "redrive"), ("shwo", "show"), ("ls", "groups")],
)
def test_a_verb_that_there_is_not_says_which_was_meant(typed: str, meant: str) -> None:
    result = dlq(typed)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"There is no verb {typed!r}. Did you mean {meant}" in result.stderr


def test_errors_are_json_where_json_was_asked_for() -> None:
    for arguments in (["grups", "--json"], ["redrive", "--json", "--limit", "no"]):
        result = dlq(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert json.loads(result.stderr)["exit_status"] == 2
    refused = dlq("groups", "--json", "--lake-uri", "ftp://x")
    assert refused.exit_code == 1
    assert "DLQ_LAKE_URI is not valid" in json.loads(refused.stderr)["error"]


def test_a_lake_that_there_is_not_is_an_error_and_no_empty_answer(tmp_path: Path) -> None:
    nowhere = ("--lake-uri", str(tmp_path / "none"))
    for arguments in (["groups"], ["report"], ["sql", "SELECT 1"], ["show", "1f0c"]):
        result = dlq(*arguments, *nowhere)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert "There is no lake at" in result.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_ctrl_c_exits_with_130(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr("sahool_dlq.cli.groups.known_lake", interrupted)
    assert dlq("groups").exit_code == 130


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_completion_script_is_that_of_the_shell(shell: str) -> None:
    script = dlq("completion", shell).stdout
    assert "_DLQ_COMPLETE" in script
    assert shell in script


def test_verbs_and_options_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "dlq gr")
    monkeypatch.setenv("COMP_CWORD", "1")
    done = CliRunner().invoke(
        _command(), prog_name="dlq", env={"_DLQ_COMPLETE": "zsh_complete"}, args=None
    )
    assert "groups" in done.stdout


@pytest.mark.parametrize(
    ("verb", "unused"),
    [
        ("status", ["pandas", "duckdb", "scipy.stats"]),
        ("sql", ["pandas", "scipy.stats", "psycopg", "nats"]),
        ("drain", ["pandas", "scipy.stats"]),
        ("groups", ["pandas", "nats"]),
    ],
)
def test_a_verb_loads_no_package_that_it_does_not_need(verb: str, unused: list[str]) -> None:
    code = "import json, sys; from sahool_dlq.cli import _command"
    code += f"; _command()(['{verb}', '--help'], standalone_mode=False)"
    code += f"; sys.exit(str([name for name in {unused} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
