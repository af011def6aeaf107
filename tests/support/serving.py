"""`dlq serve` in this process: a real server on a loopback port, with a token for each role."""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from jsonschema import Draft202012Validator

from sahool_dlq.serving.app import make_app
from sahool_dlq.serving.tokens import RIGHTS, Tokens
from sahool_dlq.settings import Settings


class Api:
    """Requests with the token of a role, which is also the actor's name; none without a role."""

    def __init__(self, client: httpx.AsyncClient, secrets: dict[str, str]) -> None:
        self.client = client
        self.secrets = secrets

    async def ask(self, role: str | None, method: str, path: str, **body: Any) -> httpx.Response:
        """One request."""
        headers = {"Authorization": f"Bearer {self.secrets[role]}"} if role else {}
        return await self.client.request(method, path, headers=headers, json=body or None)

    async def told(self, role: str, method: str, path: str, **body: Any) -> Any:
        """The answer of a request that must succeed, and be as OpenAPI describes it."""
        answer = await self.ask(role, method, path, **body)
        assert answer.is_success, answer.text
        described = (await self.client.get("/openapi.json")).json()
        asked = urlsplit(path).path
        [place] = [
            p for p in described["paths"] if re.fullmatch(re.sub("{.*?}", "[^/]+", p), asked)
        ]
        answers = described["paths"][place][method.lower()]["responses"]
        schema = answers[str(answer.status_code)]["content"]["application/json"]["schema"]
        whole = Draft202012Validator({**schema, "components": described["components"]})
        errors = [error.message for error in whole.iter_errors(answer.json())]
        assert not errors, (path, errors)
        return answer.json()

    async def until(self, batch: str, *states: str) -> dict[str, Any]:
        """A batch once it is in one of these states."""
        async with asyncio.timeout(120):
            while True:
                told = await self.told("analyst", "GET", f"/v1/batches/{batch}")
                if told["batch"]["state"] in states and not told["is_running"]:
                    return dict(told)
                await asyncio.sleep(0.1)


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[Api]:
    """The service, until the end; it then stops as at Ctrl-C."""
    tokens = Tokens(settings)
    secrets = {role: tokens.add(role, [role]) for role in RIGHTS}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(make_app(settings), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
                yield Api(client, secrets)
        finally:
            server.should_exit = True
            await asyncio.to_thread(thread.join)
