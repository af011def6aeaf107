"""Headers of every kind on real servers: event, dead letter, both sinks, redrive."""

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner
from nats.aio.client import Client
from test_consumer_redrives import redrive_headers

from sahool_dlq.cli import _command
from sahool_dlq.events import NATSConfig, NATSPublisher
from sahool_dlq.jobs.decisions import preview_decision
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support import ROOT
from support.consumer_log import RETRY, SUCCESS, Calls, Log, running
from support.platform_log import environment, failures, in_lake, letter, publish, publish_raw
from support.raw_headers import lines_of
from support.redriving import Service, dead_letters, quick, redrive_timeouts, seen

LONG = "m" * 4096
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SENT = (
    "X-Tag: red",
    "Traceparent: " + TRACE,
    "X-Tag: green",
    "x-tag: blue",
    "X-Note: fine",
    "X-Note: password=hunter2",
    "X/Odd(name): Äcker",
    "nats-rollup: all",
    "nats-msg-id: m1",
    "DLQ-redrive-FOR: nobody/at-all",
)
COMES_BACK = [
    "X-Tag: red",
    "X-Tag: green",
    "Traceparent: " + TRACE,
    "x-tag: blue",
    "X-Note: fine",
    "X-Note: password=hunter2",
    "X/Odd(name): Äcker",
]


def block(*lines: str) -> bytes:
    return "\r\n".join(["NATS/1.0", *lines, "\r\n"]).encode()


def event(settings: Settings, *lines: str) -> None:
    """Publish an event with these header lines, which no client library would send."""
    subject = f"{settings.subject_prefix}.analysis.ndvi".encode()
    publish_raw(settings, subject, block(*lines), b'{"n": 1}')


def in_both_sinks(settings: Settings) -> dict[str, Any]:
    """The headers of the only failure, the same in both."""
    [row] = failures(settings)
    [text] = in_lake(settings)["original_headers"]
    assert json.loads(text) == row["original_headers"]
    return json.loads(text)


def of_redrive(lines: list[str]) -> list[str]:
    """Those of these lines that a redrive adds itself."""
    return [line for line in lines if line.lower().startswith(("dlq-", "nats-"))]


