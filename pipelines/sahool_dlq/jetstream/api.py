"""The server's JSON API: its subjects and raw answers (nats-py drops unknown fields)."""

import json
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.tls import EncryptingClient

_PLAIN = Access.model_construct()  # of a client that is not ours


def api_subject(client: Client, what: str) -> str:
    """The subject of a request such as `CONSUMER.INFO.<stream>.<consumer>`, on this connection.

    JetStream's API may be in a domain, or have the prefix of another account: see `Access`.
    """
    return f"{_access(client).api_prefix}.{what}"


def domain_of(client: Client) -> str:
    """The JetStream domain of this connection; empty if unknown."""
    access = _access(client)
    if access.jetstream_api_prefix:
        return ""
    return access.jetstream_domain or client._server_info.get("domain", "")  # noqa: SLF001  (nats-py has no public name for it)


def _access(client: Client) -> Access:
    return client.access if isinstance(client, EncryptingClient) else _PLAIN


def check_domain(said: str, domain: str) -> None:
    """Raise ValueError if a server's message is about another domain's streams.

    Such messages reach linked domains, where a stream may have the same name.
    """
    if said and domain and said != domain:
        raise ValueError(f"it is about JetStream domain {said}")


async def ask(js: JetStreamContext, what: str, **body: Any) -> dict[str, Any]:
    """The answer to a request such as `CONSUMER.INFO.<stream>.<consumer>`.

    Raises as nats-py does: APIError if the server refuses, TimeoutError if it does not answer.
    """
    request = json.dumps(body).encode() if body else b""
    answer: dict[str, Any] = await js._api_request(  # noqa: SLF001  (it has no public one)
        f"{js._prefix}.{what}",  # noqa: SLF001  (nats-py has no public name for it)
        request,
        timeout=js._timeout,  # noqa: SLF001  (nats-py has no public name for it)
    )
    return answer
