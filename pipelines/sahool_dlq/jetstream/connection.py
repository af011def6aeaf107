"""Connections to NATS: for jobs they fail soon, in one sentence; for services they last."""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats.errors
from nats.aio.client import Client

from sahool_dlq.deadletter.headers import Headers
from sahool_dlq.errors import NotPermittedError, ServerUnavailableError
from sahool_dlq.jetstream.access import Access, access_to
from sahool_dlq.jetstream.address import Server, read_address, shown
from sahool_dlq.jetstream.bounded import within
from sahool_dlq.jetstream.headers import LastValues, encode_headers, parse_headers
from sahool_dlq.jetstream.login import UnreadableError, inbox_prefix, login_of
from sahool_dlq.jetstream.permissions import PlainSpokenClient
from sahool_dlq.jetstream.tls import tls_context

logger = logging.getLogger(__name__)

_CONNECT_SECONDS = 30  # a job's, with all its attempts
_DISCONNECT_SECONDS = 0.5
_DOMAIN_SECONDS = 5
_LOGIN_REFUSALS = ("authorization violation", "authentication expired", "authentication revoked")
_PLAIN_BLOCK = b"NATS/1.0\r\n"  # no status of the server's

# nats-py prints a traceback when a message breaks its parser; configure logging to see it.
logging.getLogger("nats").addHandler(logging.NullHandler())


class TolerantClient(PlainSpokenClient):
    """A client that no message can stop.

    In nats-py a header block or subject that cannot be decoded ends the read loop, while
    `is_connected` stays True. This client also keeps all values of a repeated header: see
    `every_header`.
    """

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:
        if not headers or headers.startswith(_PLAIN_BLOCK):
            return LastValues(parse_headers(headers)) or None if headers else None
        try:
            return await super()._process_headers(headers)
        except (IndexError, ValueError) as error:
            logger.warning("nats: headers that cannot be read are left out: %s", error)
            return None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Any:
        subject = subject.decode(errors="replace").encode()
        return super()._build_message(sid, subject, reply, data, headers)


async def connect_service(
    access: Access,
    *,
    name: str,
    timeout_seconds: float,
    reconnect_time_wait: float = 2,
    max_reconnect_attempts: int = -1,
) -> Client:
    """A connection for a service that reconnects by itself; the caller closes it.

    Raises ServerUnavailableError if no server answers, accepts the login, or can be trusted within
    `timeout_seconds`, and SettingsError for an invalid address or an unusable file.
    """
    where = shown(access.servers)
    client = TolerantClient()
    said = ""

    async def log_error(error: Exception) -> None:
        nonlocal said
        text = client.read_fault(error) or _detail(error)
        # In an outage the same error comes every few seconds: log it once.
        logger.log(logging.DEBUG if text == said else logging.WARNING, "nats: %s", text)
        said = text

    async def log_return() -> None:
        nonlocal said
        said = ""
        logger.warning("nats: connected again")

    try:
        await _connect(
            client,
            access,
            timeout_seconds,
            name=name,
            reconnect_time_wait=reconnect_time_wait,
            max_reconnect_attempts=max_reconnect_attempts,
            allow_reconnect=True,
            error_cb=log_error,
            reconnected_cb=log_return,
        )
    except ServerUnavailableError:
        await disconnect(client)
        raise
    except (nats.errors.Error, OSError, ValueError) as error:
        await disconnect(client)
        cause = client.last_error or error
        if _is_login_refused(cause):
            raise ServerUnavailableError(_refused(client, where)) from error
        raise ServerUnavailableError(
            client.tls_fault
            or f"No NATS server answers at {where} ({_detail(cause)}): start one, or give another"
            " address."
        ) from error
    return client


async def disconnect(client: Client) -> None:
    """Close a connection soon, even if the server does not answer.

    nats-py alone would wait until a hanging server reads the remaining data.
    """
    if client.is_closed:
        return
    with suppress(nats.errors.Error, OSError):
        await within(_DISCONNECT_SECONDS, client.close())


def wire_size(data: bytes, headers: Headers | None = None) -> int:
    """The size that the server compares with its max_payload: the body, and the headers as sent.

    If it is one byte too large, the server ends the connection, and nats-py does not reconnect.
    """
    return len(data) + (len(encode_headers(headers)) if headers else 0)


