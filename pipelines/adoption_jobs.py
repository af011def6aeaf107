"""The job by which a consumer without our code is adopted, or let go again: whole."""

import logging
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from psycopg import Connection

from pipelines.bridge.adopt import Adoption, adoptable, change, sampled
from pipelines.bridge.totals import publish_totals
from pipelines.errors import AdoptionError, DLQError, StreamError
from pipelines.jetstream.ack_metrics import ALL, percent
from pipelines.jetstream.connection import connected
from pipelines.jetstream.streams import ensure_ack_stream
from pipelines.settings import Settings
from pipelines.stores.audit import audit, audited
from pipelines.stores.database import database

logger = logging.getLogger(__name__)

_PROOF, _UNDO = "adopt.proof", "adopt.undo"


async def preview_adoption(settings: Settings, name: str, *, is_undo: bool = False) -> Adoption:
    """What an adoption would change, or its undoing; touches nothing.

    Raises AdoptionError for a consumer that there is not, or that needs none.
    """
    async with connected(settings.access, "dlq adopt") as client:
        return await _wanted(settings, client, name, is_undo=is_undo)


async def adopt(
    settings: Settings, name: str, *, actor: str, reason: str, is_undo: bool = False
) -> Adoption:
    """Let the server tell of every acknowledgement by a consumer, and keep what it tells.

    Undone, the consumer's `sample_freq` is what it was before. A change is in the audit with its
    reason; where all is so already, nothing is done. Raises AdoptionError as above and where no
    reason is given, StreamError where what the server tells can not be kept.
    """
    if not reason.strip():
        raise AdoptionError("Give a reason: it is kept in the audit.")
    reason = settings.masked(reason)
    async with connected(settings.access, "dlq adopt") as client:
        adoption = await _wanted(settings, client, name, is_undo=is_undo)
        if is_undo:
            await _count(settings, client)  # what is told until now
        else:
            await _keep_acks(settings, client)
        if not adoption.is_change:
            return adoption
        dsn = settings.postgres_dsn.get_secret_value()
        with database(dsn) as connection, connection.transaction():
            _note(connection, adoption, _UNDO if is_undo else _PROOF, actor, reason)
            await change(client, adoption)
        if not is_undo:
            await _count(settings, client, adoption)
        return adoption


async def _wanted(settings: Settings, client: Client, name: str, *, is_undo: bool) -> Adoption:
    found = await adoptable(client, settings, name)
    if (percent(found.before.get("sample_freq")) == 100) is not is_undo:
        return found
    if not is_undo:
        return sampled(found, ALL)
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        return sampled(found, _freq_before(connection, found))


def _freq_before(connection: Connection[Any], found: Adoption) -> str | None:
    """What it was before the latest adoption; None where none is known, or there was none."""
    for row in audited(connection, action=_PROOF, limit=1_000):
        detail = row["detail"]
        if (detail.get("stream"), detail.get("consumer")) == (found.stream, found.consumer):
            before = detail.get("before")
            return before if isinstance(before, str) else None
    return None


def _note(
    connection: Connection[Any], adoption: Adoption, action: str, actor: str, reason: str
) -> None:
    freqs = (config.get("sample_freq") for config in (adoption.before, adoption.after))
    values = (adoption.stream, adoption.consumer, *freqs)
    detail = dict(zip(("stream", "consumer", "before", "after"), values, strict=True))
    audit(connection, action, actor=actor, reason=reason, detail=detail)


async def _keep_acks(settings: Settings, client: Client) -> None:
    try:
        await ensure_ack_stream(client.jetstream(), settings.stream_names)
    except JetStreamError as error:
        raise StreamError(
            f"The stream {settings.ack_stream}, which keeps what the server tells, could not be"
            f" made: {error}."
        ) from error


async def _count(settings: Settings, client: Client, adoption: Adoption | None = None) -> None:
    """The bridge does it in a moment, too: that this one can not, stops nothing."""
    anew = [(adoption.stream, adoption.consumer)] if adoption else []
    try:
        await publish_totals(client, settings, anew=anew)
    except (DLQError, nats.errors.Error, JetStreamError) as error:
        logger.warning("The totals begin with the next run of the bridge: %s", error)
