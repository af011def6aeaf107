"""The drain stores each message once in each sink, whatever its bytes are."""

import asyncio
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import nats
import polars as pl
import psycopg
import pytest
from nats.aio.client import Client
from nats.js.api import RetentionPolicy

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.drain.batch import build_batch
from sahool_dlq.errors import SchemaError, StreamError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.platform_log import (
    check_exact,
    execute,
    failures,
    in_lake,
    last_sequence,
    letter,
    publish,
    publish_raw,
    run_drain,
    state_of,
    told,
)


def small(settings: Settings, **changes: Any) -> Settings:
    """The same platform, drained in small batches."""
    return settings.model_copy(update={"drain_batch_messages": 50, **changes})


# -- once, and with its content


async def test_every_message_is_in_both_sinks_once_with_its_values(
    settings: Settings, client: Client
) -> None:
    stored = await publish(client, settings, map(letter, range(420)))
    report = await drain_log(small(settings))
    assert (report.drained, report.quarantined, report.gaps) == (420, 0, 0)
    assert report.last_sequence == await last_sequence(client, settings) == 420
    check_exact(settings, stored)
    row = failures(settings)[0]
    assert row["first_attempt_at"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert row["dlq_timestamp"] == datetime(2026, 1, 2, 3, 4, 7, 500_000, tzinfo=UTC)
    assert row["original_headers"] == {"Trace": "t0"}
    assert row["status"] == "pending"
    assert row["epoch"] == report.epoch == in_lake(settings)["epoch"][0]
    assert row["published_at"] == in_lake(settings)["published_at"][0]


async def test_a_rerun_drains_nothing_and_changes_nothing(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, map(letter, range(120)))
    await publish(client, settings, [b"{}"], "triage.parked")
    await drain_log(small(settings))
    before = state_of(settings)
    report = await drain_log(small(settings))
    assert (report.drained, report.quarantined, report.gaps) == (0, 0, 0)
    assert report.last_sequence == 121
    assert state_of(settings) == before


async def test_what_comes_later_is_appended(settings: Settings, client: Client) -> None:
    stored = await publish(client, settings, map(letter, range(60)))
    await drain_log(small(settings))
    first = state_of(settings)["rows"]
    stored |= await publish(client, settings, map(letter, range(60, 90)))
    report = await drain_log(small(settings))
    assert report.drained == 30
    check_exact(settings, stored)
    assert state_of(settings)["rows"][:60] == first


async def test_an_empty_stream_is_drained_without_a_row(settings: Settings, client: Client) -> None:
    report = await drain_log(settings)
    assert (report.drained, report.last_sequence) == (0, 0)
    assert failures(settings) == []


async def test_a_repeat_of_a_failure_is_counted_within_a_batch_and_across_drains(
    settings: Settings, client: Client
) -> None:
    origin = {"original_stream": "E", "original_sequence": 7, "original_timestamp_ns": 99}
    known = ids.failure_id("E", 7, 99, "worker")
    body = letter(1, **origin, consumer_name="worker", failure_id=known)
    forged = letter(2, **origin, consumer_name="other", failure_id=known)
    await publish(client, settings, [body, body, forged])
    await drain_log(settings)
    await publish(client, settings, [body])
    await drain_log(settings)
    rows = {str(row["id"]): row for row in failures(settings)}
    assert len(rows) == 2
    assert rows.pop(known)["seen_count"] == 3
    (other,) = rows.values()
    assert (other["seen_count"], other["event_id"]) == (1, "event-2")
    assert in_lake(settings).height == 4  # the lake keeps every message


@pytest.mark.parametrize("batch", [1, 2, 100])
async def test_case_events_fold_into_statuses_whatever_the_batches(
    settings: Settings, client: Client, batch: int
) -> None:
    await publish(client, settings, map(letter, range(4)))
    await drain_log(settings)
    one, two, three, _ = [str(row["id"]) for row in failures(settings)]
    now = datetime(2026, 2, 3, tzinfo=UTC)

    async def say(what: str, failure: str, **more: Any) -> None:
        body = encode_case_event(failure_id=failure, at=now, actor="ann", **more)
        await publish(client, settings, [body], what)

    redrive = {"attempt": 1, "redrive_id": ids.redrive_id(one, 1)}
    await say("redrive.published", one, trigger="manual", **redrive)
    await say("redrive.succeeded", one, **redrive)
    await say("triage.discarded", two, reason="a test")
    await say("triage.parked", three)
    await say("triage.unparked", three)
    await say("triage.resolved", str(uuid.uuid4()))  # without an owner
    report = await drain_log(settings.model_copy(update={"drain_batch_messages": batch}))
    assert report.drained == 6
    rows = failures(settings)
    assert [row["status"] for row in rows] == ["resolved", "discarded", "pending", "pending"]
    assert rows[0]["resolution_cause"] == "manual_redrive"
    assert rows[0]["resolved_at"] == now
    assert rows[1]["resolution_notes"] == "a test"
    assert in_lake(settings, "case_events")["dlq_sequence"].to_list() == [5, 6, 7, 8, 9, 10]


async def test_json_output_has_exactly_the_promised_numbers(
    settings: Settings, client: Client
) -> None:
    await publish(client, settings, [letter(1), b"no JSON"])
    status, output, _ = await run_drain(settings)
    assert status == 0
    (line,) = output.splitlines()
    value = json.loads(line)
    assert {key: value[key] for key in ("drained", "quarantined", "gaps", "last_sequence")} == {
        "drained": 2,
        "quarantined": 1,
        "gaps": 0,
        "last_sequence": 2,
    }
    assert 0 < value["seconds"] < 60


# -- poison

DEEP = b'{"a":' * 5_000 + b"1" + b"}" * 5_000
POISON: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"neither <xml/> nor JSON",
    "no UTF-8": b'{"event_id": "\xff\xfe\x80"}',
    "only zeros": b"\x00" * 50,
    "BOM": b"\xef\xbb\xbf{}",
    "an array": b"[1, 2]",
    "null": b"null",
    "a number": b"17",
    "a string": b'"text"',
    "NaN alone": b"NaN",
    "empty object": b"{}",
    "missing keys": b'{"event_id": "x"}',
    "extra keys": letter(1, surprise={"a": [1]}, epoch="x", dlq_sequence=-1, status="resolved"),
    "wrong types": letter(
        1, event_id=17, retry_count="many", original_headers=[1], tenant_id={"a": 1}, attempts=3
    ),
    "all null": json.dumps(dict.fromkeys(json.loads(letter(1)))).encode(),
    "NUL": letter(1, error_message="a\x00b", original_data={"k\x00": "v\x00"}, tenant_id="\x00"),
    "NUL in a header": letter(1, original_headers={"h\x00": "v\x00"}),
    "lone surrogates": letter(1, error_message="\ud800", original_data={"\udc00": ["\ud801"]}),
    "escaped backslash before u0000": letter(1, original_data={"a": "\\u0000"}),
    "NaN": letter(1, original_data={"a": float("nan"), "b": float("inf")}),
    "thousands of digits": letter(1).replace(b'"list": [1,', b'"list": [' + b"9" * 5_000 + b","),
    "digits and exponent": letter(1).replace(b"1.5", b"1e999999999999"),
    "a long fraction": letter(1).replace(b"1.5", b"0." + b"1" * 20_000),
    "a tiny exponent": letter(1).replace(b"1.5", b"1e-99999"),
    "a four-digit exponent": letter(1).replace(b"1.5", b"1e+0999"),
    "digits in retry_count": letter(1, retry_count=10**400),
    "digits in original_sequence": letter(1, original_sequence=10**30, original_stream="E"),
    "negative counts": letter(1, retry_count=-5, max_retries=-1, original_sequence=-1),
    "a huge timestamp_ns": letter(
        1,
        original_stream="E",
        original_sequence=1,
        original_timestamp_ns=10**40,
        consumer_name="c",
        failure_id=ids.failure_id("E", 1, 10**40, "c"),
    ),
    "deep nesting": DEEP,
    "deep nesting of arrays": b"[" * 100_000,
    "deep data": letter(1).replace(b"1.5", b"[" * 900 + b"]" * 900),
    "year 0": letter(1, dlq_timestamp="0000-01-01T00:00:00Z"),
    "year 9999": letter(1, first_attempt_at="9999-12-31T23:59:59Z", last_attempt_at="1066-01-01"),
    "a time zone past the end": letter(1, dlq_timestamp="9999-12-31T23:59:59-14:00"),
    "no time": letter(1, dlq_timestamp="soon", first_attempt_at=12),
    "long short texts": letter(1, event_id="x" * 300_000, error_type="é" * 100_000),
    "wide characters": letter(1, event_type="\U0001f33e" * 101),
    "long keys": letter(1, original_data={"k" * 300_000: 1}),
    "duplicate keys": b'{"event_id": "a", "event_id": {"b": 1}}',
    "a redrive of nothing": letter(1, redrive_of="x", redrive_id="y", redrive_attempt=-1),
    "a redrive of itself": letter(1, redrive_of=str(uuid.UUID(int=5)), redrive_id="z"),
    "metadata envelope": b'{"metadata": {}, "original_message": "text"}',
    "metadata of wrong types": b'{"metadata": {"retry_count": [], "failure_timestamp": 5,'
    b' "retry_timestamps": [1, null], "retry_errors": [2]}, "original_message": {"a": NaN}}',
    "metadata with a surrogate": b'{"metadata": {"failure_reason": "x"},'
    b' "original_message": "\\ud800"}',
    "terminal escapes": letter(1, error_message="\x1b]0;x\x07 \x7f \u202e"),
    "a percent sign": letter(1, error_message="%s %(x)s {} $1 \\N \\.", event_id="\\N"),
}


