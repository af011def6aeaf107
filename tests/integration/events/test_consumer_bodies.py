"""Bodies and headers of every kind, through a consumer and back."""

import base64
import hashlib
import json

import pytest

from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.redrive.origin import ExpiredError, original_event
from sahool_dlq.settings import Settings
from support.consumer_log import RETRY, SUCCESS, Calls, Log, running
from support.platform_log import publish_raw


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"\xff\x00\xfe", b"[NaN]", b"{}{}", b'"\\ud800"', b"[" * 5_000]
)
async def test_a_body_that_is_no_json_arrives_as_base64(log: Log, body: bytes) -> None:
    async with running(log.config(), Calls(RETRY)):
        await log.publish(body, headers={"Nats-Msg-Id": "m1"})
        [letter] = await log.letters(1)
    assert letter["payload_encoding"] == "base64"
    assert base64.b64decode(letter["original_data"]["base64"]) == body
    assert letter["event_id"] == "m1"


async def test_a_large_body_goes_to_the_object_store_and_comes_back(log: Log) -> None:
    body = json.dumps({"event_id": "big", "x": "y" * 1_048_000}).encode()
    assert log.client.max_payload - 1_000 < len(body) < log.client.max_payload
    calls = Calls(ValueError("too much"))
    async with running(log.config(), calls) as consumer:
        await log.publish(body)
        [stored] = await log.stored(1)
        await log.publish({"event_id": "small"})
        await log.stored(2)  # over the same connection
        assert consumer.is_connected
    letter = json.loads(stored.data or b"")
    pointer = letter["original_data"]["object"]
    assert letter["payload_encoding"] == "object"
    assert (letter["event_id"], letter["error_type"]) == ("big", "ValueError")
    assert (pointer["size"], pointer["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    message = LogMessage(str(stored.subject), 1, 0, stored.data or b"")
    assert (await original_event(log.client, message)).body == body
    bucket, stream = pointer["bucket"], f"OBJ_{pointer['bucket']}"
    info = await (await log.js.object_store(bucket)).get_info(pointer["name"])
    chunk = await log.js.get_msg(stream, 1, f"$O.{bucket}.C.{info.nuid}", next=True)
    await log.js.delete_msg(stream, chunk.seq)
    with pytest.raises(ExpiredError, match="no longer has its body"):
        await original_event(log.client, message)


async def test_a_stream_with_a_smaller_limit_gets_a_pointer(log: Log) -> None:
    dlq = (await log.js.stream_info(log.names.dead_letters)).config
    dlq.max_msg_size = 20_000
    await log.js.update_stream(dlq)
    async with running(log.config(), Calls(RETRY)):
        await log.publish(json.dumps({"event_id": "big", "x": "y" * 50_000}).encode())
        [letter] = await log.letters(1)
    assert letter["payload_encoding"] == "object"


async def test_a_status_header_hides_nothing(log: Log) -> None:
    calls = Calls(SUCCESS)
    async with running(log.config(), calls):
        for status in ("404", "503", "100"):
            await log.publish(b"", headers={"Status": status, "Description": "Server Shutdown"})
        await log.settled()
    assert sorted(context.headers["Status"] for context in calls) == ["100", "404", "503"]


@pytest.mark.parametrize(
    ("subject", "headers"),
    [
        (b"ndvi", b"NATS/1.0 2\xff0 \xff\xfe\r\n\r\n"),
        (b"ndvi", b"NATS/1.0\r\n\xff\xfe: \xff\r\nok: yes\r\n\r\n"),
        (b"ndvi", b"NATS/1.0"),
        (b"\xff\xfe", None),
    ],
)
async def test_bytes_that_the_client_can_not_read_stop_nothing(
    log: Log, subject: bytes, headers: bytes | None
) -> None:
    calls = Calls(ValueError("odd"), SUCCESS)
    async with running(log.config(), calls):
        publish_raw(
            Settings(nats_url=log.url),
            b"%b.analysis.%b" % (log.prefix.encode(), subject),
            headers,
            b"{}",
        )
        [letter] = await log.letters(1)
        await log.publish({"n": 2})
        await log.settled()
    assert len(calls) == 2
    assert letter["original_data"] == {}
