"""`dlq get`: the original event of a failure, for users who may read payloads, and audited."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import nats.js.api
import psycopg
import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter.headers import MutableHeaders
from sahool_dlq.embedded import PostgresServer
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.settings import Settings
from support.platform_log import query, told
from support.reproducing import fail_on
from support.running import dlq

BODIES = {
    "json": b'{"event_id": "e0",  "password": "hunter2", "price": 1.10, "n": 12345678901234567890}',
    "binary": b"\x00\xff\xfe event \x1b[2J",
    "empty": b"",
}


@pytest.mark.parametrize("kind", BODIES)
async def test_raw_is_the_exact_bytes_and_nothing_else_from_stream_and_from_dead_letter(
    settings: Settings, client: Client, kind: str
) -> None:
    body = BODIES[kind]
    [failure] = await fail_on(settings, client, [body], {"Nats-Msg-Id": "m1"})
    done = await dlq(settings, "get", failure[:13], "--raw", "--reason", "to look", "--by", "ana")
    assert (done.exit_code, done.stdout_bytes) == (0, body)
    assert f"From stream {settings.events_stream}, message 1." in done.stderr

    await client.jetstream().purge_stream(settings.events_stream)
    done = await dlq(settings, "get", failure, "--raw")
    assert (done.exit_code, done.stdout_bytes) == (0, body)
    assert "From the dead letter's own copy: stream" in done.stderr

    await client.jetstream().delete_msg(settings.dlq_stream, 1)
    done = await dlq(settings, "get", failure, "--raw", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "the stream no longer has its dead letter" in told(done.stderr)
    rows = query(settings, "SELECT * FROM audit_log ORDER BY id")
    assert [row["action"] for row in rows] == ["payload.read"] * 3
    assert rows[0]["actor"] == "ana"
    assert rows[0]["reason"] == "to look"
    assert [str(each) for each in rows[0]["failure_ids"]] == [failure]


async def test_headers_and_the_lines_that_publish_it_have_all_values(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    sent: MutableHeaders = {"Nats-Msg-Id": "m1", "tag": ["red", "blue"]}
    sent["Authorization"] = "Bearer x"
    [failure] = await fail_on(settings, client, [BODIES["json"]], sent)
    done = await dlq(settings, "get", failure, "--headers")
    assert done.stdout.splitlines() == [
        "Nats-Msg-Id: m1",
        "tag: red",
        "tag: blue",
        "Authorization: Bearer x",
    ]
    told_headers = json.loads((await dlq(settings, "get", failure, "--headers", "--json")).stdout)
    assert told_headers["headers"] == sent

    line = json.loads((await dlq(settings, "get", failure, "--nats", "--json")).stdout)["nats"]
    assert line.startswith("nats pub --header=tag:red --header=tag:blue")

    program = await dlq(settings, "get", failure, "--python")
    (tmp_path / "again.py").write_bytes(program.stdout_bytes)
    assert "Left out: Nats-Msg-Id." in program.stderr
    url = settings.nats_url.get_secret_value()
    command, env = [sys.executable, "again.py"], {**os.environ, "NATS_URL": url}
    await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, env=env, check=True)
    async with connected(settings.access) as reader:
        last = await reader.jetstream().get_last_msg(
            settings.events_stream, f"{settings.subject_prefix}.analysis.ndvi"
        )
    assert isinstance(last, nats.js.api.RawStreamMsg)
    assert last.seq == 2
    assert last.data == BODIES["json"]


async def test_without_a_form_it_is_masked_and_needs_no_right_to_payloads(
    settings: Settings, client: Client, postgres_server: PostgresServer
) -> None:
    [failure] = await fail_on(settings, client, [BODIES["json"]], {"Authorization": "Bearer abc"})
    login = f"analyst_{settings.subject_prefix}"
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {login} LOGIN IN ROLE dlq_analyst")
        try:
            name = owner.info.dbname
            dsn = f"postgresql://{login}@127.0.0.1:{postgres_server.port}/{name}"
            done = await dlq(settings, "get", failure, DLQ_POSTGRES_DSN=dsn)
            assert done.exit_code == 0, done.stderr
            assert "[redacted:secret]" in done.stdout
            assert "hunter2" not in done.stdout + done.stderr
            assert "abc" not in done.stdout
            for form in ("--raw", "--headers", "--nats", "--python"):
                done = await dlq(settings, "get", failure, form, DLQ_POSTGRES_DSN=dsn)
                assert (done.exit_code, done.stdout) == (1, "")
                assert "permission denied for table failed_payloads: grant it" in done.stderr
            owner.execute(f"GRANT dlq_payloads TO {login}")
            done = await dlq(settings, "get", failure, "--raw", "--json", DLQ_POSTGRES_DSN=dsn)
            assert base64.b64decode(json.loads(done.stdout)["body_base64"]) == BODIES["json"]
        finally:
            owner.execute(f"DROP ROLE {login}")
    [row] = query(settings, "SELECT action, db_user FROM audit_log")
    assert row == {"action": "payload.read", "db_user": login}


async def test_what_an_id_may_be_and_what_is_said_of_others(
    settings: Settings, client: Client
) -> None:
    ids = await fail_on(settings, client, [BODIES["json"]] * 20, {})
    shared = next(digit for digit in "0123456789abcdef" if sum(i[0] == digit for i in ids) > 1)
    [group] = query(settings, "SELECT DISTINCT group_id FROM failed_events")
    for given, status, words in (
        (shared, 1, f"Several failures begin with '{shared}': give more of the id."),
        ("zz", 2, "No failure has an id that begins with 'zz'"),
        (group["group_id"], 2, f"is a group: `dlq export --group {group['group_id']}`"),
    ):
        done = await dlq(settings, "get", given)
        assert (done.exit_code, done.stdout) == (status, "")
        assert words in done.stderr
    done = await dlq(settings, "get", ids[0].upper(), "--json")
    assert json.loads(done.stdout)["failure_id"] == ids[0]