async def test_all_poison_payloads_become_one_row_each_among_the_good(
    settings: Settings, client: Client
) -> None:
    names = {}
    for number, (name, body) in enumerate(POISON.items()):
        (good,) = await publish(client, settings, [letter(number)])
        (bad,) = await publish(client, settings, [body])
        names |= {good: None, bad: name}
    report = await drain_log(small(settings))
    assert report.drained == 2 * len(POISON)
    rows = {row["dlq_sequence"]: row for row in failures(settings)}
    lake = {row["dlq_sequence"]: row for row in in_lake(settings).to_dicts()}
    assert sorted(rows) == sorted(lake) == sorted(names)
    for sequence, name in names.items():
        reason = rows[sequence]["parse_error"]
        assert reason == lake[sequence]["parse_error"] or reason.startswith("PostgreSQL refused")
        if name is None:
            assert rows[sequence]["parse_error"] is None
            assert rows[sequence]["data_type"] == "object"
    by_name = {name: rows[sequence] for sequence, name in names.items() if name}
    for name in ("no JSON", "no UTF-8", "an array", "null", "missing keys", "deep nesting"):
        assert by_name[name]["parse_error"], name
    for name in ("extra keys", "terminal escapes", "a percent sign"):
        assert by_name[name]["parse_error"] is None, name
    for name in ("NUL", "lone surrogates", "NaN", "thousands of digits", "long short texts"):
        assert by_name[name]["source_service"] == "satellite-service", name
    assert by_name["escaped backslash before u0000"]["original_data"] == {"a": "\\u0000"}
    assert by_name["NUL"]["error_message"] == "a\N{REPLACEMENT CHARACTER}b"
    assert by_name["extra keys"]["status"] == "pending"
    assert by_name["long short texts"]["event_id"] == "x" * 255
    assert "event_id" in by_name["long short texts"]["clamped"]
    assert (await drain_log(settings)).drained == 0


