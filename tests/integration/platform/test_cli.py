"""The `dlq` command: what it prints, what it refuses, and how it ends."""

import asyncio
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import nats
import polars as pl
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from sahool_dlq.cli import VERBS, _command
from sahool_dlq.embedded.postgres import installed_binaries
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.settings import Settings, environment_of
from support import ROOT

Run = Callable[..., Result]

LETTER = {
    "event_id": "e1",
    "original_subject": "x.analysis.ndvi",
    "event_type": "ndvi",
    "source_service": "gateway",
    "tenant_id": "al-waha",
    "field_id": None,
    "farmer_id": None,
    "error_message": "\x1b[2Jslow [bold]tile[/bold] 17",
    "error_type": "TimeoutError",
    "stack_trace": 'Traceback:\n  File "ndvi.py", line 3, in fetch\nTimeoutError',
    "retry_count": 3,
    "max_retries": 3,
    "first_attempt_at": "2026-01-01T00:00:00Z",
    "last_attempt_at": "2026-01-01T00:00:09Z",
    "dlq_timestamp": "2026-01-01T00:00:09Z",
    "dlq_reason": "max_retries_exceeded",
    "original_data": {"n": 1, "password": "hunter2"},
    "original_headers": {},
}


@pytest.fixture
def dlq(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a verb against the test's own platform, which has three dead letters."""
    names = {
        "DLQ_SUBJECT_PREFIX": settings.subject_prefix,
        "DLQ_EVENTS_STREAM": settings.events_stream,
        "DLQ_DLQ_STREAM": settings.dlq_stream,
        "DLQ_TOTALS_STREAM": settings.totals_stream,
        "COLUMNS": "160",
    }
    for name, value in (environment_of(settings) | names).items():
        monkeypatch.setenv(name, value)
    asyncio.run(_fill(settings))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(_command(), arguments, catch_exceptions=False)

    return run


async def _fill(settings: Settings) -> None:
    connection = await nats.connect(settings.nats_url.get_secret_value())
    js = connection.jetstream()
    await ensure_streams(js, settings.stream_names)
    for number in range(2):
        body = json.dumps(LETTER | {"event_id": f"e{number}"}).encode()
        await js.publish(f"{settings.subject_prefix}.dlq.ndvi", body)
    await js.publish(f"{settings.subject_prefix}.dlq.odd", b"{not json")
    await connection.close()


def as_json(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def test_drain_prints_one_object_and_drains_nothing_the_second_time(dlq: Run) -> None:
    first, second = as_json(dlq("drain", "--json")), as_json(dlq("drain", "--json"))
    assert (first["drained"], first["quarantined"], first["gaps"]) == (3, 1, 0)
    assert first["last_sequence"] == second["last_sequence"] == 3
    assert (second["drained"], second["quarantined"]) == (0, 0)
    assert first["seconds"] > 0


def test_drain_says_it_in_words(dlq: Run) -> None:
    result = dlq("drain")
    assert "Drained 3 messages" in result.stdout
    assert "1 could not be read" in result.stdout


def test_groups_and_show_explain_a_failure_without_its_secrets_and_escapes(dlq: Run) -> None:
    dlq("drain")
    groups = as_json(dlq("groups", "--json"))["groups"]
    assert [(g["failure_count"], g["state"]) for g in groups] == [(1, "new"), (2, "ongoing")]
    groups = groups[::-1]
    printed = dlq("groups").stdout
    assert groups[0]["group_id"] in printed
    shown = dlq("show", groups[0]["group_id"])
    assert "TimeoutError" in shown.stdout
    assert "in fetch" in shown.stdout
    assert "slow [bold]tile[/bold]" in shown.stdout  # markup of a message is text
    assert "\x1b" not in shown.stdout
    assert "hunter2" not in shown.stdout
    assert f"dlq redrive --group {groups[0]['group_id']}" in shown.stdout


@pytest.mark.parametrize(
    ("rule", "style"),
    [("", "1"), (r"library_code = ['ndvi\.py$']", "2"), (r"ignored_frames = [':fetch$']", "2")],
)
def test_show_emphasises_frames_by_the_users_rules(
    dlq: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rule: str, style: str
) -> None:
    dlq("drain")
    group = as_json(dlq("groups", "--json"))["groups"][-1]["group_id"]
    (tmp_path / "rules.toml").write_text(f"[grouping]\n{rule}\n")
    monkeypatch.setenv("DLQ_RULES_FILE", str(tmp_path / "rules.toml"))
    terminal = Console(force_terminal=True, highlight=False, emoji=False)
    monkeypatch.setattr("sahool_dlq.cli.show.console", terminal)
    assert f'\x1b[{style}m  File "ndvi.py", line 3, in fetch' in dlq("show", group).stdout


def test_show_says_what_is_wrong_with_an_id(dlq: Run) -> None:
    dlq("drain")
    result = dlq("show", "ffff-no-such")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No failure or group has the id 'ffff-no-such'" in result.stderr


def test_sql_reads_and_never_writes(dlq: Run, settings: Settings, tmp_path: Path) -> None:
    dlq("drain")
    answer = as_json(dlq("sql", "--json", "SELECT count(*) AS n FROM dead_letters"))
    assert answer == {"columns": ["n"], "rows": [[3]]}
    target = Path(settings.lake) / "stolen.parquet"
    kept = {file: file.read_bytes() for file in Path(settings.lake).rglob("*") if file.is_file()}
    written = [target, next(file for file in kept if file.suffix == ".parquet")]
    copies = [f"COPY (SELECT 1) TO '{file}'" for file in written]
    for statement in (
        copies[0],
        *(f"EXPLAIN /* x */ ANALYZE {copy}" for copy in copies),
        *(f"WITH x AS ({copy}) SELECT 1" for copy in copies),
        f"EXPORT DATABASE '{target}'",
        f"SELECT * FROM read_parquet('{written[1]}')",
        "SET enable_external_access = true",
        "CREATE TABLE x AS SELECT 1",
        "SELECT 1; SELECT 2",
        f"ATTACH '{target}' AS x",
        "INSTALL httpfs",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELEKT 1",
    ):
        refused = dlq("sql", statement)
        assert (refused.exit_code, refused.stdout) == (1, ""), statement
        assert refused.stderr.startswith("dlq: "), statement
    plan = as_json(dlq("sql", "--json", "EXPLAIN SELECT * FROM dead_letters"))
    assert "physical_plan" in str(plan["rows"])
    now = {file: file.read_bytes() for file in Path(settings.lake).rglob("*") if file.is_file()}
    assert now == kept


def test_sql_reads_no_more_rows_than_asked_for_and_takes_no_longer(dlq: Run) -> None:
    dlq("drain")
    endless = "SELECT range AS n FROM range(1_000_000_000)"
    some = dlq("sql", "--limit", "2", endless)
    assert some.exit_code == 0, some.stderr
    assert "There are more rows: raise --limit" in some.stdout
    assert as_json(dlq("sql", "--json", "--limit", "2", endless))["rows"] == [[0], [1]]
    dear = "SELECT count(*) FROM range(1_000_000_000_000) WHERE random() < 0"
    ended = dlq("sql", "--seconds", "0.5", dear)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("dlq: The statement was stopped after 0.5 seconds")


def test_marts_are_in_postgres_and_the_lake(dlq: Run) -> None:
    dlq("drain")
    built = as_json(dlq("marts", "--json"))
    assert built["rows"]["failure_groups"] == 2
    lake = as_json(dlq("sql", "--json", "SELECT sum(failure_count) FROM mart_failure_groups"))
    assert lake["rows"] == [[3]]
    again = as_json(dlq("marts", "--json"))
    assert again["rows"] == built["rows"]


def test_status_shows_how_far_each_sink_is(dlq: Run) -> None:
    before = as_json(dlq("status", "--json"))
    assert set(before["sinks"].values()) == {0}
    dlq("drain")
    after = as_json(dlq("status", "--json"))
    assert set(after["sinks"].values()) == {3}
    assert after["failures"] == {"pending": 3}
    assert "holds up to" in dlq("status").stdout


def test_a_dry_run_shows_the_plan_and_publishes_nothing(dlq: Run) -> None:
    dlq("drain")
    plan = as_json(dlq("redrive", "--type", "TimeoutError", "--dry-run", "--json"))
    assert plan["planned"] == 2
    assert plan["groups"][0]["error_type"] == "TimeoutError"
    assert as_json(dlq("status", "--json"))["last_sequence"] == 3


def test_a_redrive_needs_a_selection(dlq: Run) -> None:
    result = dlq("redrive")
    assert result.exit_code == 1
    assert "Say what to redrive" in result.stderr


def test_the_lines_of_the_readme_read_the_lake(
    dlq: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dlq("drain")
    dlq("marts")
    (tmp_path / "elsewhere" / ".dlq").mkdir(parents=True)
    (tmp_path / "elsewhere" / ".dlq" / "lake").symlink_to(settings.lake)
    monkeypatch.chdir(tmp_path / "elsewhere")
    page = (ROOT / "README.md").read_text()
    section = page.partition("## The lake with other tools")[2]
    imports, _, block = section.partition("```python\n")[2].partition("\n\n")
    assert imports.split() == ["import", "deltalake", "import", "duckdb", "import", "polars"]
    lines = block.partition("```")[0].splitlines()
    with duckdb.connect() as connection:
        names = {"duckdb": connection, "polars": pl, "deltalake": deltalake}
        groups, *whole = [eval(line, {"open": _read_and_close}, names) for line in lines]
        assert groups.fetchall()
        assert [len(rows) for rows in whole] == [3, 3]
        for name in ("dead_letters", "failures", "cases", "mart_failure_groups"):
            row = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
            assert row is not None
            assert row[0] > 0, name


def _read_and_close(path: str) -> io.StringIO:
    return io.StringIO(Path(path).read_text())


def test_a_missing_server_is_one_sentence(dlq: Run) -> None:
    nats_down = dlq("drain", "--nats-url", "nats://127.0.0.1:1")
    assert nats_down.exit_code == 1
    assert nats_down.stderr.count("\n") == 1
    assert "No NATS server answers at nats://127.0.0.1:1" in nats_down.stderr
    postgres_down = dlq("drain", "--postgres-dsn", "postgresql://u:geheim@127.0.0.1:1/x")
    assert postgres_down.exit_code == 1
    assert "PostgreSQL at 127.0.0.1:1/x does not answer" in postgres_down.stderr
    assert "geheim" not in postgres_down.stderr
    no_dsn = dlq("drain", "--postgres-dsn", "mysql://u:geheim@127.0.0.1/x")
    assert no_dsn.stderr.startswith("dlq: DLQ_POSTGRES_DSN is not valid: ")
    assert "geheim" not in no_dsn.stderr


def test_a_lake_that_can_not_be_opened_is_one_sentence(dlq: Run) -> None:
    result = dlq("drain", "--lake-uri", "/dev/null")
    assert result.exit_code == 1
    assert "directory: /dev/null/dead_letters: Not a directory. Set DLQ_LAKE_URI" in result.stderr


def test_a_credentials_file_that_is_missing_is_named(
    dlq: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLQ_NATS_CREDS", "/nowhere/dlq.creds")
    assert "There is no NATS credentials file /nowhere/dlq.creds" in dlq("drain").stderr


def test_a_setting_that_makes_no_sense_is_named(dlq: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLQ_REDRIVE_CAP", "many")
    result = dlq("status")
    assert result.exit_code == 1
    assert "DLQ_REDRIVE_CAP is not valid" in result.stderr


def test_migrate_is_idempotent_and_names_the_streams(dlq: Run, settings: Settings) -> None:
    answer = as_json(dlq("migrate", "--json"))
    assert answer["migrations"] == []
    assert answer["streams"]["dead_letters"] == settings.dlq_stream


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(verb: str) -> None:
    result = CliRunner().invoke(_command(), [verb, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_the_monitoring_queries_run_on_postgres(dlq: Run, settings: Settings) -> None:
    """Each file with psql, as an operator would."""
    dlq("drain")
    psql = installed_binaries() / "psql"
    files = sorted((ROOT / "sql" / "monitoring").glob("*.sql"))
    assert len(files) >= 4
    for file in files:
        done = subprocess.run(
            [psql, settings.postgres_dsn.get_secret_value(), "-v", "ON_ERROR_STOP=1", "-f", file],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (file.name, done.stderr)
