"""A pull request waits as long as messages come, and no longer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.jetstream import pull
from sahool_dlq.jetstream.pull import Puller, PullStalledError


class SlowServer:
    """Answers a pull request with a message every `seconds`, `count` of them."""

    is_connected = True
    last_error = None

    def __init__(self, seconds: float, count: int) -> None:
        self._seconds = seconds
        self._count = count
        self._deliver: Callable[[Msg], Awaitable[None]] | None = None
        self._sending: asyncio.Task[None] | None = None

    def new_inbox(self) -> str:
        return "_INBOX.test"

    async def subscribe(self, _subject: str, cb: Callable[[Msg], Awaitable[None]], **_: Any) -> Any:
        self._deliver = cb

    async def publish(self, _subject: str, _body: bytes, reply: str) -> None:
        self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        assert self._deliver is not None
        for number in range(1, self._count + 1):
            await asyncio.sleep(self._seconds)
            reply = f"$JS.ACK.S.C.1.{number}.{number}.1700000000000000000.0"
            await self._deliver(Msg(_client=None, subject="s", reply=reply, data=b""))


async def pulled(server: SlowServer, batch: int) -> int:
    puller = Puller(cast("Client", server), "S", "C")
    await puller.open()
    return len([msg async for msg in puller.pull(batch)])


async def test_a_batch_may_take_longer_than_the_patience_with_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pull, "_GRACE_SECONDS", 0.5)
    assert await pulled(SlowServer(0.1, count=8), batch=8) == 8


async def test_silence_in_the_midst_of_a_batch_is_a_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(pull, "check_permitted", lambda *_: None)
    with pytest.raises(PullStalledError, match="no answer"):
        await pulled(SlowServer(0.01, count=2), batch=3)