async def test_poison_on_the_subjects_of_case_events_becomes_rows(
    settings: Settings, client: Client
) -> None:
    poison = [body for name, body in POISON.items() if name != "a huge timestamp_ns"]
    wild = [*poison, *(b'{"failure_id": "%s", "at": 5}' % b for b in (b"x", b"\\ud800"))]
    for subject in ("redrive.published", "triage.resolved", "triage.no.such", "redrive.x"):
        await publish(client, settings, wild, subject)
    report = await drain_log(settings)
    assert report.drained == report.quarantined == 4 * len(wild)
    assert in_lake(settings, "case_events").height == 4 * len(wild)
    assert failures(settings) == []


async def test_headers_and_subjects_that_break_the_client_stop_nothing(
    settings: Settings, client: Client
) -> None:
    subject = f"{settings.subject_prefix}.dlq.odd".encode()
    harmless = [
        b"NATS/1.0\r\nStatus: 404\r\n\r\n",
        b"NATS/1.0\r\nStatus: 100\r\nDescription: Idle Heartbeat\r\n\r\n",
        b"NATS/1.0 503 No Responders\r\n\r\n",
        b"NATS/1.0 409 Message Size Exceeds MaxBytes\r\n\r\n",
        b"NATS/1.0\r\nno colon here\r\n\r\n",
        b"NATS/1.0\r\n\xff\xfe: \x80\r\n\r\n",
    ]
    # Each of these ends the client's read loop, or its connection.
    breaking = [b"NATS/1.0 \xff\xff\xff\r\n\r\n", b"NATS/1.0", b"XX", b"\r\n\r\n"]
    wild = [(subject, headers) for headers in [*harmless, *breaking]]
    wild += [(subject + b".\xff\xfe", None), (subject + b".\x0bx", None)]
    sent = 0
    for number, (where, headers) in enumerate(wild):
        sent += len(await publish(client, settings, [letter(2 * number)] * 3))
        publish_raw(settings, where, headers, letter(2 * number + 1))
    assert await last_sequence(client, settings) == sent + len(wild)
    started = asyncio.get_running_loop().time()
    report = await drain_log(small(settings, drain_batch_messages=10))
    assert asyncio.get_running_loop().time() - started < 30
    everything = list(range(1, sent + len(wild) + 1))
    assert in_lake(settings)["dlq_sequence"].to_list() == everything
    assert [row["dlq_sequence"] for row in failures(settings)] == everything
    assert all(row["event_id"].startswith("event-") for row in failures(settings))
    assert report.last_sequence == everything[-1]
    assert report.drained == len(everything)


