"""A connection to NATS for a job: it fails in one sentence, and soon."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import nats.errors
from nats.aio.client import Client

from pipelines.errors import ServerUnavailableError

logger = logging.getLogger(__name__)

# nats-py prints a traceback when a message breaks its parser; who wants it can configure logging.
logging.getLogger("nats").addHandler(logging.NullHandler())


@asynccontextmanager
async def connected(
    url: str, creds: Path | None = None, name: str = "dlq"
) -> AsyncIterator[Client]:
    """A connection to the servers at `url` (comma-separated), closed at the end.

    Raises ServerUnavailableError where no server answers, or where one no longer does and the
    caller did not catch it.
    """

    async def log_error(error: Exception) -> None:
        logger.debug("nats: %s", error)

    servers = [server.strip() for server in url.split(",")]
    shown = ", ".join(_without_password(server) for server in servers)
    try:
        connection = await nats.connect(
            servers,
            name=name,
            user_credentials=str(creds) if creds else None,
            max_reconnect_attempts=10,
            reconnect_time_wait=0.5,
            connect_timeout=3,
            allow_reconnect=True,
            error_cb=log_error,
        )
    except (nats.errors.Error, OSError, ValueError) as error:
        raise ServerUnavailableError(
            f"No NATS server answers at {shown} ({_detail(error)}): start one, run `dlq up`, or"
            " set DLQ_NATS_URL."
        ) from error
    try:
        yield connection
    except (nats.errors.Error, TimeoutError) as error:
        raise ServerUnavailableError(
            f"NATS at {shown} does not answer as it should ({_detail(error)}): see whether it runs;"
            " the next run goes on."
        ) from error
    finally:
        if not connection.is_closed:
            await connection.close()


def _detail(error: Exception) -> str:
    return str(error) or type(error).__name__


def _without_password(server: str) -> str:
    scheme, _, rest = server.rpartition("://")
    return f"{scheme or 'nats'}://{rest.rsplit('@', 1)[-1]}"
