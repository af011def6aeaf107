"""Planted secrets stay in the stream, unless raw dead letters are asked for."""

import asyncio
import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from click.testing import CliRunner
from nats.aio.client import Client

from sahool_dlq.analysis.report.page import as_html
from sahool_dlq.analysis.report.section import as_markdown
from sahool_dlq.cli import _command
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.redrive import redrive
from sahool_dlq.jobs.report import make_report
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings, environment_of
from support.platform_log import letter, publish, query

SECRETS = {
    "payload": "hunter2-payload",
    "nested": "hunter2-nested",
    "text in payload": "hunter2-in-text",
    "list": "hunter2-in-list",
    "json in json": "hunter2-deep",
    "card": "4111 1111 1111 1111",
    "mail": "plant@example.com",
    "phone": "+4915112345679",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "pem": "MIIEowIBAAKCAQEA7planted",
    "header": "hunter2-header",
    "cookie": "hunter2-cookie",
    "message": "hunter2-message",
    "url": "hunter2-url",
    "query": "hunter2-query",
    "trace": "hunter2-trace",
    "bearer": "hunter2-bearer-0123456789",
    "attempt": "hunter2-attempt",
    "rule key": "98765-pin",
    "rule pattern": "PLOT-99887",
    "event": "hunter2-note",
    "quarantined": "hunter2-quarantined",
}
NUMBERS = {"card": 4111111111111111, "price": 1.1, "phone": 4915112345678, "big": 1e22}
RULES = """
[redaction]
keys = ["farm_pin"]
patterns.plot = 'PLOT-[0-9]{5}'
"""


def planted() -> list[bytes]:
    """Dead letters with a secret in every field."""
    s = SECRETS
    data: dict[str, Any] = {
        "numbers": NUMBERS,
        "password": s["payload"],
        "deep": [{"api_key": {"value": s["nested"]}}, {"tokens": ["x"], "access_token": s["list"]}],
        "note": f"the password={s['text in payload']} and {s['card']} of {s['mail']}",
        "body": json.dumps({"secret": s["json in json"]}),
        "call": s["phone"],
        "jwt_text": f"got {s['jwt']}",
        "farm_pin": s["rule key"],
        "plot": f"on {s['rule pattern']}",
    }
    key = f"-----BEGIN PRIVATE KEY-----\n{s['pem']}\n-----END PRIVATE KEY-----"
    trace = (
        "Traceback (most recent call last):\n"
        '  File "/srv/app/main.py", line 3, in run\n'
        f"    login(password='{s['trace']}')\n"
        f"ValueError: {key}\n"
    )
    message = (
        f"GET https://ali:{s['url']}@host/x?api_key={s['query']}: Bearer {s['bearer']},"
        f" password={s['message']}"
    )
    headers = {"Authorization": f"Basic {s['header']}", "Cookie": f"sid={s['cookie']}"}
    attempts = [
        {"at": "2026-01-02T03:04:05Z", "error_type": "E", "error_message": f"token={s['attempt']}"}
    ]
    whole = letter(
        1,
        original_data=data,
        original_headers=headers,
        error_message=message,
        stack_trace=trace,
        attempts=attempts,
    )
    return [whole, b'{"password": "' + s["quarantined"].encode() + b'", "x"']


def leaks(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() if secret in text]


def of_lake(folder: Path) -> str:
    """Every byte of the lake: of the files, and of the decoded Parquet."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    tables = [pl.read_parquet(file, hive_partitioning=False) for file in files if _is_table(file)]
    decoded = [str(row) for table in tables for row in table.rows()]
    assert decoded
    return "\n".join([*(file.read_bytes().decode("latin-1") for file in files), *decoded])


def _is_table(file: Path) -> bool:
    return file.suffix == ".parquet" and "_delta_log" not in file.parts


def of_database(settings: Settings) -> str:
    """Every row of every table."""
    tables = query(settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'dlq'")
    rows = [
        row["row"]
        for table in tables
        for row in query(settings, f'SELECT t::text AS row FROM "{table["tablename"]}" t')
    ]
    assert rows
    return "\n".join(rows)


@pytest.fixture
def ruled(settings: Settings, tmp_path: Path) -> Settings:
    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    return settings.model_copy(update={"rules_file": file})


def verbs(settings: Settings, monkeypatch: pytest.MonkeyPatch, *lines: str) -> str:
    """The output of `dlq`'s verbs about this platform."""
    names = {
        "DLQ_SUBJECT_PREFIX": settings.subject_prefix,
        "DLQ_EVENTS_STREAM": settings.events_stream,
        "DLQ_DLQ_STREAM": settings.dlq_stream,
        "COLUMNS": "10000",
    }
    for name, value in (environment_of(settings) | names).items():
        monkeypatch.setenv(name, value)
    told = [CliRunner().invoke(_command(), line.split()) for line in lines]
    assert [result.exit_code for result in told] == [0] * len(lines), told
    return "\n".join(result.output for result in told)


