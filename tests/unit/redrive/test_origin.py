"""From a dead letter back to its event."""

import base64
import hashlib
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sahool_dlq.redrive.origin import (
    Event,
    ExpiredError,
    RefusedError,
    original_event,
)
from support.letters import METADATA, OLD, message, ours, second

SUBJECT = OLD["original_subject"]


class ObjectStores:
    """The part of a client that a pointer needs: entries, and a byte in each chunk."""

    def __init__(self, bodies: dict[tuple[str, str], bytes] | None = None) -> None:
        self._bodies = bodies or {}

    async def request(self, subject: str, data: bytes, **_: float) -> SimpleNamespace:
        bucket, asked = subject.rpartition("OBJ_")[2], json.loads(data)
        kind, token = asked["next_by_subj"].split(".")[-2:]
        body = self._bodies.get((bucket, base64.urlsafe_b64decode(token).decode()))
        parts = [bytes([each]) for each in body or b""]
        if kind == "M" and body is not None:
            parts = [json.dumps({"nuid": token, "size": len(body)}).encode()]
        number = asked["seq"]
        if number > len(parts):
            return SimpleNamespace(data=b'{"error": {"code": 404, "err_code": 10037}}')
        part = base64.b64encode(parts[number - 1]).decode()
        time = "2026-03-01T00:00:00Z"
        stored = {"subject": asked["next_by_subj"], "seq": number, "time": time, "data": part}
        return SimpleNamespace(data=json.dumps({"message": stored}).encode())


async def event_of(body: bytes | dict[str, Any], stores: ObjectStores | None = None) -> Event:
    return await original_event(cast("Any", stores or ObjectStores()), message(body))


async def test_an_older_services_json_is_given_back() -> None:
    event = await event_of(OLD)
    assert event.subject == SUBJECT
    assert event.body == json.dumps(OLD["original_data"]).encode()


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
@pytest.mark.parametrize(
    "data",
    [
        '{"ndvi" : NaN, "most": -Infinity}',
        r'["\ud800", 1.10]',
        '{"a":' + "[" * 5_000 + "]" * 5_000 + "}",
        "12345678901234567890123",
    ],
)
async def test_json_that_only_some_readers_take_is_given_back_as_it_was(
    data: str, charset: str
) -> None:
    letter = json.dumps(OLD).replace(json.dumps(OLD["original_data"]), data)
    event = await event_of(letter.encode(charset))
    assert (event.subject, event.body) == (SUBJECT, data.encode())


async def test_the_second_envelopes_text_is_given_back_exactly() -> None:
    event = await event_of(second(' {"a" : 1.10}\n'))
    assert event == Event("sahool.field.created", b' {"a" : 1.10}\n', {})
    odd = second(' {"a" : NaN}\n', retry_errors=[float("nan")])
    assert (await event_of(odd)).body == b' {"a" : NaN}\n'


async def test_base64_is_given_back_as_bytes() -> None:
    data = {"base64": base64.b64encode(b"\x00\xff").decode()}
    assert (await event_of(ours(payload_encoding="base64", original_data=data))).body == b"\x00\xff"


POINTER = {"bucket": "b", "name": "n", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}


def pointing(pointer: Any) -> dict[str, Any]:
    return ours(payload_encoding="object", original_data={"object": pointer})


async def test_a_pointer_is_followed() -> None:
    assert (await event_of(pointing(POINTER), ObjectStores({("b", "n"): b"abc"}))).body == b"abc"


@pytest.mark.parametrize("bodies", [{}, {("b", "other"): b"abc"}])
async def test_a_body_that_the_object_store_lost_is_expired(
    bodies: dict[tuple[str, str], bytes],
) -> None:
    with pytest.raises(ExpiredError, match="no longer has its body"):
        await event_of(pointing(POINTER), ObjectStores(bodies))


async def test_another_body_than_the_one_that_failed_is_refused() -> None:
    with pytest.raises(RefusedError, match="another body"):
        await event_of(pointing(POINTER), ObjectStores({("b", "n"): b"abd"}))


@pytest.mark.parametrize(
    "pointer",
    [
        *(None, 1, [], {}, "x", {"bucket": 1}, {"bucket": "b"}, {"bucket": "b", "name": 1}),
        {"bucket": 1, "name": "n"},
        {"bucket": "b 5\r\nPUB a 1", "name": "n"},
    ],
)
async def test_a_pointer_that_is_none_is_refused(pointer: Any) -> None:
    with pytest.raises(RefusedError, match="pointer"):
        await event_of(pointing(pointer), ObjectStores({("b", "n"): b"abc"}))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not a dead letter"),
        (b"\xff", "not a dead letter"),
        (b"[]", "not a dead letter"),
        (b"[" * 100_000, "not a dead letter"),
        (b'{"original_subject": "a.b"}', "not a dead letter"),
        (second({"not": "a string"}), "not a dead letter"),
        (json.dumps({"metadata": METADATA}).encode(), "not a dead letter"),
        (OLD | {"original_data": {"raw_data": "lossy"}}, "inexact text"),
        (ours(payload_encoding="gzip"), "'gzip' is unknown"),
        (ours(payload_encoding="base64"), "base64 body cannot be decoded"),
        (ours(payload_encoding="base64", original_data={"base64": "é"}), "cannot be decoded"),
        (ours(payload_encoding="base64", original_data={"base64": "a"}), "cannot be decoded"),
        (ours(payload_encoding="base64", original_data={"base64": 1}), "cannot be decoded"),
        (ours(payload_encoding="base64", original_data=["base64"]), "cannot be decoded"),
        (ours(original_headers=[]), "not a dead letter"),
    ],
)
async def test_a_dead_letter_without_the_original_bytes_is_refused(
    body: bytes | dict[str, Any], says: str
) -> None:
    with pytest.raises(RefusedError, match=says):
        await event_of(body)


async def test_an_event_of_our_consumer_may_have_a_key_named_raw_data() -> None:
    body = b'{"raw_data": "x"}'
    assert (await event_of(ours(original_data=json.loads(body)))).body == body


async def test_the_white_space_of_an_older_services_envelope_is_not_the_bodys() -> None:
    data = json.dumps({**OLD, "original_data": None}, indent=2)
    last = {key: value for key, value in OLD.items() if key != "original_data"}
    last["original_data"] = {"a": 1}
    event = await event_of(json.dumps(last, indent=2).encode())
    assert json.loads(event.body) == {"a": 1}
    assert event.body == event.body.strip()
    assert (await event_of(data.encode())).body == b"null"


async def test_headers_that_act_or_mark_another_redrive_are_left_out() -> None:
    headers = {
        "X-Tenant": "t1",
        "traceparent": "00-1",
        "Status": "503",
        "Nats-Msg-Id": "e1",
        "nats-rollup": "all",
        " Nats-Rollup": "all",
        "\tNATS-Expected-Stream": "x",
        "Dlq-Redrive-Of": "f",
        "dlq-redrive-for": "a/b",
        "X-Number": 7,
    }
    event = await event_of(ours(original_headers=headers))
    kept = {"X-Tenant": "t1", "traceparent": "00-1", "Status": "503", "X-Number": "7"}
    assert event.headers == kept


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
async def test_every_value_comes_back_in_whatever_json_the_dead_letter_is(encoding: str) -> None:
    letter = ours(original_headers={"X-Tag": ["red", "green"], "X-Rate": "RATE", "X": None})
    event = await event_of(json.dumps(letter).replace('"RATE"', "1.50e400").encode(encoding))
    assert event.headers == {"X-Tag": ["red", "green"], "X-Rate": "1.50e400", "X": []}
