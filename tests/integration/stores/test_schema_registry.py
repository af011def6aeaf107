"""Avro with schemas of a registry, a real HTTP server here: found, refused, unreachable."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sahool_dlq.deadletter.decoding.opened import BodyError
from sahool_dlq.stores import schema_registry
from sahool_dlq.stores.schema_registry import SchemaRegistry
from support.encoded import SCHEMA, avro
from support.registry_server import Registry, registry_server

PLACE = {
    "type": "record",
    "name": "Place",
    "namespace": "acme",
    "fields": [{"name": "crop", "type": "string"}],
}
FIELD = {
    "type": "record",
    "name": "Field",
    "namespace": "acme",
    "fields": [{"name": "place", "type": "acme.Place"}],
}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with registry_server() as it:
        yield it


def test_a_schema_is_asked_for_once(registry: Registry) -> None:
    registry.answers["/schemas/ids/7"] = {"schema": json.dumps(SCHEMA)}
    known = SchemaRegistry(f"{registry.url}/")
    assert known.schema(7).parsed == known.schema(7).parsed
    assert registry.asked == ["/schemas/ids/7"]


def test_schemas_that_refer_to_others(registry: Registry) -> None:
    reference = {"name": "acme.Place", "subject": "acme/Place", "version": 3}
    registry.answers |= {
        "/schemas/ids/1": {"schema": json.dumps(FIELD), "references": [reference]},
        "/subjects/acme%2FPlace/versions/3": {"schema": json.dumps(PLACE)},
    }
    value = {"place": {"crop": "wheat"}}
    body = avro(value, FIELD | {"fields": [{"name": "place", "type": PLACE}]})
    assert SchemaRegistry(registry.url).schema(1).read(body) == value


def test_a_schema_that_refers_to_itself_ends(registry: Registry) -> None:
    reference = {"name": "x", "subject": "x", "version": 1}
    answer = {"schema": json.dumps(PLACE), "references": [reference]}
    registry.answers |= {"/schemas/ids/1": answer, "/subjects/x/versions/1": answer}
    with pytest.raises(BodyError, match="refers to more than 50 other schemas"):
        SchemaRegistry(registry.url).schema(1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "schema 5 of the schema registry: it does not exist"),
        ({"schema": "{}", "schemaType": "JSON"}, "it is of type JSON, not AVRO"),
        ({"schema": "{"}, "schema 5 of the schema registry: "),
        ({"schema": '{"type": "array", "items": "null"}'}, "items of no bytes"),
        ([1], "the answer has no schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_remembered(
    registry: Registry, answer: Any, reason: str
) -> None:
    registry.answers["/schemas/ids/5"] = answer
    known = SchemaRegistry(registry.url)
    for _ in range(2):
        with pytest.raises(BodyError, match=reason):
            known.schema(5)
    assert registry.asked == ["/schemas/ids/5"]


def test_ids_that_do_not_exist_are_not_asked_for_without_end(registry: Registry) -> None:
    known = SchemaRegistry(registry.url)
    for number in range(110):
        with pytest.raises(BodyError):
            known.schema(number)
    assert len(registry.asked) == 100


def test_a_registry_that_fails_is_asked_again_later(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = schema_registry.monotonic()
    monkeypatch.setattr(schema_registry, "monotonic", lambda: now)
    registry.answers["/schemas/ids/7"] = 503
    known = SchemaRegistry(registry.url)
    for _ in range(3):
        with pytest.raises(BodyError, match="cannot be used: it answered 503"):
            known.schema(7)
    assert len(registry.asked) == 1
    registry.answers["/schemas/ids/7"] = {"schema": json.dumps(SCHEMA)}
    now += 31
    assert known.schema(7).parsed


def test_a_registry_that_is_down_says_so_without_its_password() -> None:
    with registry_server() as gone:
        url = gone.url.replace("http://", "http://ann:hunter2@")
    known = SchemaRegistry(url)
    with pytest.raises(BodyError, match="the schema registry cannot be used") as caught:
        known.schema(7)
    assert "hunter2" not in str(caught.value)
