"""Bodies in other formats than JSON, from a failing service to its cure, on real servers."""

import base64
import gzip
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
import zstandard
from nats.aio.client import Client
from pydantic import SecretStr

from sahool_dlq.embedded import NatsServer
from sahool_dlq.erasure.erase import preview
from sahool_dlq.errors import SettingsError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import preview_redrive, redrive
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.settings import Settings
from support.encoded import MESSAGE, SCHEMA, avro, descriptor_set, protobuf
from support.erasing import World
from support.platform_log import in_lake, query
from support.redriving import Service, dead_letters, quick
from support.registry_server import registry_server
from support.running import dlq

PATCH = {"note": "mended"}


@dataclass
class Sent:
    """An event in one format."""

    subject: str  # its last token
    body: bytes
    headers: dict[str, str]


def events(tenant: str) -> dict[str, Sent]:
    """An event of the tenant in every format that needs no registry, by its id."""

    def value(event_id: str, **more: Any) -> dict[str, Any]:
        secret = {"note": "private", "password": "hunter2"}
        return {"event_id": event_id, "tenant_id": tenant, **secret, **more}

    def cloud(event_id: str) -> bytes:
        data = msgspec.msgpack.encode(value(event_id))
        return json.dumps(
            {
                "specversion": "1.0",
                "id": event_id,
                "datacontenttype": "application/msgpack",
                "data_base64": base64.b64encode(data).decode(),
            }
        ).encode()

    packed = msgspec.msgpack.encode
    at = {"price": Decimal("1.10"), "at": datetime(2026, 3, 1, tzinfo=UTC)}
    msgpack, cbor = {"Content-Type": "application/msgpack"}, {"Content-Type": "application/cbor"}
    structured = {"Content-Type": "application/cloudevents+json"}
    binary = {"ce-id": "binary", "ce-specversion": "1.0", "ce-datacontenttype": "application/cbor"}
    return {
        "msgpack": Sent("ndvi", packed(value("msgpack", raw=b"\x00")), msgpack),
        "cbor": Sent("ndvi", cbor2.dumps(value("cbor", raw=b"\x00")), cbor),
        "gzip+msgpack": Sent("ndvi", gzip.compress(packed(value("gzip+msgpack"))), msgpack),
        "zstd+cbor": Sent("ndvi", zstandard.compress(cbor2.dumps(value("zstd+cbor"))), cbor),
        "zstd": Sent("ndvi", zstandard.compress(json.dumps(value("zstd")).encode()), {}),
        "cloudevent+msgpack": Sent("ndvi", cloud("cloudevent+msgpack"), structured),
        "binary": Sent("ndvi", cbor2.dumps(value("binary")), binary),
        "avro": Sent("avro", avro(value("avro", raw=b"\x00", **at)), {}),
        "protobuf": Sent("proto", protobuf(value("protobuf", count="7")), {}),
    }


@pytest.fixture
def ruled(settings: Settings, tmp_path: Path) -> Settings:
    """The platform with rules that describe avro and protobuf."""
    (tmp_path / "reading.avsc").write_text(json.dumps(SCHEMA))
    (tmp_path / "reading.binpb").write_bytes(descriptor_set())
    rules = tmp_path / "rules.toml"
    rules.write_text(f"""
[[decoding]]
subject = "{settings.subject_prefix}.analysis.avro"
format = "avro"
schema = "reading.avsc"

[[decoding]]
subject = "{settings.subject_prefix}.analysis.proto"
format = "protobuf"
descriptors = "reading.binpb"
message = "{MESSAGE}"
""")
    return settings.model_copy(update={"rules_file": rules})


async def fail_on(settings: Settings, client: Client, sent: dict[str, Sent]) -> None:
    js = client.jetstream(timeout=60)
    for each in sent.values():
        subject = f"{settings.subject_prefix}.analysis.{each.subject}"
        await js.publish(subject, each.body, headers=each.headers or None)
    await dead_letters(client, settings, len(sent))


