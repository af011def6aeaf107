"""Avro with the schema of its writer: from a file, or by id from a schema registry.

A body is the bare value, or has one of the two usual headers: Confluent's (a zero byte and the
schema's id), or Avro's for single objects (C3 01 and the schema's fingerprint).
"""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from sahool_dlq.deadletter.decoding.compression import library
from sahool_dlq.deadletter.decoding.formats import Decoded
from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.deadletter.decoding.values import reversible

__all__ = ["AvroSchema", "SchemaSource", "decode_avro", "schema_id"]

_CONFLUENT = b"\x00"
_CONFLUENT_SIZE = 5
_SINGLE = b"\xc3\x01"
_SINGLE_SIZE = 10

SchemaSource = Callable[[int], "AvroSchema"]
"""The schema with an id of the registry; raises BodyError."""


class AvroSchema:
    """A schema that was checked: no small body of it takes endless memory, time or stack."""

    def __init__(self, schema: Any, named: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for JSON that is no schema, or one that is not safe to read.

        `named` are parsed schemas that this one refers to; its own are added.
        """
        fastavro = library("fastavro")
        self._named: dict[str, Any] = dict(named or {})
        try:
            self.parsed = fastavro.parse_schema(schema, named_schemas=self._named)
        except Exception as error:
            raise ValueError(f"it is no Avro schema: {error!r}") from error
        self._is_recursive = False
        self._check(self.parsed, ())

    @property
    def named(self) -> Mapping[str, Any]:
        """Its named schemas, parsed, and those that it refers to."""
        return self._named

    def fingerprint(self) -> bytes:
        """The fingerprint in the header of single objects."""
        schema = library("fastavro.schema")
        canonical = schema.to_parsing_canonical_form(self.parsed)
        return bytes.fromhex(schema.fingerprint(canonical, "CRC-64-AVRO"))[::-1]

    def read(self, data: bytes) -> Any:
        """The value in these bytes; raises what fastavro raises."""
        file = BytesIO(data)
        # For such schemas fastavro's compiled reader may end the process instead of raising.
        reader = library("fastavro._read_py" if self._is_recursive else "fastavro")
        value = reader.schemaless_reader(file, self.parsed, None)
        if rest := len(file.read()):
            raise BodyError(f"{rest:,} bytes follow its value: it has another schema")
        return value

    def write(self, value: Any) -> bytes:
        """The bytes of a value; raises BodyError if it does not fit."""
        file = BytesIO()
        try:  # not strict: a merge patch removes a key where it sets null
            library("fastavro").schemaless_writer(file, self.parsed, value)
        except Exception as error:
            raise BodyError(f"it does not fit the Avro schema: {error}") from error
        if (name := _lost(value, self.read(file.getvalue()))) is not None:
            raise BodyError(f"it does not fit the Avro schema, which has no field {name!r}")
        return file.getvalue()

    def _check(self, schema: Any, inside: tuple[str, ...]) -> int:
        """The fewest bytes of a value; sets `_is_recursive`."""
        if isinstance(schema, list):
            for each in schema:
                self._check(each, inside)
            return 1
        if isinstance(schema, str):
            if schema in inside:
                self._is_recursive = True
                return 1  # an endless record has no value
            if schema in self._named:
                return self._check(self._named[schema], inside)
            return 0 if schema == "null" else 1
        kind = schema["type"]
        if kind in ("record", "error"):
            within = (*inside, schema["name"])
            return sum(self._check(field["type"], within) for field in schema["fields"])
        if kind == "array":
            if self._check(schema["items"], inside) == 0:
                raise ValueError("its arrays have items of no bytes, so a few bytes could be any")
            return 1
        if kind == "map":
            self._check(schema["values"], inside)
            return 1
        if kind == "fixed":
            return int(schema["size"])
        return 1 if kind == "enum" else self._check(kind, inside)


def schema_id(data: bytes) -> int | None:
    """The schema's id in Confluent's header; None if there is no such header."""
    if len(data) < _CONFLUENT_SIZE or not data.startswith(_CONFLUENT):
        return None
    return int.from_bytes(data[1:_CONFLUENT_SIZE])


def decode_avro(data: bytes, schema: AvroSchema | None, registry: SchemaSource | None) -> Decoded:
    """A body in Avro; the schema in its header, if it has one, else `schema`."""
    if schema is None:
        number = schema_id(data)
        if number is None:
            raise BodyError("no rule has its schema, and it does not begin with the id of one")
        if registry is None:
            raise BodyError(f"DLQ_SCHEMA_REGISTRY_URL is not set, so schema {number} is unknown")
        schema, head = registry(number), data[:_CONFLUENT_SIZE]
    elif data.startswith(_SINGLE) and data[2:_SINGLE_SIZE] == schema.fingerprint():
        head = data[:_SINGLE_SIZE]
    else:
        head = b""
    writer, value = schema, schema.read(data[len(head) :])

    def encoded(edited: Any) -> bytes:
        if head + writer.write(value) != data:  # e.g. the branch of a union is not known any more
            raise BodyError("its Avro cannot be written again without loss")
        return head + writer.write(edited)

    return reversible(value, encoded)


def _lost(value: Any, written: Any) -> str | None:
    """The first key of a value that was not written; None if all were."""
    if isinstance(value, Mapping) and isinstance(written, Mapping):
        for name, each in value.items():
            if name not in written:
                return str(name)
            if (lost := _lost(each, written[name])) is not None:
                return lost
    if isinstance(value, list) and isinstance(written, list):
        lost_names = (_lost(*pair) for pair in zip(value, written, strict=False))
        return next((name for name in lost_names if name is not None), None)
    return None
