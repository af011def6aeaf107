"""Every body that a handler can read as JSON is found, edited, redriven exactly, and erased."""

import base64
import gzip
import json
import uuid
from typing import Any

import polars as pl
import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter.body import LARGEST_INFLATED
from sahool_dlq.deadletter.envelope.tolerant import Reading
from sahool_dlq.embedded import NatsServer
from sahool_dlq.erasure.erase import preview
from sahool_dlq.events import ConsumerContext
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import preview_redrive, redrive
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect
from support.erasing import World
from support.platform_log import in_lake, query
from support.redriving import Service, dead_letters, quick

UNREADABLE = [
    b"\x0a\x04acme\x12\x03\xff\xfe\x01",  # Protobuf
    gzip.compress(b" " * (LARGEST_INFLATED + 1)),
    gzip.compress(b'{"tenant_id": "acme"}')[:-3],
    b'{"tenant_id": "acme"',
]


def bodies(tenant: str) -> dict[str, bytes]:
    """An event of the tenant in every form, by its id."""
    deep = "[" * 600 + "]" * 600

    def text(event_id: str, more: str = "") -> str:
        return f'{{"event_id":"{event_id}","tenant_id":"{tenant}","note":"private"{more}}}'

    return {
        "nan": text("nan", ',"ndvi":NaN,"most":-Infinity').encode(),
        "bom": text("bom").encode("utf-8-sig"),
        "utf-16": text("utf-16", ',"crop":"قمح"').encode("utf-16"),
        "utf-16-be": text("utf-16-be").encode("utf-16-be"),
        "utf-32": text("utf-32").encode("utf-32"),
        "surrogate": text("surrogate", r',"cut":"\ud83d"').encode(),
        "deep": text("deep", f',"deep":{deep}').encode(),
        "gzip": gzip.compress(text("gzip", ',"n":1.10').encode()),
        "gzip-16": gzip.compress(text("gzip-16").encode("utf-16")),
        "large": text("large", f',"x":"{"y" * 500_000}"').encode("utf-16"),
        "cloud": json.dumps(
            {"specversion": "1.0", "id": "cloud", "tenant_id": tenant, "note": "private"}
        ).encode("utf-16"),
    }


def as_handlers_read(data: bytes) -> Any:
    return json.loads(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data)


class Mended(Service):
    """A service that handles the corrected events."""

    def is_cured(self, context: ConsumerContext) -> bool:
        return "mended" in as_handlers_read(context.data)


@pytest.fixture
def sent(settings: Settings) -> dict[str, bytes]:
    return bodies(f"acme-{settings.subject_prefix}")


async def fail_on(settings: Settings, client: Client, service: Service, sent: list[bytes]) -> None:
    js, before = client.jetstream(timeout=60), len(service.seen)
    for body in sent:
        compressed = {"Content-Encoding": "gzip"} if body.startswith(b"\x1f\x8b") else {}
        await js.publish(f"{settings.subject_prefix}.analysis.ndvi", body, headers=compressed)
    await dead_letters(client, settings, before + len(sent))


async def redriven(settings: Settings, where: str, **changes: Any) -> RedriveReport:
    report = await redrive(
        quick(settings),
        Selection(where=where),
        trigger="manual",
        requested_by="ann",
        reason="mended",
        **changes,
    )
    assert report is not None
    return report


async def test_what_a_handler_can_read_is_found_and_redriven_with_its_bytes(
    settings: Settings, client: Client, sent: dict[str, bytes]
) -> None:
    async with Service(settings, ValueError("boom")).running() as service:
        await fail_on(settings, client, service, list(sent.values()))
        await drain_log(settings)
        rows = query(settings, "SELECT * FROM failed_events ORDER BY dlq_sequence")
        assert {row["event_id"] for row in rows} == set(sent)
        assert {row["tenant_id"] for row in rows} == {f"acme-{settings.subject_prefix}"}
        assert {row["parse_error"] for row in rows} == {None}
        kept = {row["event_id"]: row["original_data"] for row in rows}
        assert kept["nan"]["ndvi"] == "NaN"
        assert kept["utf-16"]["crop"] == "قمح"
        clamped = {row["event_id"] for row in rows if row["clamped"] == "original_data"}
        assert clamped == {"nan", "surrogate", "deep"}
        lake = in_lake(settings)
        assert {*lake["event_id"]} == set(sent)
        readable = lake.filter(pl.col("payload_encoding") == "json")["original_data"]
        assert all(json.loads(text)["note"] == "private" for text in readable)
        service.error = None
        service.seen.clear()
        report = await redriven(settings, "data.note = 'private' OR event_id = 'large'")
    assert report.outcomes == {"succeeded": len(sent)}
    assert {context.data for context in service.seen} == set(sent.values())


async def test_an_edit_changes_what_it_names_and_the_handler_reads_it(
    settings: Settings, client: Client, sent: dict[str, bytes]
) -> None:
    patch = {"mended": "نعم", "note": None}
    async with Mended(settings, ValueError("boom")).running() as service:
        await fail_on(settings, client, service, list(sent.values()))
        await drain_log(settings)
        service.seen.clear()
        shown = await preview_redrive(settings, Selection(service="ndvi"), patch=patch)
        assert shown.edits is not None
        assert (shown.edits.events, shown.edits.refused) == (len(sent), {})
        mended = [change for change in shown.edits.changes if change.path == "mended"]
        assert [(change.after, change.events) for change in mended] == [('"نعم"', len(sent))]
        report = await redriven(settings, "service = 'ndvi'", patch=patch)
    assert report.outcomes == {"succeeded": len(sent)}
    assert len(service.seen) == len(sent)
    for context in service.seen:
        after = as_handlers_read(context.data)
        event_id = after.get("event_id") or after["id"]
        before = as_handlers_read(sent[event_id])
        before.pop("note")
        assert str(after) == str(before | {"mended": "نعم"})  # NaN is not equal to itself
        assert (context.data[:2] == sent[event_id][:2]) or context.data[:1] == b"{"
        compressed = sent[event_id].startswith(b"\x1f\x8b")
        assert context.headers.get("Content-Encoding") == ("gzip" if compressed else None)


