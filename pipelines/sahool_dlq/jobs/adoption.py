"""The complete job that adopts a consumer without our library, or undoes that."""

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError
from psycopg import Connection

from sahool_dlq.bridge.adopt import (
    LIMITS,
    SAMPLING,
    Adoption,
    Limits,
    adoptable,
    change,
    limited,
    with_values,
)
from sahool_dlq.bridge.totals import publish_totals
from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.errors import AdoptionError, DLQError, StreamError
from sahool_dlq.jetstream.ack_metrics import ALL, percent
from sahool_dlq.jetstream.streams import ensure_ack_stream, ensure_advisory_stream
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.audit import audit, audited

logger = logging.getLogger(__name__)

_PROOF, _UNDO = "adopt.proof", "adopt.undo"
_LIMITED, _UNLIMITED = "adopt.limits", "adopt.limits.undo"
_LOOKED_BACK = 1_000  # rows of the audit


@dataclass(frozen=True, slots=True)
class Wish:
    """What an adoption must change."""

    is_proof: bool = True  # the server reports every acknowledgement
    limits: Limits | None = None


PROOF = Wish()


async def preview_adoption(
    settings: Settings, name: str, wish: Wish = PROOF, *, is_undo: bool = False
) -> Adoption:
    """What an adoption, or its undoing, would change; changes nothing.

    Raises AdoptionError for a missing consumer, or one that needs no adoption.
    """
    async with open_nats(settings, "dlq adopt") as client:
        return await _wanted(settings, client, name, wish, is_undo=is_undo)


async def adopt(
    settings: Settings,
    name: str,
    wish: Wish = PROOF,
    *,
    actor: str,
    reason: str,
    is_undo: bool = False,
) -> Adoption:
    """Let a consumer give up events that always fail, or let the server report all its
    acknowledgements.

    The server's messages are stored before the change. Undoing restores the previous values, except
    those that somebody else has changed since. A change is in the audit with its reason; if nothing
    needs to change, nothing is done. Raises AdoptionError as above and without a reason,
    StreamError if the server's messages cannot be stored.
    """
    if not reason.strip():
        raise AdoptionError("Give a reason: it is stored in the audit.")
    actor, reason = settings.masked(actor), settings.masked(reason)
    async with open_nats(settings, "dlq adopt") as client:
        adoption = await _wanted(settings, client, name, wish, is_undo=is_undo)
        if is_undo:
            await _count(settings, client)  # what is told until now
        else:
            await _keep_told(settings, client, wish)
        if not adoption.is_change:
            return adoption
        with open_postgres(settings) as connection, connection.transaction():
            _note(connection, adoption, actor, reason, is_undo=is_undo)
            await change(client, adoption)
        if wish.is_proof and not is_undo:
            await _count(settings, client, adoption)
        return adoption


async def _wanted(
    settings: Settings, client: Client, name: str, wish: Wish, *, is_undo: bool
) -> Adoption:
    found = await adoptable(client, settings, name)
    if is_undo:
        with open_postgres(settings) as connection:
            return _undone(connection, found)
    if wish.is_proof and percent(found.before.get("sample_freq")) != 100:
        found = with_values(found, {"sample_freq": ALL})
    return limited(found, wish.limits) if wish.limits else found


def _undone(connection: Connection[Any], found: Adoption) -> Adoption:
    """With the values from before the adoptions that still apply."""
    if percent(found.before.get("sample_freq")) == 100:
        rows = _rows(connection, found, _PROOF)
        freq = rows[0].get("before") if rows else None
        found = with_values(found, {"sample_freq": freq if isinstance(freq, str) else None})
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for detail in _rows(connection, found, _LIMITED):  # and their undoing, newest first
        if detail.get("is_undone"):
            break
        before |= detail["before"]
        after = detail["after"] | after
    still = {k: v for k, v in before.items() if found.before.get(k) == after.get(k)}
    return with_values(found, still)


def _rows(connection: Connection[Any], found: Adoption, action: str) -> list[dict[str, Any]]:
    """The audit rows about adoptions of a consumer, newest first."""
    rows = audited(connection, action=action, limit=_LOOKED_BACK)
    details = [row["detail"] | {"is_undone": row["action"] == _UNLIMITED} for row in rows]
    where = (found.stream, found.consumer)
    return [each for each in details if (each.get("stream"), each.get("consumer")) == where]


def _note(
    connection: Connection[Any], adoption: Adoption, actor: str, reason: str, *, is_undo: bool
) -> None:
    where = {"stream": adoption.stream, "consumer": adoption.consumer}

    def values(config: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
        return {name: config.get(name) for name in names if name in adoption.changed}

    if before := values(adoption.before, SAMPLING):
        freqs = {"before": before["sample_freq"], "after": adoption.after.get("sample_freq")}
        action = _UNDO if is_undo else _PROOF
        audit(connection, action, actor=actor, reason=reason, detail=where | freqs)
    if before := values(adoption.before, LIMITS):
        limits = {"before": before, "after": values(adoption.after, LIMITS)}
        action = _UNLIMITED if is_undo else _LIMITED
        audit(connection, action, actor=actor, reason=reason, detail=where | limits)


async def _keep_told(settings: Settings, client: Client, wish: Wish) -> None:
    """Create the streams for the server's messages, before it sends them."""
    js, names = client.jetstream(), settings.stream_names
    if wish.is_proof:
        told = "the server's reports of acknowledgements"
        await _make(settings.ack_stream, told, ensure_ack_stream(js, names))
    if wish.limits is not None:
        told = "the server's advisories"
        await _make(settings.advisory_stream, told, ensure_advisory_stream(js, names))


async def _make(stream: str, kept: str, making: Awaitable[object]) -> None:
    try:
        await making
    except JetStreamError as error:
        raise StreamError(
            f"The stream {stream}, which stores {kept}, could not be created: {error}."
        ) from error


async def _count(settings: Settings, client: Client, adoption: Adoption | None = None) -> None:
    """The bridge will also do it soon, so an error here is only logged."""
    anew = [(adoption.stream, adoption.consumer)] if adoption else []
    try:
        await publish_totals(client, settings, anew=anew)
    except (DLQError, nats.errors.Error, JetStreamError) as error:
        logger.warning("The totals begin with the next run of the bridge: %s", error)