async def test_no_planted_secret_is_in_a_sink_a_mart_a_report_a_view_or_a_log(
    ruled: Settings,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    await publish(client, ruled, planted())
    note = {"kind": "triage.discarded", "reason": f"password={SECRETS['event']}", "actor": "ali"}
    await publish(client, ruled, [json.dumps(note).encode()], subject="triage.discarded")
    drained = await drain_log(ruled)
    assert (drained.drained, drained.quarantined) == (3, 2)
    build_all_marts(ruled)
    report = make_report(ruled, datetime.now(UTC))
    page = as_markdown(report.sections, report.now) + as_html(
        report.frames, report.sections, report.now
    )
    assert page.count("ConnectionError") > 1
    (row,) = query(
        ruled,
        "SELECT id::text, group_id, original_data FROM failed_events WHERE parse_error IS NULL",
    )
    assert row["original_data"]["numbers"] == NUMBERS
    assert row["original_data"]["password"] == "[redacted:secret]"
    assert row["original_data"]["plot"] == "on [redacted:plot]"
    told = await asyncio.to_thread(
        verbs,
        ruled,
        monkeypatch,
        f"show {row['id']}",
        f"show {row['group_id']} --json",
        "groups",
        "groups --json",
        "status",
        f"redrive --group {row['group_id']} --dry-run",
        "redact --dry-run",
        "redact --dry-run --json",
    )
    assert "redacted" in told
    assert leaks(of_lake(Path(ruled.lake))) == []
    assert leaks(of_database(ruled)) == []
    assert leaks(told + page) == []
    assert leaks(caplog.text) == []


async def test_the_dry_run_counts_and_shows_what_a_drain_masks(
    ruled: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(client, ruled, planted())
    told = await asyncio.to_thread(verbs, ruled, monkeypatch, "redact --dry-run --json")
    masking = json.loads(told)
    assert (masking["messages"], masking["messages_masked"]) == (2, 2)
    counts = {rule["rule"]: rule["masks"] for rule in masking["rules"]}
    assert counts["key farm_pin"] == counts["plot"] == counts["card"] == counts["email"] == 1
    assert counts["key password"] == 5
    (plot,) = next(rule["samples"] for rule in masking["rules"] if rule["rule"] == "plot")
    assert re.search(r'"on PL•{8} \(10 characters\)"', plot["before"])
    assert '"on [redacted:plot]"' in plot["after"]
    assert query(ruled, "SELECT count(*) FROM failed_events")[0]["count"] == 0


async def test_raw_dead_letters_are_kept_where_asked_and_redriven_when_the_stream_lost_them(
    settings: Settings, client: Client
) -> None:
    keeping = settings.model_copy(update={"keep_payloads": True})
    subject = f"{settings.subject_prefix}.analysis.ndvi_computed"
    body = {"password": SECRETS["payload"], "exact": 1.10}
    letters = [letter(n, original_subject=subject, original_data=body) for n in (1, 2)]
    stored = await publish(client, keeping, letters)
    await drain_log(keeping)
    await drain_log(keeping)
    kept = query(settings, "SELECT * FROM failed_payloads ORDER BY dlq_sequence")
    assert {row["dlq_sequence"]: bytes(row["data"]) for row in kept} == stored
    # A recreated stream holds other dead letters at the same sequences.
    await client.jetstream().delete_stream(settings.dlq_stream)
    await ensure_streams(client.jetstream(), settings.stream_names)
    await publish(client, settings, [letter(n, error_type="KeyError") for n in (3, 4)])
    events = await client.jetstream().subscribe(subject)

    async def redriven(count: int) -> dict[str, int]:
        report = await redrive(
            keeping.model_copy(update={"redrive_timeout_seconds": 0.2}),
            Selection(error_types=("ConnectionError",)),
            trigger="manual",
            requested_by="test",
            reason="test",
        )
        assert report is not None
        assert report.planned == count
        return report.outcomes

    assert await redriven(2) == {"outcome_unknown": 1, "cancelled": 1}
    event = await events.next_msg(timeout=5)
    assert json.loads(event.data) == body
    # Its own retention, and it goes with its failure.
    await drain_log(keeping.model_copy(update={"payload_days": 1e-9}))
    assert query(settings, "SELECT * FROM failed_payloads") == []
    assert await redriven(2) == {"expired": 2}


async def test_raw_dead_letters_are_not_kept_by_default_and_are_granted_apart(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, [letter(1)])
    await drain_log(settings)
    assert query(settings, "SELECT * FROM failed_payloads") == []
    with psycopg.connect(settings.postgres_dsn.get_secret_value()) as connection:
        grants = connection.execute(
            "SELECT grantee, privilege_type FROM information_schema.table_privileges"
            " WHERE table_name = 'failed_payloads' AND grantee <> current_user"
        ).fetchall()
    assert sorted(grants) == [
        ("dlq_drain", "DELETE"),
        ("dlq_drain", "INSERT"),
        ("dlq_payloads", "SELECT"),
    ]
