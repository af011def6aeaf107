"""The answer of a verb is printed in one place, which also decides the exit status."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import sahool_dlq.cli
from sahool_dlq.cli.output import print_json
from sahool_dlq.cli.verb import Answer, tell, verb
from sahool_dlq.errors import QueryError, UnknownNameError
from sahool_dlq.settings import Settings


@dataclass
class Found:
    """A report as jobs return it."""

    count: int


@dataclass
class Secretive(Found):
    """A report that defines itself what may be printed."""

    secret: str = "hunter2"

    def as_dict(self) -> dict[str, int]:
        return {"count": self.count}


def show(found: Found) -> None:
    click.echo(f"found {found.count}")


def answering(answer: Answer[Found] | None) -> click.Command:
    def command(settings: Settings) -> Answer[Found] | None:
        tell({"step": 1}, lambda _: click.echo("step 1"))
        return answer

    return verb(command)


@pytest.mark.parametrize("report", [Found(3), Secretive(3)])
def test_a_report_is_printed_as_json_or_by_its_function(report: Found) -> None:
    command = answering(Answer(report, show))
    assert CliRunner().invoke(command).stdout == "step 1\nfound 3\n"
    lines = CliRunner().invoke(command, ["--json"]).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1}, {"count": 3}]


def test_a_report_without_a_text_is_json() -> None:
    assert CliRunner().invoke(answering(Answer(Found(3)))).stdout == 'step 1\n{"count": 3}\n'


def test_reports_within_a_report_are_printed_as_they_would_be_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_json({"one": Secretive(1), "more": (Found(2), [Secretive(3)])})
    told = {"one": {"count": 1}, "more": [{"count": 2}, [{"count": 3}]]}
    assert json.loads(capsys.readouterr().out) == told


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (None, 0),
        (Answer(Found(3), show), 0),
        (Answer(Found(3), show, status=3), 3),
        (Answer(Found(3), show, error=QueryError("It was cut.")), 1),
        (Answer(Found(3), show, error=UnknownNameError("It was cut.")), 2),
    ],
)
def test_the_exit_status_is_that_of_the_answer(
    answer: Answer[Found] | None, status: int, flags: list[str]
) -> None:
    result = CliRunner().invoke(answering(answer), flags)
    assert result.exit_code == status
    assert result.stdout.count("\n") == (1 if answer is None else 2)
    assert ("It was cut." in result.stderr) == bool(answer and answer.error)


def test_nothing_but_the_one_place_prints_json() -> None:
    folder = Path(sahool_dlq.cli.__file__).parent
    users = {
        file.stem
        for file in folder.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if "print_json" in (getattr(node, "id", ""), getattr(node, "attr", ""))
    }
    assert users == {"verb"}
