"""Failures of consumers without our library are in the log like those of our own.

All tests here share one NATS server, which other tests do not use: advisories belong to the server,
not to a stream.
"""

import asyncio
import base64
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from nats.js.api import RetentionPolicy, StreamConfig

from flows.drain_dlq import drain_dlq
from sahool_dlq.bridge.advisory import dead_letter_of, read_advisory
from sahool_dlq.bridge.run import Bridge, bridge_pending
from sahool_dlq.deadletter import ids
from sahool_dlq.errors import StreamError
from sahool_dlq.events.outbox import publish_dead_letter
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.case_history import case_history
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lookup import find_failure
from sahool_dlq.jobs.redrive import preview_redrive, redrive
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support import servers
from support.foreign_consumers import Platform, opened
from support.platform_log import (
    DLQ,
    ROOT,
    environment,
    failures,
    in_lake,
    publish,
    publish_raw,
    query,
)
from support.raw_headers import lines_of

FOREIGN = ROOT / "tests/foreign"
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (FOREIGN / "node_modules/nats").is_dir(),
    reason="needs Node and its NATS client: npm ci --prefix tests/foreign",
)


pytestmark = pytest.mark.xdist_group("bridge")  # they share a NATS of their own


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server."""
    with servers.nats(tmp_path_factory.mktemp("bridge")) as server:
        yield server.url


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with opened(settings) as platform:
        yield platform


async def test_a_terminated_and_an_exhausted_event_are_dead_letters_with_their_cause(
    platform: Platform,
) -> None:
    settings = platform.settings
    good, bad = {"event_id": "e1", "tenant_id": "t"}, b'{"event_id": "e2",  "x": 1.50}'
    await platform.publish(good, bad, b"\xff no JSON")
    await platform.fail("billing-v2", {1: b"+ACK", 2: b"+TERM yield must be positive"})
    named = settings.model_copy(update={"bridge_services": {"billing-*": "billing"}})
    assert await bridge_pending(named) == ({"bridged": 2}, [])

    terminated, exhausted = await platform.letters()
    assert (terminated["error_type"], terminated["error_message"], terminated["dlq_reason"]) == (
        "MessageTerminated",
        "yield must be positive",
        "terminated",
    )
    assert exhausted["error_type"] == "MaxDeliveriesExceeded"
    assert (exhausted["dlq_reason"], exhausted["retry_count"]) == ("max_deliveries", 1)
    assert terminated["event_id"] == "e2"
    assert {letter["consumer_service"] for letter in (terminated, exhausted)} == {"billing"}
    assert terminated["original_headers"] == {"Trace": "t1"}

    await drain_log(settings)
    rows = sorted(failures(settings), key=lambda row: row["original_sequence"])
    assert [row["error_type"] for row in rows] == ["MessageTerminated", "MaxDeliveriesExceeded"]
    assert [row["original_subject"] for row in rows] == [
        f"{settings.subject_prefix}.analysis.ndvi"
    ] * 2
    stream = settings.events_stream
    event = await platform.js.get_msg(stream, 2)
    assert event.data == bad
    origin = (stream, 2, terminated["original_timestamp_ns"], "billing-v2")
    assert str(rows[0]["id"]) == ids.failure_id(*origin)  # proved: it did not get one by position
    assert await bridge_pending(named) == ({}, [])
    assert len(await platform.letters()) == 2


async def test_a_reason_in_json_says_type_message_trace_and_service(platform: Platform) -> None:
    await platform.publish({})
    cause = {
        "error_type": "TimeoutError",
        "error_message": "no tile",
        "stack_trace": "at tile.js:3",
        "service": "tiles",
        "retry": True,
    }
    await platform.fail("c", {1: b"+TERM " + json.dumps(cause).encode()})
    await bridge_pending(platform.settings)
    [letter] = await platform.letters()
    assert {key: letter[key] for key in ("error_type", "error_message", "stack_trace")} == {
        key: cause[key] for key in ("error_type", "error_message", "stack_trace")
    }
    assert letter["consumer_service"] == "tiles"


async def test_repeated_headers_come_back_from_a_foreign_consumers_failure(
    platform: Platform,
) -> None:
    settings = platform.settings
    lines = ["X-Tag: red", "error-message: first", "X-Tag: green", "ERROR-MESSAGE: no tile"]
    where = f"{settings.subject_prefix}.analysis.ndvi".encode()
    marks = ["NATS-msg-id: m1", "nats-TTL: 9s", "dlq-redrive-OF: x"]
    publish_raw(settings, where, "\r\n".join(["NATS/1.0", *marks, *lines, "\r\n"]).encode(), b"{}")
    await platform.fail("c", {})
    await bridge_pending(settings)
    [letter] = await platform.letters()
    headers = {
        "NATS-msg-id": "m1",
        "nats-TTL": "9s",
        "dlq-redrive-OF": "x",
        "X-Tag": ["red", "green"],
        "error-message": "first",
        "ERROR-MESSAGE": "no tile",
    }
    assert (letter["original_headers"], letter["event_id"]) == (headers, "m1")
    assert letter["error_message"] == "no tile"
    stored = await lines_of(platform.client, settings.dlq_stream, 1)
    assert stored == [f"Nats-Msg-Id: {letter['failure_id']}-{letter['first_attempt_at']}"]
    await drain_log(settings)
    [row] = failures(settings)
    assert row["original_headers"] == headers
    assert [json.loads(text) for text in in_lake(settings)["original_headers"]] == [headers]
    selection = Selection(where="headers.x-tag = 'red'")
    patient = settings.model_copy(update={"redrive_timeout_seconds": 1})
    await redrive(patient, selection, trigger="manual", requested_by="me", reason="cured")
    published = await lines_of(platform.client, settings.events_stream, 2)
    ours = [line for line in published if not line.startswith(("Nats-Msg-Id: ", "Dlq-Redrive-"))]
    assert ours == ["X-Tag: red", "X-Tag: green", "error-message: first", "ERROR-MESSAGE: no tile"]


async def test_what_its_consumer_can_read_is_read(platform: Platform) -> None:
    text = json.dumps({"event_id": "e1", "tenant_id": "t", "ndvi": float("nan")})
    forms = [text.encode(), text.encode("utf-16"), gzip.compress(text.encode("utf-8-sig"))]
    await platform.publish(*forms)
    reason = b'+TERM {"error_type": "Odd", "ndvi": NaN}'
    await platform.fail("c", dict.fromkeys((1, 2, 3), reason))
    await bridge_pending(platform.settings)
    letters = await platform.letters()
    assert [(each["event_id"], each["tenant_id"], each["error_type"]) for each in letters] == [
        ("e1", "t", "Odd")
    ] * 3
    sent = [base64.b64decode(each["original_data"]["base64"]) for each in letters]
    assert sorted(sent) == sorted(forms)


async def test_headers_of_an_event_say_how_it_failed_and_a_reason_says_it_better(
    platform: Platform,
) -> None:
    where = f"{platform.settings.subject_prefix}.analysis.ndvi"
    headers = {"X-Failure": "no tile", "error-type": "TileMissing", "Error-Service": "tiles"}
    for _ in range(3):
        await platform.js.publish(where, b"{}", headers=headers)
    await platform.fail("c", {1: b"+TERM", 2: b"+TERM tile 7 is empty"})
    names = {"error_message": "X-Failure", "error_type": "Error-Type", "service": "Error-Service"}
    await bridge_pending(platform.settings.model_copy(update={"bridge_headers": names}))
    letters = await platform.letters()
    assert [letter["error_message"] for letter in letters] == [
        "no tile",
        "tile 7 is empty",
        "no tile",
    ]
    for letter in letters:
        assert (letter["error_type"], letter["consumer_service"]) == ("TileMissing", "tiles")


async def test_an_event_that_is_gone_is_a_dead_letter_that_says_so(platform: Platform) -> None:
    await platform.js.add_stream(
        StreamConfig(name="WORK", subjects=["work.>"], retention=RetentionPolicy.WORK_QUEUE)
    )
    await platform.js.publish("work.a", b"{}")
    await platform.fail("c", {1: b"+TERM broken"}, stream="WORK")
    assert await bridge_pending(platform.settings) == ({"gone": 1}, [])
    await platform.js.delete_stream("WORK")
    [letter] = await platform.letters()
    assert letter["error_message"] == "broken The event itself is lost: WORK no longer has it."
    assert (letter["original_data"], letter["original_subject"]) == (None, "unknown")
    await drain_log(platform.settings)
    [row] = failures(platform.settings)
    assert str(row["id"]) == letter["failure_id"]


async def test_an_event_of_a_stream_created_again_is_not_taken_for_the_one_that_failed(
    platform: Platform,
) -> None:
    orders = StreamConfig(name="ORDERS", subjects=["orders.>"])
    await platform.js.add_stream(orders)
    await platform.js.publish("orders.a", b'"broken"')
    await platform.fail("c", {1: b"+TERM broken"}, stream="ORDERS")
    await platform.js.delete_stream("ORDERS")
    await platform.js.add_stream(orders)
    await platform.js.publish("orders.a", b'"healthy"')
    assert await bridge_pending(platform.settings) == ({"gone": 1}, [])
    await platform.js.delete_stream("ORDERS")
    [letter] = await platform.letters()
    assert (letter["original_data"], letter["original_subject"]) == (None, "unknown")


async def test_a_log_that_can_not_be_written_ends_a_catching_up_in_one_sentence(
    platform: Platform,
) -> None:
    settings = platform.settings
    await platform.publish({"n": 1})
    await platform.fail("c", {1: b"+TERM broken"})
    bridge = Bridge(settings, ack_wait_seconds=0.5)
    await bridge.open()
    await platform.js.delete_stream(settings.dlq_stream)
    bridge.start_in_background()
    with pytest.raises(StreamError, match=r"No failure could be recorded for \d+ s \(1 wait\)"):
        await bridge.catch_up()
    await bridge.close()
    await ensure_streams(platform.js, settings.stream_names)
    assert await bridge_pending(settings) == ({"bridged": 1}, [])


async def test_the_flow_drains_what_is_in_the_log_though_nothing_can_be_brought_in(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = platform.settings
    await publish(platform.client, settings, [b"{}"])
    await platform.js.delete_stream(settings.advisory_stream)
    half = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"
    await platform.js.add_stream(name="OTHERS", subjects=[half])
    flow: Any = drain_dlq.fn.__wrapped__
    of_the_flow = flow.__globals__
    for needs_prefect in ("is_overtaken", "table"):
        monkeypatch.setitem(of_the_flow, needs_prefect, _nothing)
    monkeypatch.setitem(of_the_flow, "progress", lambda _: nullcontext())
    monkeypatch.setitem(of_the_flow, "stage", lambda _name, work, *_told, **_: work())
    monkeypatch.setitem(of_the_flow, "happened", lambda *_: None)
    monkeypatch.setitem(of_the_flow, "load_settings", lambda: settings)
    with pytest.raises(StreamError, match="The stream of advisories cannot be used"):
        await flow()
    assert len(failures(settings)) == 1


async def test_a_bridge_that_dies_between_dead_letter_and_acknowledgement_adds_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = platform.settings
    info = await platform.js.stream_info(settings.dlq_stream)
    info.config.duplicate_window = (
        0.1  # the server forgets it: only the failure's id prevents a duplicate
    )
    await platform.js.update_stream(info.config)
    await platform.publish(*({"n": n} for n in range(20)))
    await platform.fail("c", dict.fromkeys(range(1, 21), b"+TERM no"))
    with monkeypatch.context() as patched:
        patched.setattr("sahool_dlq.events.intake.Intake._acknowledge", lambda *_: None)
        patched.setattr("sahool_dlq.events.intake.Intake._give_back", _nothing)
        dying = Bridge(settings, ack_wait_seconds=1)
        await dying.open()
        dying.start_in_background()
        while dying.counts["bridged"] < 20:
            await asyncio.sleep(0.05)
        await dying.close()
    again = Bridge(settings, ack_wait_seconds=1)
    await again.open()
    again.start_in_background()
    await again.catch_up()
    await again.close()
    assert again.counts == {"bridged": 20}
    assert len(await platform.letters()) == 40
    await drain_log(settings)
    rows = failures(settings)
    assert len(rows) == 20
    assert {row["seen_count"] for row in rows} == {2}


async def test_one_that_dies_then_finds_its_own_dead_letters_and_adds_none(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = platform.settings
    await platform.publish({"n": 1}, {"large": "x" * 1_048_000})
    await platform.fail("c", {1: b"+TERM no"})
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr("sahool_dlq.events.intake.Intake._acknowledge", lambda *_: None)
            patched.setattr("sahool_dlq.events.intake.Intake._give_back", _nothing)
            dying = Bridge(settings, ack_wait_seconds=1)
            await dying.open()
            dying.start_in_background()
            while dying.counts["bridged"] < 2:
                await asyncio.sleep(0.05)
            await dying.close()
    assert await bridge_pending(settings) == ({"bridged": 2}, [])
    assert len(await platform.letters()) == 2


async def test_a_forged_use_of_a_failures_id_before_the_bridge_replaces_nothing_and_is_detected(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    settings = platform.settings
    await platform.publish({"n": 1}, {"n": 2})
    await platform.fail("c", {1: b"+TERM the real failure", 2: b"+TERM another"})
    fields, body = await _dead_letter(platform, 1)
    forged = {**fields, "error_message": "all is well", "original_subject": "evil.subject"}
    await publish_dead_letter(
        platform.client, settings.subjects.dead_letter("ndvi"), forged, b'{"forged": 1}', True
    )
    assert await bridge_pending(settings) == ({"bridged": 2, "ids_taken": 1}, [])
    assert "already had another dead letter" in caplog.text
    first, second, _ = await platform.letters()
    assert {first["error_message"], second["error_message"]} == {"all is well", "the real failure"}

    await drain_log(settings)
    rows = failures(settings)
    assert [row["seen_count"] for row in rows] == [2, 1]
    both = Selection(failure_ids=tuple(str(row["id"]) for row in rows))
    assert (await preview_redrive(settings, both)).repeated == 1
    assert str(rows[0]["id"]) == fields["failure_id"]
    shown = subprocess.run(  # noqa: ASYNC221  (the loop has nothing else to do)
        [*DLQ, "show", fields["failure_id"]],
        env=environment(settings, COLUMNS="200"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "1 other dead letter says something different" in shown
    assert "all is well" in shown
    assert "the real failure" in shown
    assert body == b'{"n": 1}'
    assert find_failure(settings, str(rows[1]["id"]))["also_said"] == []


async def _dead_letter(platform: Platform, sequence: int) -> tuple[dict[str, Any], bytes]:
    """A dead letter that anybody could write who reads the advisories and events."""
    settings = platform.settings
    name = settings.advisory_stream
    for at in range(1, (await platform.js.stream_info(name)).state.last_seq + 1):
        advisory = read_advisory((await platform.js.get_msg(name, at)).data or b"")
        if advisory.stream_seq == sequence:
            event = await stored_message(platform.client, advisory.stream, sequence)
            return dead_letter_of(advisory, event, advisory.consumer)[:2]
    raise AssertionError(sequence)


async def test_killed_at_random_it_brings_in_every_advisory_once(platform: Platform) -> None:
    settings = platform.settings
    count = 200
    await platform.publish(*({"n": n} for n in range(count)))
    await platform.fail("c", dict.fromkeys(range(1, count + 1), b"+TERM no"))
    code = (
        "import asyncio\n"
        "from sahool_dlq.bridge.run import Bridge\n"
        "from sahool_dlq.settings import load_settings\n"
        "async def main():\n"
        "    tell = lambda *_: print('.', flush=True)\n"
        "    bridge = Bridge(load_settings(), tell, ack_wait_seconds=1)\n"
        "    await bridge.open()\n"
        "    await bridge.start()\n"
        "asyncio.run(main())\n"
    )
    advisories = {"DLQ_ADVISORY_STREAM": settings.advisory_stream}
    for kill_after in (1, 90):
        process = subprocess.Popen(  # noqa: ASYNC220  (starting it takes no time)
            [sys.executable, "-c", code],
            env=environment(settings, **advisories),
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(kill_after):
            assert await asyncio.to_thread(process.stdout.readline) == ".\n"
        process.kill()
        process.communicate()
    last = Bridge(settings, ack_wait_seconds=1)
    await last.open()
    last.start_in_background()
    await last.catch_up()
    await last.close()
    sequences = [letter["original_sequence"] for letter in await platform.letters()]
    assert sorted(sequences) == list(range(1, count + 1))


async def test_the_readers_of_the_log_itself_and_what_is_no_advisory_are_left_out(
    platform: Platform,
) -> None:
    settings = platform.settings
    await publish(platform.client, settings, [b"{}"])
    await platform.fail("somebodys-monitor", {1: b"+TERM no"}, stream=settings.dlq_stream)
    forged = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.X.y"
    for body in (b"\xff", b"[]", b'{"type": "io.nats.jetstream.advisory.v1.terminated"}'):
        await platform.client.publish(forged, body)
    await platform.client.flush()
    assert await bridge_pending(settings) == ({"skipped": 4}, [])
    assert len(await platform.letters()) == 1


async def test_dlq_migrate_makes_the_stream_and_dlq_bridge_once_tells(platform: Platform) -> None:
    settings = platform.settings
    await platform.js.delete_stream(settings.advisory_stream)
    more = {"DLQ_ADVISORY_STREAM": settings.advisory_stream}

    async def dlq(*arguments: str) -> Any:
        done = await asyncio.to_thread(
            subprocess.run,
            [*DLQ, *arguments, "--json"],
            env=environment(settings, **more),
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    assert (await dlq("migrate"))["streams"]["advisories"] == settings.advisory_stream
    await platform.publish({})
    await platform.fail("c", {1: b"+TERM no"})
    counts = {
        "bridged": 1,
        "gone": 0,
        "skipped": 0,
        "found": 0,
        "repeated": 0,
        "moved": 0,
        "removed": 0,
        "acknowledged": 0,
        "ids_taken": 0,
        "untold": [],
    }
    assert await dlq("bridge", "--once") == counts


async def test_a_redrive_is_followed_to_an_inferred_success_or_to_the_next_failure(
    platform: Platform,
) -> None:
    settings = platform.settings
    await platform.publish({"n": 1}, {"n": 2})
    await platform.fail("c", {1: b"+TERM no", 2: b"+TERM not at all"})
    await bridge_pending(settings)
    await drain_log(settings)
    selection = Selection(error_types=("MessageTerminated",))
    planned = await preview_redrive(settings, selection)
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    assert planned.also_reached == {}
    await platform.js.pull_subscribe(subject, "d", stream=settings.events_stream)
    planned = await preview_redrive(settings, selection)
    assert planned.also_reached == {subject: [f"{settings.events_stream}/d"]}

    async def work() -> None:
        """Acknowledge the first event now; refuse the second again."""
        sub = await platform.js.pull_subscribe("", "c", stream=settings.events_stream)
        for _ in range(2):
            [msg] = await sub.fetch(1, timeout=60)
            answer = b"+ACK" if json.loads(msg.data)["n"] == 1 else b"+TERM not at all"
            await platform.client.publish(msg.reply, answer)

    working = asyncio.create_task(work())
    report = await redrive(
        settings, selection, trigger="manual", requested_by="me", reason="priced"
    )
    await working
    assert report is not None
    assert report.outcomes == {"succeeded": 1, "failed_again": 1}
    live = [row for row in failures(settings) if row["status"] != "superseded"]
    rows = {row["error_message"]: row for row in live}
    assert rows["no"]["status"] == "resolved"
    assert [rows["not at all"][key] for key in ("status", "redrive_count")] == ["pending", 1]
    [history] = [
        reason
        for _, kind, _, reason in case_history(settings, str(rows["no"]["id"]))
        if kind == "redrive.succeeded"
    ]
    assert history.startswith("inferred: ")


@needs_node
async def test_failures_of_a_javascript_service_are_grouped_with_their_reason(
    platform: Platform,
) -> None:
    settings = platform.settings
    events = [{"verdict": "ok"}, {"verdict": "nak"}]
    events += [{"verdict": "term", "reason": f"no price for crop {n}"} for n in (1, 2, 3)]
    await platform.publish(*events)
    url = settings.nats_url.get_secret_value()
    settled = await node("worker.mjs", url, settings.events_stream, "js", "2", "6")
    assert settled == {"settled": 6}
    assert await bridge_pending(settings) == ({"bridged": 4}, [])
    await drain_log(settings)
    groups = query(
        settings,
        "SELECT error_type, count(*) AS count, min(consumer_service) AS service"
        " FROM failed_events GROUP BY group_id, 1 ORDER BY 2",
    )
    assert groups == [
        {"error_type": "MaxDeliveriesExceeded", "count": 1, "service": "js"},
        {"error_type": "MessageTerminated", "count": 3, "service": "js"},
    ]


@needs_node
async def test_a_javascript_service_writes_dead_letters_of_its_own(platform: Platform) -> None:
    settings = platform.settings
    await platform.publish({"crop": "wheat"})
    url = settings.nats_url.get_secret_value()
    arguments = (url, settings.subject_prefix, settings.events_stream)
    await node("failing.mjs", *arguments)
    await drain_log(settings)
    [row] = failures(settings)
    assert (row["error_type"], row["consumer_service"]) == ("TypeError", "pricing-service")
    assert "failing.mjs" in row["stack_trace"]
    assert row["original_data"] == {"crop": "wheat"}
    assert row["parse_error"] is None


async def node(script: str, *arguments: str) -> Any:
    """The output of a script of tests/foreign."""
    done = await asyncio.to_thread(
        subprocess.run,
        ["node", script, *arguments],
        cwd=FOREIGN,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


async def _nothing(*_: object) -> None: ...
