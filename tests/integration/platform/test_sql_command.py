"""`dlq sql` on a lake without servers: queries in every format and at a prompt."""

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from sahool_dlq.analysis.dictionary import relation
from sahool_dlq.cli import _command, output, results
from sahool_dlq.settings import Settings
from sahool_dlq.simulation.run import into_lake
from sahool_dlq.simulation.scenario import Scenario

ODD = (
    "SELECT INTERVAL '14 months 1 day' - INTERVAL '90 seconds' AS i, 1 AS a, 2 AS a,"
    " 'NaN'::DOUBLE AS x, '-inf'::DOUBLE AS y, NULL AS n, MAP {'k': 1} AS m,"
    " 'a' || chr(27) || '[2Jb' AS t, [1.5, NULL] AS l"
)
INTERVAL = "1 year 2 months 1 day -00:01:30"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake of some hours, without any server."""
    folder = tmp_path_factory.mktemp("sql")
    settings = Settings(home=folder, lake_uri=str(folder / "lake"))
    into_lake(settings, Scenario(datetime.now(UTC), days=0.5, hourly=1, seed=3))
    return settings


Ask = Callable[..., Result]


@pytest.fixture
def ask(lake: Settings) -> Ask:
    def run(*arguments: str, stdin: str | None = None) -> Result:
        runner = CliRunner(env={"DLQ_LAKE_URI": lake.lake, "DLQ_HOME": str(lake.home)})
        return runner.invoke(_command(), ["sql", *arguments], input=stdin, prog_name="dlq")

    return run


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal of 80 columns, for tables."""
    monkeypatch.setattr(output.console, "_force_terminal", True)
    monkeypatch.setattr(output.console, "_width", 80)
    monkeypatch.setattr(output.console, "_color_system", None)
    return output.console


@pytest.mark.parametrize(
    ("statement", "column", "found"),
    [
        ("PIVOT (SELECT 1 AS n, 'up' AS state) ON state USING sum(n)", "up", 1),
        ("SELECT up FROM (PIVOT (SELECT 1 AS n, 'up' AS s) ON s USING sum(n))", "up", 1),
        ("\n-- why\nWITH q AS (SELECT 7 AS n) FROM q", "n", 7),
        ("VALUES (3, 4)", "col1", 4),
        ("FROM (SELECT 5 AS n)", "n", 5),
        ("DESCRIBE epochs", "column_name", "epoch"),
        ("SUMMARIZE SELECT 1 AS n", "column_name", "n"),
        ("SHOW epochs", "column_name", "epoch"),
        ("TABLE redrive_rules", "default_redrive_cap", 3),
    ],
)
def test_whatever_reads_is_answered(ask: Ask, statement: str, column: str, found: object) -> None:
    result = ask("--json", statement)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["rows"][0][told["columns"].index(column)] == found


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE x AS PIVOT (SELECT 1 AS n, 'a' AS s) ON s USING sum(n)",
        "/* PIVOT */ CREATE TABLE x AS PIVOT (SELECT 1 AS n, 'a' AS s) ON s USING sum(n)",
        "COPY (PIVOT (SELECT 1 AS n, 'a' AS s) ON s USING sum(n)) TO '{place}'",
        "WITH x AS (COPY (SELECT 1) TO '{place}') FROM (PIVOT (SELECT 1 AS n) ON n USING sum(n))",
        "PIVOT (SELECT 1 AS n, 'a' AS s) ON s USING sum(n); CREATE TABLE x AS SELECT 1",
        "PRAGMA database_list",
        "CALL duckdb_tables()",
    ],
)
def test_a_pivot_lets_nothing_else_through(ask: Ask, tmp_path: Path, statement: str) -> None:
    place = tmp_path / "stolen"
    refused = ask(statement.format(place=place))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert not place.exists()


def test_json_has_no_word_that_is_no_json(ask: Ask) -> None:
    told = json.loads(ask("--json", ODD).stdout, parse_constant=pytest.fail)
    assert told == {
        "columns": ["i", "a", "a", "x", "y", "n", "m", "t", "l"],
        "rows": [[INTERVAL, 1, 2, "NaN", "-Infinity", None, {"k": 1}, "a\x1b[2Jb", [1.5, None]]],
    }
    [line] = ask("--format", "jsonl", ODD).stdout.splitlines()
    assert json.loads(line)["a_1"] == 2


def test_csv_and_markdown_have_every_column_and_steer_nothing(ask: Ask) -> None:
    text = ask("--format", "csv", ODD).stdout
    head, row = csv.reader(io.StringIO(text))
    assert head == ["i", "a", "a", "x", "y", "n", "m", "t", "l"]
    assert row[:6] == [INTERVAL, "1", "2", "nan", "-inf", ""]
    page = ask("--format", "md", ODD).stdout
    assert page.splitlines()[1] == "| --- " * 9 + "|"
    assert "\x1b" not in text + page