@asynccontextmanager
async def connected(
    to: Access | Server, name: str = "dlq", *, patience_seconds: float = 0
) -> AsyncIterator[Client]:
    """A connection, or only addresses (comma-separated), closed at the end.

    If nobody listens at any address it fails at once, or after `patience_seconds` (at most five) of
    retries, for callers that must survive a restart.

    Raises ServerUnavailableError if no server answers or can be trusted, or if one stops answering
    and the caller did not catch it, NotPermittedError if it refuses the login, and SettingsError
    for an invalid address or an unusable file.
    """
    access = to if isinstance(to, Access) else access_to(to)
    where = shown(access.servers)
    connection = PlainSpokenClient()
    is_up = False
    begun, tries = time.monotonic(), 0

    async def log_error(error: Exception) -> None:
        nonlocal tries
        logger.debug("nats: %s", error)
        if is_up:
            return
        tries = tries + 1 if _is_nobody_there(error) else 0
        if tries >= len(access.servers) and time.monotonic() - begun >= patience_seconds:
            raise _no_answer(where, error) from error
        if _is_login_refused(error):
            # nats-py would retry for many seconds
            raise NotPermittedError(_refused(connection, where)) from error
        if len(access.servers) == 1 and (fault := connection.read_fault(error)):
            raise ServerUnavailableError(fault) from error

    try:
        await _connect(
            connection,
            access,
            _CONNECT_SECONDS,
            name=name,
            max_reconnect_attempts=10,
            reconnect_time_wait=0.5,
            connect_timeout=3,
            allow_reconnect=True,
            error_cb=log_error,
        )
    except (NotPermittedError, ServerUnavailableError):
        await disconnect(connection)
        raise
    except (nats.errors.Error, OSError, ValueError) as error:
        await disconnect(connection)
        if connection.tls_fault:
            raise ServerUnavailableError(connection.tls_fault) from error
        raise _no_answer(where, error) from error
    is_up = True
    try:
        yield connection
    except (nats.errors.Error, TimeoutError) as error:
        raise ServerUnavailableError(
            f"NATS at {where} does not answer as expected ({_detail(error)}): check whether it"
            f" runs; the next run continues."
        ) from error
    finally:
        await disconnect(connection)


async def _connect(
    client: PlainSpokenClient, access: Access, seconds: float, **options: Any
) -> None:
    """Connect as nats-py does, without the addresses' logins in anything that it may print."""
    client.access = access
    client.addresses = addresses = [read_address(server) for server in access.servers]
    client.login = login = login_of(access, addresses)
    tls_context(access)  # problems of its files are reported immediately
    urls = [each.url for each in addresses]
    options |= {"inbox_prefix": inbox_prefix(access, login), **login.options}
    connecting = client.connect(urls, tls_handshake_first=access.tls_first, **options)
    attempts = asyncio.create_task(connecting)
    try:
        await asyncio.wait({attempts}, timeout=seconds)
        if not attempts.done():  # nats-py alone would try for ever
            raise TimeoutError
        attempts.result()
    finally:
        while not attempts.done():  # sometimes nats-py swallows a cancellation
            attempts.cancel()
            await asyncio.wait({attempts}, timeout=0.1)
    if access.jetstream_domain:
        await _check_domain(client, access.jetstream_domain)


async def _check_domain(client: Client, domain: str) -> None:
    try:
        await client.request(f"$JS.{domain}.API.INFO", timeout=_DOMAIN_SECONDS)
    except nats.errors.NoRespondersError:
        raise ServerUnavailableError(
            f"No JetStream of domain {domain} answers: see jetstream_domain (DLQ_NATS_JETSTREAM_"
            "DOMAIN), and whether this server is linked with that domain's."
        ) from None
    except (NotPermittedError, TimeoutError):
        return  # without this right the rest still works


def _refused(client: PlainSpokenClient, where: str) -> str:
    try:
        fault = client.login.fault() if client.login else ""
    except UnreadableError as error:
        return f"NATS at {where} refuses the login. {error}"
    return f"NATS at {where} refuses the login {fault}."


def _no_answer(where: str, error: Exception) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"No NATS server answers at {where} ({_detail(error)}): start one, run `dlq up`, or set"
        " DLQ_NATS_URL."
    )


def _is_nobody_there(error: Exception) -> bool:
    """Whether no connection was made: nobody listens, or the host is unknown."""
    late_or_later = TimeoutError | ConnectionResetError | BrokenPipeError | ssl.SSLError
    return isinstance(error, OSError) and not isinstance(error, late_or_later)


def _is_login_refused(error: Exception) -> bool:
    return any(each in str(error).lower() for each in _LOGIN_REFUSALS)


def _detail(error: Exception) -> str:
    return str(error) or type(error).__name__
