"""A connection for tests that restart the server."""

import nats
from nats.aio.client import Client
from nats.aio.transport import TcpTransport


async def lasting_client(urls: str | list[str]) -> Client:
    """A connection that reconnects however often the server is killed; the caller closes it."""

    async def ignore(_: Exception) -> None: ...

    return await nats.connect(
        urls, reconnect_time_wait=0.1, max_reconnect_attempts=-1, error_cb=ignore
    )


def close_failed_connections() -> None:
    """Make nats-py close a connection whose handshake failed before it opens the next.

    nats-py drops it without closing it, and a ResourceWarning would fail the test that runs then.
    """
    connect = Client._connect_to_server

    async def close_and_connect(self: Client, *given: object) -> None:
        if isinstance(self._transport, TcpTransport):
            self._transport.close()
        await connect(self, *given)

    Client._connect_to_server = close_and_connect