def test_parquet_goes_to_a_file_or_a_pipe(ask: Ask, lake: Settings, tmp_path: Path) -> None:
    place = tmp_path / "odd.parquet"
    assert ask("--format", "parquet", "-o", str(place), ODD).exit_code == 0
    kept = pq.read_table(place)
    assert kept.column_names[:4] == ["i", "a", "a_1", "x"]
    assert kept["i"].to_pylist() == [INTERVAL]
    command = [
        sys.executable,
        "-m",
        "sahool_dlq.cli",
        "sql",
        "--format",
        "parquet",
        "SELECT 41 AS n",
    ]
    environment = os.environ | {"DLQ_LAKE_URI": lake.lake}
    piped = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert pq.read_table(io.BytesIO(piped.stdout)).to_pylist() == [{"n": 41}]


def test_a_terminal_is_told_how_many_columns_it_does_not_show(
    ask: Ask, terminal: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [column.name for column in relation("failures").columns]
    text = ask("SELECT * FROM failures LIMIT 2").stdout
    head, *_, said = text.strip().splitlines()
    shown = head.split()
    assert shown == every[: len(shown)]
    assert f"2 rows, {len(every)} columns, {len(shown)} shown" in said
    assert max(len(line) for line in text.splitlines()) <= 80
    monkeypatch.setattr(terminal, "_force_terminal", False)
    piped = ask("SELECT * FROM failures LIMIT 2").stdout.splitlines()
    assert piped[0].split() == every
    expanded = ask("-x", "SELECT * FROM failures LIMIT 1").stdout
    # The lines of a stack trace begin so, too.
    found = re.findall(r"^  (\w+)", expanded, re.MULTILINE)
    assert [name for name in found if name in every] == every


def test_no_number_and_no_id_is_cut_on_a_terminal(ask: Ask, terminal: Console) -> None:
    text = ask("SELECT uuid() AS id, repeat('word ', 99) AS t").stdout
    assert re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
    assert "…" in text
    assert "1 row, 2 columns: -x shows whole rows" in text
    numbers = ", ".join(f"123456789012345678 AS n{n}" for n in range(9))
    text = ask(f"SELECT {numbers}").stdout
    assert text.splitlines()[1].split() == ["123456789012345678"] * 4
    assert "9 columns, 4 shown" in text


def test_a_statement_comes_from_a_pipe(ask: Ask) -> None:
    assert json.loads(ask("--json", stdin="SELECT 1 AS n;\n").stdout)["rows"] == [[1]]
    empty = ask(stdin=" \n")
    assert (empty.exit_code, empty.stdout) == (1, "")
    assert "No statement was given" in empty.stderr


def test_a_table_that_there_is_not_is_named_with_what_to_do(ask: Ask) -> None:
    mart = ask("FROM mart_spikes")
    assert (mart.exit_code, mart.stdout) == (2, "")
    assert "`dlq marts` creates it" in mart.stderr
    unprefixed = ask("FROM spikes")
    assert unprefixed.exit_code == 2
    assert "did you mean mart_spikes?" in unprefixed.stderr
    typed = ask("FROM failure", "--json")
    assert typed.exit_code == 2
    assert "did you mean failures" in json.loads(typed.stderr)["error"]


def test_a_failure_has_status_message_body_and_age(ask: Ask, lake: Settings) -> None:
    told = json.loads(
        ask(
            "--json",
            "SELECT f.failure_id, f.status = c.status, f.age_seconds > 0, f.message IS NOT NULL,"
            " json_valid(f.body) FROM cases AS c JOIN failures AS f USING (failure_id)"
            " WHERE c.status <> 'reopened'",
        ).stdout
    )
    assert told["rows"]
    assert {tuple(row[1:]) for row in told["rows"]} == {(True, True, True, True)}
    counts = "SELECT count(*), count(DISTINCT failure_id) FROM failures"
    [[rows, failures]] = json.loads(ask("--json", counts).stdout)["rows"]
    assert rows == failures > 0


def test_the_prompt_answers_completes_remembers_and_ends(lake: Settings) -> None:
    """On a real terminal: the keys that are typed, and the output."""
    parent, child = pty.openpty()
    environment = os.environ | {
        "DLQ_LAKE_URI": lake.lake, "DLQ_HOME": str(lake.home), "TERM": "xterm", "COLUMNS": "100",
        "LINES": "40", "PROMPT_TOOLKIT_NO_CPR": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "sahool_dlq.cli", "sql"],
        stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(child)
    screen = Screen(parent)
    try:
        screen.wait_for("dlq sql>")
        screen.type("SELECT 6 * 7 AS answer;\r")
        screen.wait_for("1 row, 1 column")
        assert "42" in screen.text
        screen.type("FROM nix;\r")
        screen.wait_for("There is no table nix")
        screen.type("SELECT count(*) FROM erased_m\t")
        screen.wait_for("essages")
        screen.type(";\r")
        screen.wait_for("1 row, 1 column", times=2)
        screen.type(".quit\r")  # Ctrl-D would be lost before the prompt reads keys again
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    history = lake.home / "sql_history"
    assert "SELECT 6 * 7 AS answer;" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


class Screen:
    """The output of a program on its terminal so far."""

    def __init__(self, file: int) -> None:
        self._file = file
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self._file, keys.encode())

    def wait_for(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + 120
        while self.text.count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.text[-2000:]!r}"
            if select.select([self._file], [], [], 1)[0]:
                part = os.read(self._file, 65_536).decode(errors="replace")
                self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part)


def test_the_forms_are_those_of_the_help() -> None:
    assert results.FORMS == ("table", "csv", "json", "jsonl", "parquet", "md")
