"""The log is read in bulk, or as nats-py gives it, with the same result."""

import asyncio
import random
import ssl
from collections.abc import Callable
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.demo.certificates import Authority
from sahool_dlq.embedded import NatsServer
from sahool_dlq.jetstream import tap
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.platform_log import check_exact, letter, publish

COUNT = 1_500


async def stored(client: Client) -> list[tuple[str, bytes]]:
    """Messages of many sizes in a stream, with and without headers."""
    rng, js = random.Random(1), client.jetstream()
    await js.add_stream(name="LOG", subjects=["log.>"])
    sent, acks = [], []
    for number in range(COUNT):
        headers = {"Status": "404", "N": str(number)} if number % 3 == 0 else None
        size = 300_000 if number % 300 == 7 else rng.choice((0, 1, 300, 4_000))
        sent.append((f"log.kind_{number % 7}", rng.randbytes(size)))
        acks.append(js.publish(*sent[-1], headers=headers))
    await asyncio.gather(*acks)
    return sent


async def read(client: Client, batch: int = 400) -> tuple[list[LogMessage], bool | None]:
    """The whole stream, while other messages arrive on the same connection."""
    others: list[bytes] = []

    async def heard(msg: Msg) -> None:
        others.append(msg.data)

    await client.subscribe("other", cb=heard)
    reader = LogReader(client, "LOG", ("log.>",))
    state = await reader.state()
    found: list[LogMessage] = []
    await reader.seek(1)
    rounds = 0
    while messages := await reader.read(batch, 2_000_000, state.last_sequence):
        found += messages
        for _ in range(5):
            await client.publish("other", b"%d" % rounds)
        rounds += 1
    await reader.close()
    async with asyncio.timeout(20):  # the callbacks run a little later
        while len(others) < 5 * rounds:
            await asyncio.sleep(0.01)
    assert others == [b"%d" % number for number in range(rounds) for _ in range(5)]
    assert (await client.jetstream().account_info()).streams == 1  # it still answers
    return found, reader.is_read_in_bulk


async def check(client: Client, *, is_in_bulk: bool) -> None:
    sent = await stored(client)
    found, how = await read(client)
    assert how is is_in_bulk
    assert [(m.subject, m.data) for m in found] == sent
    assert [m.sequence for m in found] == list(range(1, COUNT + 1))
    times = [m.timestamp_ns for m in found]
    assert times == sorted(times)


async def test_a_plain_connection_is_read_in_bulk(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    async with await nats.connect(nats_server_factory().url) as client:
        await check(client, is_in_bulk=True)


async def test_a_connection_with_tls_too(
    nats_server_factory: Callable[..., NatsServer], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    config = f"tls {{ {authority.issue('server', '127.0.0.1')} }}"
    context = ssl.create_default_context(cafile=str(authority.file))
    url = nats_server_factory(config=config).url
    async with await nats.connect(url, tls=context) as client:
        await check(client, is_in_bulk=True)


async def test_where_there_is_no_tap_the_result_is_the_same(
    nats_server_factory: Callable[..., NatsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap, "_transport_between_lines", lambda _: None)
    async with await nats.connect(nats_server_factory().url) as client:
        await check(client, is_in_bulk=False)


async def test_a_reader_on_a_lost_connection_stalls_and_says_so(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    server = nats_server_factory()
    async with await nats.connect(server.url, allow_reconnect=False) as client:
        await stored(client)
        reader = LogReader(client, "LOG", ("log.>",))
        last = (await reader.state()).last_sequence
        await reader.seek(1)
        assert len(await reader.read(10, 2_000_000, last)) == 10
        assert reader.is_read_in_bulk
        server.stop()
        with pytest.raises(Exception, match=r"stalled at sequence 11|connection closed"):
            await reader.read(10, 2_000_000, last)


@pytest.mark.parametrize("is_in_bulk", [True, False])
async def test_a_drain_says_how_it_read(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch, *, is_in_bulk: bool
) -> None:
    if not is_in_bulk:
        monkeypatch.setattr(tap, "_transport_between_lines", lambda _: None)
    sent = await publish(client, settings, map(letter, range(300)))
    report = await drain_log(settings.model_copy(update={"drain_batch_messages": 70}))
    assert (report.drained, report.is_read_in_bulk) == (300, is_in_bulk)
    check_exact(settings, sent)
    assert (await drain_log(settings)).is_read_in_bulk is None
