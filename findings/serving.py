"""A nats-server with JetStream on a free port of loopback, and a client on it."""

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Self

import nats
from nats.aio.client import Client


class Server:
    """`async with server as client`; entered again it is the same server, restarted."""

    def __init__(
        self, folder: Path, binary: str = "venv/bin/nats-server", config: str = ""
    ) -> None:
        self.port = free_port()
        data = folder / f"data-{self.port}"
        data.mkdir()
        (data / "server.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\nserver_name: s{self.port}\n'
            f'jetstream {{ store_dir: "{data}" }}\n{config}\n'
        )
        self._command = [folder / binary, "--config", data / "server.conf"]

    async def __aenter__(self) -> Client:
        self.start()
        self._client = await self.connect()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        self.stop()

    def start(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        return self

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    async def connect(self) -> Client:
        async def quiet(_: Exception) -> None: ...

        while self._process.poll() is None:
            try:
                return await nats.connect(
                    f"nats://127.0.0.1:{self.port}", allow_reconnect=False, error_cb=quiet
                )
            except (OSError, nats.errors.Error):
                await asyncio.sleep(0.1)
        raise SystemExit("nats-server ended")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