async def test_of_a_key_that_comes_twice_all_see_the_value_that_the_handler_sees(
    settings: Settings, client: Client
) -> None:
    body = b'{"event_id": "e", "note": "first", "at": {"n": 1, "n": 2.50}, "note": "last"}'
    async with Service(settings, ValueError("boom")).running() as service:
        await fail_on(settings, client, service, [body])
        await drain_log(settings)
        (row,) = query(settings, "SELECT original_data, clamped, parse_error FROM failed_events")
        assert row["original_data"] == json.loads(body)
        assert row["clamped"] == "original_data"
        assert row["parse_error"] == "original_data holds a key twice"
        columns = "original_data ->> 'note' AS note, original_data ->> '$.at.n' AS n"
        with connect(Lake(settings.lake)) as lake:
            found = lake.execute(f"SELECT {columns} FROM dead_letters").fetchall()
        assert found == [("last", "2.5")]
        first = await preview_redrive(settings, Selection(where="data.note = 'first'"))
        assert first.plan.count == 0
        last = Selection(where="data.note = 'last'")
        edits = (await preview_redrive(settings, last, patch={"note": "new"})).edits
        assert edits is not None
        assert [change.before for change in edits.changes] == ['"last"']
        service.error = None
        service.seen.clear()
        report = await redriven(settings, "data.note = 'last'")
    assert report.outcomes == {"succeeded": 1}
    assert [context.data for context in service.seen] == [body]


async def test_all_of_a_tenant_is_erased_and_what_nobody_can_read_is_counted(
    settings: Settings, client: Client, nats_server: NatsServer
) -> None:
    world = World(settings, client)
    sent = bodies(world.tenant)
    large = [gzip.compress(uuid.uuid4().bytes * 3 + bytes(5))[:-9], b"\xff" + b"x" * 1_000_000]
    unreadable = [*UNREADABLE, *large]
    async with Service(world.settings, ValueError("boom")).running() as service:
        await fail_on(settings, client, service, [*sent.values(), *unreadable])
        await drain_log(world.settings)
    await world.publish(b"no JSON at all")
    await drain_log(world.settings)
    await world.publish(b'{"tenant_id": "another"}')
    assert (await preview(world.settings, "another")).stream_dead_letters == 1
    found = await preview(world.settings, world.tenant)
    report = await world.erase()
    for told in (found, report):
        assert told.stream_dead_letters == told.lake_dead_letters == len(sent)
        assert (told.payloads, told.object_bodies) == (len(sent), 1)
        assert told.unread_dead_letters == len(unreadable) + 1
    assert world.held() == {"postgres": set(), "lake": set()}
    left = query(
        settings, "SELECT payload_encoding AS e, count(*) AS n FROM failed_events GROUP BY e"
    )
    assert {row["e"]: row["n"] for row in left} == {"base64": 5, "object": 1, "text": 1}
    assert {place for place in world.places(nats_server) if "EVENTS" not in place} == set()
    blocks = [*nats_server.data.rglob(f"*{settings.dlq_stream}/**/*.blk")]
    stored = b"".join(file.read_bytes() for file in blocks)
    assert base64.b64encode(UNREADABLE[0]) in stored
    assert not any(base64.b64encode(body[:300]) in stored for body in sent.values())
    again = await preview(world.settings, world.tenant)
    assert again.is_empty
    assert again.unread_dead_letters == len(unreadable) + 1


async def test_an_erasure_finds_what_an_older_version_did_not_read(
    settings: Settings, client: Client, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dead letters name no tenant; one is in the stream, one only in PostgreSQL, one is an
    object.
    """
    world = World(settings, client)
    sent = bodies(world.tenant)
    with monkeypatch.context() as older:
        older.setattr("sahool_dlq.events.subscription.parse_body", lambda _: (False, None))
        older.setattr(Reading, "_read_body", lambda *_: None)
        async with Service(world.settings, ValueError("boom")).running() as service:
            names = ("utf-16", "gzip", "large")
            await fail_on(settings, client, service, [sent[name] for name in names])
        await drain_log(world.settings)
    rows = query(
        settings, "SELECT tenant_id, payload_encoding FROM failed_events ORDER BY dlq_sequence"
    )
    assert [(row["tenant_id"], row["payload_encoding"]) for row in rows] == [
        (None, "base64"),
        (None, "base64"),
        (None, "object"),
    ]
    assert await client.jetstream().delete_msg(settings.dlq_stream, 2)  # as if it had aged out
    report = await world.erase()
    assert (report.stream_dead_letters, report.object_bodies) == (2, 1)
    assert (report.payloads, report.failures) == (3, {"pending": 3})
    assert report.unread_dead_letters == 0
    assert query(settings, "SELECT id FROM failed_events") == []
    assert in_lake(settings).is_empty()
    info = await client.jetstream().stream_info(settings.dlq_stream)
    assert info.state.messages == 0