async def test_hundreds_of_unreadable_messages_are_drained_without_a_wait_for_each(
    settings: Settings, client: Client
) -> None:
    subject = f"{settings.subject_prefix}.dlq.odd".encode()
    await publish(client, settings, map(letter, range(550)))
    usual = await drain_log(settings)
    await publish(client, settings, map(letter, range(150)))
    publish_raw(settings, subject, b"NATS/1.0", letter(1), count=250)
    await publish(client, settings, map(letter, range(150)))
    report = await drain_log(settings)
    assert report.drained == usual.drained == 550
    assert in_lake(settings)["dlq_sequence"].to_list() == list(range(1, 1101))
    assert report.seconds < 20 * usual.seconds + 5


async def test_a_message_as_large_as_the_server_takes_gets_through_both_ways(
    settings: Settings, client: Client
) -> None:
    room = (1 << 20) - 2_000
    big = letter(1, original_data={"text": "x" * room})[: (1 << 20) - 100] + b" "
    await publish(client, settings, [letter(0), big, big])
    subject = f"{settings.subject_prefix}.dlq.odd".encode()
    publish_raw(settings, subject, b"NATS/1.0", big)
    report = await drain_log(settings.model_copy(update={"drain_batch_bytes": 1}))
    assert report.drained == 4
    assert [row["dlq_sequence"] for row in failures(settings)] == [1, 2, 3, 4]


