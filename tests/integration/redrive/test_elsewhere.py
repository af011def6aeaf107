"""`dlq redrive --to-context`: copies on a second NATS, with a consumer and a log there."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import ConsumerContext
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.settings import Settings
from support.platform_log import query
from support.redriving import Service, dead_letters, seen
from support.reproducing import fail_on
from support.running import dlq

BODY = b'{"event_id": "e1", "password": "hunter2", "area": 1.10}'
HEADERS = {"Trace": "t1", "Authorization": "Bearer abc", "Nats-Expected-Stream": ""}


@pytest.fixture
def staging(nats_server_factory: Callable[..., NatsServer]) -> NatsServer:
    return nats_server_factory()


def elsewhere(settings: Settings, server: NatsServer) -> Settings:
    """A platform on the other server, with streams of the same names."""
    return settings.model_copy(update={"nats_url": server.url})


def log_of(settings: Settings) -> list[dict[str, Any]]:
    return query(settings, "SELECT status, redrive_count, updated_at FROM failed_events")


async def test_copies_are_masked_new_events_there_and_nothing_happens_here(
    settings: Settings, client: Client, staging: NatsServer, tmp_path: Path
) -> None:
    [failure] = await fail_on(settings, client, [BODY], HEADERS)
    before, stored = log_of(settings), await _messages(client, settings)
    contexts = tmp_path / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "staging.json").write_text(json.dumps({"url": staging.url}))
    there = elsewhere(settings, staging)
    async with connected(staging.url) as other:
        await ensure_streams(other.jetstream(), there.stream_names)
        async with Service(there, ValueError("also here")).running() as service:
            done = await dlq(
                *(settings, "redrive", failure, "--to-context", "staging", "--by", "ana"),
                *("--reason", "try 2.4 there"),
                XDG_CONFIG_HOME=str(tmp_path),
                NATS_USER="of-another-server",
                NATS_PASSWORD="secret",
            )
            assert (done.exit_code, "1 event copied to context staging" in done.stdout) == (0, True)
            await seen(service, 1)
            await dead_letters(other, there, 1)  # it failed there, and that is a failure of there
        letters = await _messages(other, there)
    [context] = service.seen
    assert _is_masked(context)
    assert json.loads(letters[0])["original_headers"]["Dlq-Copy-Of"] == failure
    assert "redrive_id" not in json.loads(letters[0])
    assert log_of(settings) == before
    assert await _messages(client, settings) == stored
    assert query(settings, "SELECT * FROM redrives") == []
    rows = query(settings, "SELECT action, actor, reason, failure_ids, detail FROM audit_log")
    assert [row["action"] for row in rows] == ["redrive.copied", "redrive.copied.done"]
    assert {(row["actor"], row["reason"]) for row in rows} == {("ana", "try 2.4 there")}
    assert [str(each) for each in rows[0]["failure_ids"]] == [failure]
    assert (rows[1]["detail"]["to"], rows[1]["detail"]["masked"]) == ("context staging", True)
    told = (await dlq(settings, "audit")).stdout
    assert "by ana  1 copied to context staging, masked" in told
    assert "by ana  1 failures  to context staging, masked" in told
    assert rows[1]["detail"]["copied"] == {f"{settings.subject_prefix}.analysis.ndvi": 1}


def _is_masked(context: ConsumerContext) -> bool:
    body, headers = json.loads(context.data), context.headers
    assert "hunter2" not in str(body)
    assert (body["event_id"], body["area"], headers["Trace"]) == ("e1", 1.1, "t1")
    assert "abc" not in headers["Authorization"]
    assert not [name for name in headers if name.startswith("Dlq-Redrive")]
    return "Nats-Expected-Stream" not in headers


async def _messages(client: Client, settings: Settings) -> list[bytes]:
    js = client.jetstream()
    count = (await js.stream_info(settings.dlq_stream)).state.last_seq
    found = [await js.get_msg(settings.dlq_stream, number) for number in range(1, count + 1)]
    return [message.data or b"" for message in found]


async def test_raw_copies_have_the_original_bytes_and_each_reading_is_in_the_audit(
    settings: Settings, client: Client, staging: NatsServer
) -> None:
    [failure, binary] = await fail_on(settings, client, [BODY, b"\xff\x00"], {"Trace": "t1"})
    there = elsewhere(settings, staging)
    copy = ("redrive", "--service", "ndvi", "--to-server", staging.url, "--reason", "debug")
    async with connected(staging.url) as other:
        missing = await dlq(settings, *copy)
        assert missing.exit_code == 1
        assert "1 left out: no stream there captures its subject" in missing.stdout
        await ensure_streams(other.jetstream(), there.stream_names)
        masked = json.loads((await dlq(settings, *copy, "--json")).stdout)
        assert list(masked["left_out"].values()) == [1]  # what is no JSON is not masked
        async with Service(there).running() as service:
            done = json.loads((await dlq(settings, *copy, "--raw", "--json")).stdout)
            assert (done["is_masked"], sum(done["copied"].values())) == (False, 2)
            await seen(service, 3)  # the masked one, and these
    assert {BODY, b"\xff\x00"} < {context.data for context in service.seen}
    [row] = query(settings, "SELECT * FROM audit_log WHERE action = 'payload.copied'")
    assert {str(each) for each in row["failure_ids"]} == {failure, binary}
    assert (row["reason"], row["detail"]["masked"]) == ("debug", False)


async def test_an_encoded_body_is_copied_raw_or_not_at_all(
    settings: Settings, client: Client, staging: NatsServer
) -> None:
    """What is stored of it is JSON, and its consumer there expects the format of its headers."""
    packed = gzip.compress(BODY)
    await fail_on(settings, client, [packed], {"Content-Encoding": "gzip"})
    there = elsewhere(settings, staging)
    copy = ("redrive", "--service", "ndvi", "--to-server", staging.url, "--reason", "debug")
    async with connected(staging.url) as other:
        await ensure_streams(other.jetstream(), there.stream_names)
        reason = "its body is gzip, so only --raw copies it"
        dry = json.loads((await dlq(settings, *copy, "--dry-run", "--json")).stdout)
        assert (dry["events"], dry["left_out"]) == ({}, {reason: 1})
        masked = await dlq(settings, *copy)
        assert (masked.exit_code, f"1 left out: {reason}." in masked.stdout) == (1, True)
        async with Service(there).running() as service:
            await dlq(settings, *copy, "--raw")
            await seen(service, 1)
    [context] = service.seen
    assert context.data == packed


async def test_the_same_nats_is_refused_and_a_dry_run_copies_nothing(
    settings: Settings, client: Client, staging: NatsServer
) -> None:
    await fail_on(settings, client, [BODY], {})
    copy = ("redrive", "--service", "ndvi", "--to-server")
    same = await dlq(settings, *copy, settings.nats_url.get_secret_value())
    assert (same.exit_code, "on which these events failed" in same.stderr) == (1, True)
    dry = await dlq(settings, *copy, staging.url, "--dry-run")
    assert "1 event would be copied to" in dry.stdout
    assert query(settings, "SELECT * FROM audit_log") == []
    for wrong in (("--raw",), ("--to-context", "a", "--to-server", "b"),
                  ("--to-server", staging.url, "--edit", '{"a": 1}')):  # fmt: skip
        refused = await dlq(settings, "redrive", "--service", "ndvi", *wrong)
        assert refused.exit_code == 2
