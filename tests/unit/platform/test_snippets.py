"""Commands and code in the documents exist; `test_snippets_run.py` runs the code."""

import json
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator

import click
import pytest
import yaml

from sahool_dlq.alerts.rules import read_alert_rules
from sahool_dlq.cli import _command
from sahool_dlq.deadletter.rules import Rules, read_rules
from support import ROOT

PAGES = [
    "README.md",
    "grafana/README.md",
    *sorted(f"docs/{page.name}" for page in ROOT.glob("docs/*.md")),
]
ENDS = {"|", "||", ";", "&&", "&", ">", ">>", "<", "(", ")"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}(?: [^\n]*)?\n(.*?)^ *```", text_of(page), re.M | re.S)


def simple_commands(line: str) -> Iterator[list[str]]:
    """The commands of a line of a shell, each without the variables and `sudo` before it."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe of a sentence
        words = line.split()
    command: list[str] = []
    for word in [*words, ";"]:
        if word in ENDS:
            yield command
            command = []
        elif command or not (re.match(r"\w+=", word) or word == "sudo"):
            command.append(word)


def dlq_commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        for command in simple_commands(line):
            if command and command[0] in ("dlq", ".venv/bin/dlq"):
                yield command[1:]


def of_page(page: str) -> list[list[str]]:
    """Every `dlq …` of a page, in its blocks and between backticks."""
    found = [command for block in blocks(page, "sh") for command in dlq_commands(block)]
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.M | re.S)
    for inline in re.findall(r"`(dlq [^`]+)`", prose):
        found += dlq_commands(" ".join(inline.split()))
    return found


def problem(words: list[str]) -> str | None:
    """What does not exist in a command."""
    group = _command()
    context = click.Context(group)
    if not words or words[0].startswith(("-", "…")) or words[0].isupper():
        return None  # about dlq itself
    command = group.get_command(context, words[0])
    if command is None:
        return f"no verb {words[0]}"
    chain: list[click.Command] = [command]
    for word in words[1:]:
        if isinstance(chain[-1], click.Group) and word in chain[-1].commands:
            chain.append(chain[-1].commands[word])
    known = {"--help", "-h"} | {
        name
        for each in chain
        for parameter in each.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    given = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]
    return next((f"no option {name}" for name in given if name not in known), None)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_ours_exists_with_its_options(page: str) -> None:
    wrong = [(" ".join(each), why) for each in of_page(page) if (why := problem(each))]
    assert wrong == []


def test_wrong_commands_would_be_found() -> None:
    assert problem(["drian"]) == "no verb drian"
    assert problem(["drain", "--fast"]) == "no option --fast"
    assert problem(["batches", "approve", "ID", "--maybe"]) == "no option --maybe"
    assert problem(["redrive", "--group", "GROUP", "--dry-run"]) is None
    assert list(dlq_commands("X=1 sudo dlq drain --json | jq . && .venv/bin/dlq status")) == [
        ["drain", "--json"],
        ["status"],
    ]
    assert len(of_page("README.md")) > 15


@pytest.mark.parametrize("page", PAGES)
def test_python_is_python(page: str) -> None:
    for number, block in enumerate(blocks(page, "python"), 1):
        compile(block, f"{page}, block {number}", "exec")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_its_language(page: str) -> None:
    for script in blocks(page, "sh"):
        done = subprocess.run(
            ["bash", "-n"], input=script, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for language, read in (("json", json.loads), ("toml", tomllib.loads), ("yaml", yaml.safe_load)):
        for block in blocks(page, language):
            assert read(block)
    every = set(re.findall(r"^ *```(\w+)", text_of(page), re.M))
    assert every <= {"sh", "json", "toml", "yaml", "python", "sql", "promql", "text"}


@pytest.mark.parametrize("page", ["docs/api.md", "docs/connecting.md"])
def test_short_code_runs_as_it_stands(page: str) -> None:
    [block] = blocks(page, "python")
    exec(compile(block, page, "exec"), {})


def test_the_rules_of_the_documents_are_taken() -> None:
    [alerts] = blocks("docs/alerts.md", "toml")
    assert read_alert_rules(alerts) != read_alert_rules()
    rules, owners, formats = blocks("docs/rules.md", "toml")
    assert len(read_rules(owners).ownership.rule) == 2
    assert len(read_rules(formats).decoding) == 3
    assert read_rules(rules) != Rules()


def test_make_targets_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    makes = [
        re.sub(r"-C \S+ ", "", " ".join(command)).split()
        for page in PAGES
        for block in blocks(page, "sh")
        for line in block.splitlines()
        for command in simple_commands(line)
        if command and command[0] == "make"
    ]
    named = {next(word for word in words[1:] if "=" not in word) for words in makes}
    assert len(named) > 5
    assert named <= targets