async def test_json_that_postgres_still_refuses_is_a_row_that_says_so(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sanitiser would remove every such input, so the test passes one around it."""
    stored = await publish(client, settings, map(letter, range(40)))
    build = build_batch

    def sabotaged(*messages: Any, **more: Any) -> Any:
        batch = build(*messages, **more)
        frame = batch.letter_frame
        texts = frame["original_data"].to_list()
        texts[3], texts[17], texts[18] = '{"a": "\\u0000"}', "{", '{"a": "\\ud800"}'
        frame = frame.with_columns(pl.Series("original_data", texts))
        return replace(batch, letter_frame=frame)

    monkeypatch.setattr("sahool_dlq.drain.run.build_batch", sabotaged)
    report = await drain_log(settings)
    assert report.drained == 40
    rows = failures(settings)
    assert [row["dlq_sequence"] for row in rows] == list(range(1, 41))
    refused = [row for row in rows if row["parse_error"]]
    assert [row["dlq_sequence"] for row in refused] == [4, 18, 19]
    for row in refused:
        assert row["parse_error"].startswith("PostgreSQL refused it: ")
        assert "refused" in row["original_data"]
        assert row["event_id"] == json.loads(stored[row["dlq_sequence"]])["event_id"]
    assert in_lake(settings).height == 40


# -- one sink lost or new


async def test_a_fresh_database_is_filled_from_the_log(
    settings: Settings, client: Client, postgres_server: Any
) -> None:
    stored = await publish(client, settings, map(letter, range(130)))
    await drain_log(small(settings))
    lake = in_lake(settings)
    execute(
        settings,
        "TRUNCATE failed_events, failed_payloads, drain_checkpoints, drain_epochs, drain_anchors,"
        " stream_gaps",
    )
    stored |= await publish(client, settings, map(letter, range(130, 170)))
    report = await drain_log(small(settings))
    assert report.drained == 170
    check_exact(settings, stored)
    assert in_lake(settings)[:130].equals(lake)


async def test_a_fresh_lake_is_filled_from_the_log(settings: Settings, client: Client) -> None:
    stored = await publish(client, settings, map(letter, range(130)))
    await publish(client, settings, [b"{}"], "triage.parked")
    await drain_log(small(settings))
    rows = failures(settings)
    fresh = small(settings, lake_uri=str(settings.home / "fresh"))
    stored |= await publish(client, settings, map(letter, range(130, 170)))
    report = await drain_log(fresh)
    assert report.drained == 171
    check_exact(fresh, stored)
    assert in_lake(fresh, "case_events")["dlq_sequence"].to_list() == [131]
    assert failures(settings)[:130] == rows


# -- errors in one sentence


async def sentence(settings: Settings, **more: str) -> str:
    """The error message of `dlq drain`."""
    status, output, errors = await run_drain(settings, **more)
    assert (status, output) == (1, "")
    assert "Traceback" not in errors
    last = told(errors)
    assert last.endswith(".")
    return last


async def test_missing_servers_are_said(settings: Settings, client: Client) -> None:
    dead = "127.0.0.1:9"
    for_nats, for_postgres = await asyncio.gather(
        sentence(settings, DLQ_NATS_URL=f"nats://someone:secret@{dead}"),
        sentence(settings, DLQ_POSTGRES_DSN=f"postgresql://someone:secret@{dead}/x"),
    )
    assert f"No NATS server answers at nats://{dead}" in for_nats
    assert f"PostgreSQL at {dead}/x does not answer" in for_postgres
    assert "secret" not in for_nats + for_postgres


async def test_a_missing_migration_is_reported(settings: Settings, client: Client) -> None:
    execute(settings, "DROP TABLE schema_migrations")
    with pytest.raises(SchemaError, match="run `dlq migrate`"):
        await drain_log(settings)
    assert "run `dlq migrate`" in await sentence(settings)


async def test_a_missing_stream_is_reported(settings: Settings) -> None:
    with pytest.raises(StreamError, match=f"There is no stream DLQ_.*{settings.subject_prefix}"):
        await drain_log(settings)
    assert "run `dlq migrate` to make it" in await sentence(settings)


@pytest.mark.parametrize("retention", [RetentionPolicy.WORK_QUEUE, RetentionPolicy.INTEREST])
async def test_a_stream_that_deletes_what_is_read_is_refused(
    settings: Settings, nats_url: str, retention: RetentionPolicy
) -> None:
    async with await nats.connect(nats_url) as client:
        await client.jetstream().add_stream(
            name=settings.dlq_stream, subjects=list(settings.subjects.log), retention=retention
        )
        with pytest.raises(StreamError, match=f"has {retention.value} retention"):
            await drain_log(settings)
        await client.jetstream().delete_stream(settings.dlq_stream)


async def test_a_lake_that_can_not_be_written_is_reported(
    settings: Settings, client: Client
) -> None:
    file = settings.home / "file"
    file.write_text("")
    assert "DLQ_LAKE_URI" in await sentence(settings, DLQ_LAKE_URI=str(file))


async def test_rights_that_lack_in_postgres_are_said(settings: Settings, client: Client) -> None:
    name = f"reader_{uuid.uuid4().hex[:8]}"
    execute(settings, f"CREATE ROLE {name} LOGIN")
    execute(settings, f"GRANT USAGE ON SCHEMA dlq TO {name}")
    execute(settings, f"GRANT SELECT ON ALL TABLES IN SCHEMA dlq TO {name}")
    try:
        dsn = psycopg.conninfo.make_conninfo(settings.postgres_dsn.get_secret_value(), user=name)
        assert "permission denied" in await sentence(settings, DLQ_POSTGRES_DSN=dsn)
    finally:
        execute(settings, f"DROP OWNED BY {name}")
        execute(settings, f"DROP ROLE {name}")