async def test_repeated_headers_come_back_from_a_failure_in_order(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        event(settings, *SENT)
        await dead_letters(client, settings, 1)
        [context] = service.seen
        assert (context.headers["X-Tag"], context.headers["x-tag"]) == ("green", "blue")
        assert context.header_values("x-TAG") == ["red", "green", "blue"]
        assert context.redrive_of is None
        stored = await client.jetstream().get_msg(settings.dlq_stream, 1)
        letter = json.loads(stored.data or b"")
        assert stored.headers == {
            "traceparent": TRACE,
            "Nats-Msg-Id": f"{letter['failure_id']}-{letter['first_attempt_at']}",
        }
        await drain_log(settings)
        service.error = None
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert report.outcomes == {"succeeded": 1}
    assert in_both_sinks(settings) == {
        "X-Tag": ["red", "green"],
        "Traceparent": TRACE,
        "x-tag": "blue",
        "X-Note": ["fine", "password=[redacted:secret]"],
        "X/Odd(name)": "Äcker",
        "nats-rollup": "all",
        "nats-msg-id": "m1",
        "DLQ-redrive-FOR": "nobody/at-all",
    }
    [row] = failures(settings)
    assert (row["event_id"], row["parse_error"]) == ("m1", None)
    assert in_lake(settings)["traceparent"].to_list() == [TRACE]
    lines = await lines_of(client, settings.events_stream, 2)
    assert [line for line in lines if line not in of_redrive(lines)] == COMES_BACK
    assert [line.partition(":")[0] for line in of_redrive(lines)] == [
        "Nats-Msg-Id", "Dlq-Redrive-Of", "Dlq-Redrive-Id", "Dlq-Redrive-Attempt",
        "Dlq-Redrive-Token", "Dlq-Redrive-For",
    ]  # fmt: skip
    assert service.seen[1].header_values("X-Tag") == ["red", "green", "blue"]
    assert (await verify_stores(settings)).findings == ()
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    shown = await asyncio.to_thread(CliRunner().invoke, _command(), ["show", str(row["id"])])
    assert '"X-Tag": ["red", "green"]' in shown.stdout


async def test_conditions_look_at_every_value_of_a_header(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running():
        event(settings, *SENT)
        await dead_letters(client, settings, 1)
    await drain_log(settings)
    for condition, count in {
        "headers.X-Tag = 'red'": 1,
        "headers.x-tag = 'green'": 1,
        "HEADERS.X-TAG IN ('none', 'blue')": 1,
        "headers.X-Tag LIKE 'gre%' AND headers.x-note ILIKE 'FINE'": 1,
        "headers.X-Tag <> 'red'": 0,
        "headers.X-Tag NOT LIKE 'r%'": 0,
        "headers.X-Tag <> 'yellow'": 1,
        "headers.x-tag IS NOT NULL AND headers.other IS NULL": 1,
        "headers.other = 'red' OR headers.other <> 'red' OR NOT headers.other = 'red'": 0,
    }.items():
        found, _ = await asyncio.to_thread(
            preview_decision, settings, Selection(where=condition), "parked"
        )
        assert len(found) == count, condition


async def test_headers_as_other_languages_write_them_are_kept_and_published(
    settings: Settings, client: Client
) -> None:
    where = f"{settings.subject_prefix}.analysis.ndvi"
    file = ROOT / "tests" / "foreign" / "go-dead-letter.json"
    letter = json.loads(file.read_bytes())
    letter["original_subject"] = where
    letter["original_headers"] |= {
        "X-Retries": 3, "X-Rate": 0.5, "X-Big": 10**30, "X-Dry": False, "X-Mixed": [1, "b", True],
        "X-None": None, "X-Empty": [], "Nats-Msg-Id": ["m1", "m2"], "NATS-TTL": [1],
    }  # fmt: skip
    no_headers = letter | {"event_id": "e3", "original_headers": None}  # a nil map of Go's
    await publish(client, settings, [json.dumps(each).encode() for each in (letter, no_headers)])
    await drain_log(settings)
    kept = [row["original_headers"] for row in failures(settings)]
    assert kept == [json.loads(text) for text in in_lake(settings)["original_headers"]]
    assert kept == [
        {
            "Content-Type": "application/json",
            "X-Tag": ["red", "green"],
            "X-Retries": "3",
            "X-Rate": "0.5",
            "X-Big": "1" + "0" * 30,
            "X-Dry": "false",
            "X-Mixed": ["1", "b", "true"],
            "X-None": [],
            "X-Empty": [],
            "Nats-Msg-Id": ["m1", "m2"],
            "NATS-TTL": "1",
        },
        {},
    ]
    service = Service(settings)
    async with service.running():
        await redrive_timeouts(quick(settings, redrive_timeout_seconds=2, redrive_own_copies=True))
        await seen(service, 2)
    published = [await lines_of(client, settings.events_stream, seq) for seq in (1, 2)]
    ours = [[line for line in lines if line not in of_redrive(lines)] for lines in published]
    assert sorted(ours, key=len) == [
        [],
        [
            "Content-Type: application/json", "X-Tag: red", "X-Tag: green", "X-Retries: 3",
            "X-Rate: 0.5", "X-Big: 1" + "0" * 30, "X-Dry: false",
            "X-Mixed: 1", "X-Mixed: b", "X-Mixed: true",
        ],
    ]  # fmt: skip
    for lines in published:
        assert len(of_redrive(lines)) == 5  # its own ids and marks, without an addressed consumer


async def test_ids_and_marks_of_four_kilobytes_lose_no_event(
    settings: Settings, client: Client
) -> None:
    async with Service(settings, TimeoutError("slow tile")).running() as service:
        subject = f"{settings.subject_prefix}.analysis.ndvi"
        for number in range(3):
            ident = {"Nats-Msg-Id": f"{LONG}{number}"}
            await client.jetstream().publish(subject, b"{}", headers=ident)
        marks = ("Of", "Id", "Attempt", "For")
        event(settings, *(f"Dlq-Redrive-{mark}: {LONG}" for mark in marks), "Nats-Msg-Id: " + LONG)
        await dead_letters(client, settings, 4)
        assert len(service.seen) == 4
        await drain_log(settings)
        rows = failures(settings)
        assert {row["status"] for row in rows} == {"pending"}
        lake = in_lake(settings)
        assert lake["event_id"].to_list() == [f"{LONG}{n}" for n in range(3)] + [LONG]
        assert [row["event_id"] for row in rows] == [LONG[:255]] * 4
        assert (await verify_stores(settings)).findings == ()
        service.error = None
        report = await redrive_timeouts(quick(settings))
    assert report is not None
    assert report.outcomes == {"succeeded": 4}


async def test_a_header_that_can_not_be_sent_is_refused_with_its_name(
    settings: Settings, client: Client
) -> None:
    where = f"{settings.subject_prefix}.analysis.ndvi"
    smuggling = {"X-Tag": ["red"], "a: b\r\nNats-Rollup": "all"}
    changes = {"error_type": "TimeoutError", "original_subject": where}
    await publish(client, settings, [letter(1, original_headers=smuggling, **changes)])
    await drain_log(settings)
    report = await redrive_timeouts(quick(settings, redrive_own_copies=True))
    assert report is not None
    assert report.outcomes == {"refused": 1}
    await drain_log(settings)
    [row] = failures(settings)
    assert row["status"] == "parked"
    assert "a header of its event cannot be sent" in row["resolution_notes"]
    assert "Nats-Rollup" in row["resolution_notes"]
    assert (await client.jetstream().stream_info(settings.events_stream)).state.messages == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"Dlq-Redrive-Id": None, "Dlq-Redrive-Of": None, "Dlq-Redrive-Attempt": None},
        {"Dlq-Redrive-Attempt": "2"},
        {"Dlq-Redrive-Of": "Äcker"},
        {"Nats-Msg-Id": "of-an-event-of-its-own"},  # a service that copies the headers of its event
    ],
)
async def test_an_event_that_is_no_redrive_is_handled_whatever_its_marks_say(
    log: Log, changes: dict[str, str | None]
) -> None:
    marks = redrive_headers(log, "other") | changes
    forged = {name: value for name, value in marks.items() if value is not None}
    news = await log.client.subscribe(f"{log.prefix}.redrive.>")
    calls = Calls(SUCCESS, RETRY)
    async with running(log.config(), calls):
        await log.publish({"n": 1}, headers=forged)
        await log.settled()
        again = forged | ({"Nats-Msg-Id": "another"} if "Nats-Msg-Id" in forged else {})
        await log.publish({"n": 2}, headers=again)
        [letter] = await log.letters(1)
    assert [json.loads(call.data)["n"] for call in calls] == [1, 2]
    assert [call.redrive_of for call in calls] == [None, None]
    assert letter["original_headers"] == again
    assert news.pending_msgs == 0  # a success without a redrive is not reported