async def test_every_format_is_found_masked_and_redriven_with_its_bytes(
    ruled: Settings, client: Client
) -> None:
    sent = events("acme")
    async with Service(ruled, ValueError("boom")).running() as service:
        await fail_on(ruled, client, sent)
        await drain_log(ruled)
        rows = {row["event_id"]: row for row in query(ruled, "SELECT * FROM failed_events")}
        assert set(rows) == set(sent)
        assert {row["tenant_id"] for row in rows.values()} == {"acme"}
        assert {row["body_error"] or row["parse_error"] for row in rows.values()} == {None}
        formats = {name: row["body_format"] for name, row in rows.items()}
        assert formats == {name: name for name in sent} | {"binary": "cbor"}
        assert {row["payload_encoding"] for row in rows.values()} == {"json"}
        lake = in_lake(ruled)
        assert dict(lake.select("event_id", "body_format").iter_rows()) == formats
        assert "hunter2" not in "".join(lake["original_data"])
        assert "hunter2" not in str(rows)
        service.error = None
        service.seen.clear()
        where = "data.note = 'private' OR data.data.note = 'private'"
        report = await redrive(
            quick(ruled),
            Selection(where=where),
            trigger="manual",
            requested_by="ann",
            reason="mended",
        )
    assert report is not None
    assert report.outcomes == {"succeeded": len(sent)}
    assert {context.data for context in service.seen} == {each.body for each in sent.values()}


async def test_an_edit_is_encoded_in_the_format_of_the_event(
    ruled: Settings, client: Client
) -> None:
    sent = events("acme")
    del sent["cloudevent+msgpack"]
    async with Service(ruled, ValueError("boom")).running() as service:
        await fail_on(ruled, client, sent)
        await drain_log(ruled)
        shown = await preview_redrive(ruled, Selection(service="ndvi"), patch=PATCH)
        assert shown.edits is not None
        assert (shown.edits.refused, shown.edits.unread) == ({}, 0)
        assert shown.edits.changes == [("note", '"private"', '"mended"', len(sent))]
        service.error = None
        service.seen.clear()
        report = await redrive(
            quick(ruled),
            Selection(service="ndvi"),
            trigger="manual",
            requested_by="ann",
            reason="mended",
            patch=PATCH,
        )
    assert report is not None
    assert report.outcomes == {"succeeded": len(sent)}
    decoders = ruled.decoders(ruled.rules)
    after = {}
    for context in service.seen:
        opened = decoders.opened(context.data, context.subject, context.headers)
        value = json.loads(opened.json)
        each = sent[value["event_id"]]
        after[value["event_id"]] = value
        before = decoders.opened(each.body, context.subject, each.headers)
        assert opened.format == before.format
        assert value == json.loads(before.json) | PATCH
    assert set(after) == set(sent)


async def test_all_of_a_tenant_is_erased_in_every_format(
    ruled: Settings, client: Client, nats_server: NatsServer
) -> None:
    world = World(ruled, client)
    sent = events(world.tenant)
    async with Service(world.settings, ValueError("boom")).running():
        await fail_on(world.settings, client, sent)
    found = await preview(world.settings, world.tenant)  # before any drain decoded them
    assert found.stream_dead_letters == len(sent)
    assert found.unread_dead_letters == 0
    await drain_log(world.settings)
    report = await world.erase()
    assert report.stream_dead_letters == report.lake_dead_letters == len(sent)
    assert query(ruled, "SELECT id FROM failed_events") == []
    assert {place for place in world.places(nats_server) if "EVENTS" not in place} == set()


