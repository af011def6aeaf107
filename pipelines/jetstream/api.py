"""The server's JSON API as it answers: nats-py drops the fields that it does not know."""

import json
from typing import Any

from nats.js import JetStreamContext


async def ask(js: JetStreamContext, what: str, **body: Any) -> dict[str, Any]:
    """The answer to a request such as `CONSUMER.INFO.<stream>.<consumer>`.

    Raises as nats-py does: APIError where the server refuses, TimeoutError where it is silent.
    """
    request = json.dumps(body).encode() if body else b""
    answer: dict[str, Any] = await js._api_request(  # noqa: SLF001  (it has no public one)
        f"{js._prefix}.{what}",  # noqa: SLF001
        request,
        timeout=js._timeout,  # noqa: SLF001
    )
    return answer
