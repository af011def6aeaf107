"""Receives alerts in tests: an HTTP server and an SMTP server on loopback."""

import asyncio
import email
import email.policy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Inbox:
    """An HTTP server that accepts alerts, or refuses them as `status` says."""

    status: int = 200
    refused: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        sizes = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        body = await reader.readexactly(int(sizes[0].split(b":")[1]))
        if self.status == 200:
            self.messages.append(json.loads(body))
        else:
            self.refused += 1
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.status)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def inbox(**options: Any) -> AsyncIterator[Inbox]:
    box = Inbox(**options)
    async with await asyncio.start_server(box.answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        box.url = f"json://user:hunter2@127.0.0.1:{port}/alerts"
        yield box


@dataclass
class Mailbox:
    """The messages that an SMTP server received."""

    messages: list[EmailMessage] = field(default_factory=list)
    url: str = ""

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802  (signature of aiosmtpd)
        content = envelope.content
        assert isinstance(content, bytes)
        message = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 taken"


@asynccontextmanager
async def mailbox() -> AsyncIterator[Mailbox]:
    box = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(box, hostname="localhost", loop=loop), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        box.url = (
            f"mailto://127.0.0.1:{port}?from=dlq@example.org&to=team@example.org&mode=insecure"
        )
        yield box
