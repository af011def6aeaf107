"""The first connection of a job: without a server it fails at once, or waits if it should."""

import asyncio
import contextlib
import logging

import pytest

from sahool_dlq.embedded import NatsServer
from sahool_dlq.embedded.server import HOST, free_port
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.connection import connected
from support.consumer_log import until

LOGGER = "sahool_dlq.jetstream.connection"


@pytest.mark.parametrize("count", [1, 3])
async def test_each_server_that_is_not_there_is_tried_once(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    servers = {f"nats://{HOST}:{free_port('NATS')}" for _ in range(count)}
    with pytest.raises(ServerUnavailableError, match=r"No NATS server answers at .*: start one"):
        async with connected(",".join(servers)):
            pass
    assert len(caplog.messages) == len(servers)


async def test_one_of_several_is_enough(nats_url: str) -> None:
    missing = (f"nats://{HOST}:{free_port('NATS')}" for _ in range(2))
    async with connected(",".join([*missing, nats_url])) as client:
        assert client.is_connected


async def test_a_job_with_patience_waits_for_a_restart(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    port = free_port("NATS")

    async def connect() -> bool:
        url = f"nats://{HOST}:{port}"
        async with connected(url, patience_seconds=5) as client:
            return client.is_connected

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(sink):
            while data := await source.read(65_536):
                sink.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(HOST, nats_server.port)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    async def is_refused() -> bool:
        return bool(caplog.messages)

    connecting = asyncio.create_task(connect())
    await until(is_refused)
    async with await asyncio.start_server(relay, HOST, port):
        assert await connecting
