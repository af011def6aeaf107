"""The upstreams of the fleet, in their failing state until `heal`.

A tile server that is too slow for some tiles, a forecast service that does not listen, a sensor
gateway that drops the first connection for each sample.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_SLOW_SECONDS = 5.0


class Upstreams:
    """The three services on loopback; `tiles`, `forecasts` and `sensors` are their ports."""

    def __init__(self) -> None:
        self._is_slow = True
        self._seen: set[str] = set()
        self._servers: list[asyncio.Server] = []
        self._reserved = socket.socket()
        self._forecasts: asyncio.Server | None = None
        self._answering: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> "Upstreams":
        self.tiles = await self._serve(self._tile)
        self.sensors = await self._serve(self._sensor)
        self._reserve(0)
        self.forecasts: int = self._reserved.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        if self._forecasts is not None:
            self._forecasts.close()
        self._reserved.close()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def heal(self) -> None:
        """Make the tile server fast and start the forecast service."""
        self._is_slow = False
        if self._forecasts is None:
            self._forecasts = await asyncio.start_server(
                self._closing(self._forecast), sock=self._reserved
            )

    def slow_down(self) -> None:
        """Make the tile server slow for archived tiles."""
        self._is_slow = True

    def stop_forecasts(self) -> None:
        """Stop the forecast service: connections are refused."""
        if self._forecasts is not None:
            self._forecasts.close()
            self._forecasts = None
            self._reserved = socket.socket()
            self._reserve(self.forecasts)

    def _reserve(self, port: int) -> None:
        """Bind the port without listening: connections are refused, and nobody else gets it."""
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((HOST, port))

    def _closing(self, handler: Handler) -> Handler:
        """The handler, whose connection ends with it, and it with all of this."""

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._answering.add(task)
            try:
                await handler(reader, writer)
            finally:
                self._answering.discard(task)
                writer.close()

        return handle

    async def _serve(self, handler: Handler) -> int:
        server = await asyncio.start_server(self._closing(handler), HOST, 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _tile(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tile = (await reader.readline()).decode().strip()
        if tile.endswith("-archive") and self._is_slow:
            await asyncio.sleep(_SLOW_SECONDS)
        await _answer(writer, b"tile\n")

    async def _forecast(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        await _answer(writer, b"dry\n")

    async def _sensor(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sample = (await reader.readline()).decode().strip()
        if sample.endswith("-flaky") and sample not in self._seen:
            self._seen.add(sample)
            writer.transport.abort()
            return
        self._seen.discard(sample)
        await _answer(writer, b"moist\n")


async def _answer(writer: asyncio.StreamWriter, line: bytes) -> None:
    try:
        writer.write(line)
        await writer.drain()
        writer.close()
    except ConnectionError:
        return  # the client gave up waiting


async def ask(port: int, question: str) -> str:
    """One line sent, one line back; raises ConnectionError if the other end closes."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(question.encode() + b"\n")
        await writer.drain()
        answer = await reader.readline()
        if not answer:
            raise ConnectionResetError(f"{HOST}:{port} closed the connection without an answer")
        return answer.decode().strip()
    finally:
        writer.close()
