"""Acknowledgements in their newer form, `$JS.ACK.<domain>.<hash>.<stream>…`."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from sahool_dlq.events import ConsumerContext, NATSConsumerConfig, ProcessingResult
from sahool_dlq.jetstream.acks import fields_of
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jetstream.pull import Puller
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import ensure_streams
from support import servers
from support.consumer_log import DEAD_LETTER, RETRY, SUCCESS, equals, running, until

ACK_WAIT = 2.0


@servers.needs_nats(2, 14, "the feature flag is newer")
@pytest.mark.parametrize("domain", ["_", "hub"])
async def test_a_service_gives_every_kind_of_answer_and_no_event_comes_twice(
    tmp_path: Path, domain: str
) -> None:
    lines = [servers.shipped_users().replace("$JS.ACK._.", f"$JS.ACK.{domain}."), servers.NEW_ACKS]
    if domain != "_":
        lines.append(f'jetstream: {{ domain: {domain}, store_dir: "{tmp_path}/store" }}')
    calls: Counter[int] = Counter()

    async def handle(context: ConsumerContext) -> ProcessingResult:
        number = json.loads(context.data)["n"]
        calls[number] += 1
        match number % 4:
            case 0:  # +WPI, and an acknowledgement
                await asyncio.sleep(1.5 * ACK_WAIT)
            case 1 if calls[number] == 1:  # -NAK
                return RETRY
            case 2:
                return DEAD_LETTER
        return SUCCESS

    with servers.nats(tmp_path, "\n".join(lines)) as server:
        url = f"nats://{{}}:secret@127.0.0.1:{server.port}"
        async with connected(url.format("operator"), name="test") as operator:
            js = operator.jetstream()
            await ensure_streams(js, StreamNames())

            async def unsettled() -> tuple[int | None, int | None]:
                info = await js.consumer_info("SAHOOL_EVENTS", "ndvi")
                return info.num_pending, info.num_ack_pending

            config = NATSConsumerConfig(
                servers=[url.format("service")],
                name="ndvi",
                consumer_name="ndvi",
                ack_wait_seconds=ACK_WAIT,
                retry_delay_seconds=0.05,
                max_concurrency=8,
            )
            async with connected(url.format("service"), name="test") as service:
                for number in range(40):
                    body = json.dumps({"n": number}).encode()
                    await service.jetstream().publish("sahool.analysis.ndvi", body)
                async with running(config, handle):
                    await until(lambda: equals(unsettled(), (0, 0)))
                assert calls == {number: 2 if number % 4 == 1 else 1 for number in range(40)}
                assert (await js.stream_info("SAHOOL_DLQ")).state.messages == 10

                await service.jetstream().publish("sahool.analysis.ndvi", b"one more")
                puller = Puller(service, "SAHOOL_EVENTS", "ndvi")
                await puller.open()
                [msg] = [msg async for msg in puller.pull(1)]
    form = ["$JS", "ACK", domain, msg.reply.split(".")[3], *fields_of(msg.reply)]
    assert msg.reply == ".".join(form)
    assert fields_of(msg.reply)[:2] == ["SAHOOL_EVENTS", "ndvi"]
