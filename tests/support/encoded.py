"""Bodies in other formats than JSON, and what describes them."""

import base64
from io import BytesIO
from typing import Any

import fastavro
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.decoding.rules import DecodingRule
from support.letters import ours

MESSAGE = "acme.sensors.Reading"
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "namespace": "acme.sensors",
    "fields": [
        {"name": "event_id", "type": "string"},
        {"name": "tenant_id", "type": "string"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "password", "type": ["null", "string"], "default": None},
        {"name": "raw", "type": "bytes", "default": ""},
        {
            "name": "price",
            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
        },
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def around(body: bytes, content_type: str = "", **changes: Any) -> dict[str, Any]:
    """A dead letter of our consumer about such a body; nobody read it."""
    data = {"base64": base64.b64encode(body).decode()}
    headers = {"Content-Type": content_type} if content_type else {}
    nothing = {"event_id": "unknown", "tenant_id": None, "field_id": None}
    given = nothing | {"original_headers": headers} | changes
    return ours(payload_encoding="base64", original_data=data, **given)


def avro(value: dict[str, Any], schema: Any = SCHEMA) -> bytes:
    """A value in Avro, without a header."""
    file = BytesIO()
    fastavro.schemaless_writer(file, fastavro.parse_schema(schema), value)
    return file.getvalue()


def descriptor_set(*, with_imports: bool = True) -> bytes:
    """The descriptor set of MESSAGE, as protoc writes it."""
    kinds = descriptor_pb2.FieldDescriptorProto
    imported = descriptor_pb2.FileDescriptorProto(
        name="place.proto", package="acme.sensors", syntax="proto3"
    )
    place = imported.message_type.add(name="Place")
    place.field.add(name="crop", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    file = descriptor_pb2.FileDescriptorProto(
        name="reading.proto", package="acme.sensors", syntax="proto3", dependency=["place.proto"]
    )
    reading = file.message_type.add(name="Reading")
    scalars = {
        "event_id": kinds.TYPE_STRING,
        "tenant_id": kinds.TYPE_STRING,
        "note": kinds.TYPE_STRING,
        "password": kinds.TYPE_STRING,
        "raw": kinds.TYPE_BYTES,
        "count": kinds.TYPE_INT64,
        "share": kinds.TYPE_DOUBLE,
    }
    for number, (name, kind) in enumerate(scalars.items(), 1):
        reading.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    reading.field.add(
        name="place",
        number=20,
        type=kinds.TYPE_MESSAGE,
        type_name=".acme.sensors.Place",
        label=kinds.LABEL_OPTIONAL,
    )
    reading.field.add(
        name="parts",
        number=21,
        type=kinds.TYPE_MESSAGE,
        type_name=".acme.sensors.Reading",
        label=kinds.LABEL_REPEATED,
    )
    files = [imported, file] if with_imports else [file]
    return descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()


def protobuf(value: dict[str, Any]) -> bytes:
    """A message of the kind MESSAGE."""
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set()).file:
        pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(MESSAGE))
    return bytes(json_format.ParseDict(value, kind()).SerializeToString())


def decoders(files: dict[str, bytes] | None = None, **rule: Any) -> Decoders:
    """Decoders with one rule for every subject, and these files."""
    return Decoders([DecodingRule(subject=">", **rule)], (files or {}).__getitem__)
