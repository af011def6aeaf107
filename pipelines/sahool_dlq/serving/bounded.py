"""What every request goes through: a bounded body, headers for safety, the channel of the audit."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sahool_dlq.serving.problems import problem
from sahool_dlq.stores.postgres.audit import CHANNEL

__all__ = ["MOST_BYTES", "Bounded"]

MOST_BYTES = 1 << 20
"""Of a request's body."""

_HEADERS = [
    (b"cache-control", b"no-store"),  # answers are about people's data
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


class Bounded:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; 413 for a body of more than `MOST_BYTES`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        CHANNEL.set("http")
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > MOST_BYTES:
                too_large = problem(413, f"A body may have at most {MOST_BYTES:,} bytes.")
                await too_large(scope, receive, send)
                return
        is_read = False

        async def read() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        await self._app(scope, read, answer)