async def test_marks_count_whatever_their_case(log: Log) -> None:
    other = {name.lower(): value for name, value in redrive_headers(log, "other").items()}
    own = {name.upper(): value for name, value in redrive_headers(log, "ndvi").items()}
    news = await log.client.subscribe(f"{log.prefix}.redrive.succeeded")
    calls = Calls(SUCCESS, RETRY)
    async with running(log.config(), calls) as consumer:
        await log.publish({}, headers=other)
        await log.publish({}, headers=own)
        told = json.loads((await news.next_msg(timeout=30)).data)
        await log.publish({}, headers=own)
        _, letter = await log.letters(2)  # behind the news
        await log.settled()
        assert consumer._subscriptions[0].counters.skipped == 1
    assert told["redrive_id"] == letter["redrive_id"] == own["DLQ-REDRIVE-ID"]
    assert calls[0].redrive_of == letter["redrive_of"] == own["DLQ-REDRIVE-OF"]
    assert letter["redrive_attempt"] == 1


async def test_a_publisher_sends_a_header_once_for_each_of_its_values(log: Log) -> None:
    publisher = NATSPublisher(NATSConfig(servers=[log.url], subject_prefix=log.prefix))
    assert await publisher.connect()
    headers = {"X-Tag": ["red", "green"], "X/Odd(name)": "Äcker", "plain": "x"}
    assert await publisher.publish(f"{log.prefix}.analysis.ndvi", b"{}", headers)
    assert not await publisher.publish(f"{log.prefix}.analysis.ndvi", b"{}", {"a:b": "x"})
    await publisher.close()
    assert await lines_of(log.client, log.names.events, 1) == [
        "X-Tag: red", "X-Tag: green", "X/Odd(name): Äcker", "plain: x",
    ]  # fmt: skip


async def test_too_many_values_are_cut_with_the_rest_of_a_dead_letter(log: Log) -> None:
    lines = [f"X-Tag: {number:0500d}" for number in range(100)]
    settings = Settings(nats_url=log.url)
    info = await log.js.stream_info(log.names.dead_letters)
    info.config.max_msg_size = 20_000
    await log.js.update_stream(info.config)
    async with running(log.config(), Calls(RETRY)):
        publish_raw(settings, f"{log.prefix}.analysis.ndvi".encode(), block(*lines), b"{}")
        [letter] = await log.letters(1)
    assert letter["original_headers"]["X-Tag"] == [f"{number:0500d}"[:100] for number in range(50)]