async def test_a_large_body_of_a_tenant_is_found_by_its_content_type(
    ruled: Settings, client: Client
) -> None:
    world = World(ruled, client)
    value = {"event_id": "large", "tenant_id": world.tenant, "x": "y" * 1_000_000}
    sent = {"large": Sent("ndvi", cbor2.dumps(value), {"Content-Type": "application/cbor"})}
    async with Service(world.settings, ValueError("boom")).running():
        await fail_on(world.settings, client, sent)
    await drain_log(world.settings)
    report = await world.erase()
    assert (report.object_bodies, report.unread_dead_letters) == (1, 0)


async def test_a_registry_gives_the_schema_and_stops_no_drain_when_it_is_down(
    settings: Settings, client: Client
) -> None:
    at = {"raw": b"", "price": Decimal("1.10"), "at": datetime(2026, 3, 1, tzinfo=UTC)}
    value = {"event_id": "e1", "tenant_id": "acme", "note": "private", "password": None} | at
    body = b"\x00\x00\x00\x00\x07" + avro(value)
    sent = {"e1": Sent("ndvi", body, {"Content-Type": "application/vnd.confluent.avro"})}
    with registry_server() as registry:
        registry.answers["/schemas/ids/7"] = {"schema": json.dumps(SCHEMA)}
        known = settings.model_copy(update={"schema_registry_url": SecretStr(registry.url)})
        async with Service(known, ValueError("boom")).running() as service:
            await fail_on(known, client, sent)
            await drain_log(known)
            [row] = query(known, "SELECT tenant_id, body_format FROM failed_events")
            assert (row["tenant_id"], row["body_format"]) == ("acme", "avro")
            service.error = None
            service.seen.clear()
            report = await redrive(
                quick(known),
                Selection(where="data.note = 'private'"),
                trigger="manual",
                requested_by="ann",
                reason="mended",
                patch=PATCH,
            )
        assert report is not None
        assert report.outcomes == {"succeeded": 1}
        assert service.seen[0].data == b"\x00\x00\x00\x00\x07" + avro(value | PATCH)
    async with Service(known, ValueError("boom")).running():
        await client.jetstream().publish(
            f"{settings.subject_prefix}.analysis.ndvi", body, headers=sent["e1"].headers
        )
        await dead_letters(client, settings, 4)
    report_of_drain = await drain_log(known)
    assert report_of_drain.quarantined == 0
    [row] = query(known, "SELECT * FROM failed_events WHERE body_error IS NOT NULL")
    assert row["payload_encoding"] == "base64"
    assert row["body_error"].startswith("its avro cannot be read: the schema registry cannot be")


async def test_get_shows_a_body_as_json(ruled: Settings, client: Client) -> None:
    async with Service(ruled, ValueError("boom")).running():
        await fail_on(ruled, client, {"protobuf": events("acme")["protobuf"]})
    await drain_log(ruled)
    [row] = query(ruled, "SELECT id::text FROM failed_events")
    rules = {"DLQ_RULES_FILE": str(ruled.rules_file)}
    done = await dlq(ruled, "get", row["id"], "--decoded", **rules)
    assert json.loads(done.stdout) == {
        "event_id": "protobuf",
        "tenant_id": "acme",
        "note": "private",
        "password": "hunter2",
        "count": "7",
    }
    done = await dlq(ruled, "get", row["id"], "--decoded", "--json", **rules)
    assert json.loads(done.stdout)["body_format"] == "protobuf"
    done = await dlq(ruled, "get", row["id"])
    assert "body_format      protobuf" in done.stdout
    done = await dlq(ruled, "get", row["id"], "--decoded")
    assert done.exit_code == 1
    assert "cannot be decoded: it is not JSON" in done.stderr


def test_rules_with_a_missing_file_stop_the_drain_with_a_reason(
    settings: Settings, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[decoding]]\nsubject = ">"\nformat = "avro"\nschema = "none.avsc"\n')
    known = settings.model_copy(update={"rules_file": rules})
    with pytest.raises(SettingsError, match=r"none\.avsc: No such file or directory"):
        known.decoders(known.rules)
