"""`dlq erase`: permanently deletes a tenant's data in the log, the lake and PostgreSQL.

Tombstones come first (`stores.erased`): once they are written, nothing stores the messages again,
and each later step uses them to find the rest. So an erasure may die at any point, and a rerun
finishes it. Lake and PostgreSQL are done under the drain's lock, the stream after that. Later
failures of the tenant are stored.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.connections import find_log, open_lock, open_nats, open_postgres
from sahool_dlq.deadletter.sanitize import clean_text
from sahool_dlq.drain.lock import alone
from sahool_dlq.erasure.find_tenant import belongings
from sahool_dlq.erasure.from_lake import erase_marts, erase_rows
from sahool_dlq.erasure.from_postgres import count_rows, delete_rows
from sahool_dlq.erasure.from_stream import erase_messages, erase_objects
from sahool_dlq.errors import ErasureError, FencedError
from sahool_dlq.jetstream.reader import LogState, log_state
from sahool_dlq.jetstream.streams import BODIES_BUCKET
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import LOG_TABLES, Lake
from sahool_dlq.stores.platform import check_owner
from sahool_dlq.stores.tombstones import (
    copy_to_lake,
    erased_messages,
    finish,
    is_unfinished,
    recall,
    remember,
    tenant_hash,
)

__all__ = ["COUNTED", "ErasureReport", "erase", "preview"]

_AT_ONCE = 500  # messages; NATS deletes some hundred in a second
_TRIES = 5  # tries to rewrite a table, which a compaction may rewrite meanwhile


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What was erased, or would be."""

    tenant_hash: str
    stream: str
    last_sequence: int  # of the stream; what comes later stays
    stream_dead_letters: int
    stream_case_events: int
    object_bodies: int  # in the object store
    lake_dead_letters: int
    lake_case_events: int
    unread_dead_letters: int  # unreadable ones without a tenant; they stay
    failures: dict[str, int]  # rows of failed_events by status
    payloads: int  # raw dead letters in failed_payloads
    redrives: int  # rows of the outbox
    batches: int  # batches of redrives without other failures
    alert_messages: int  # alert messages that quoted one of the failures
    audit_mentions: int  # rows of the audit that name the tenant; they stay
    erasure: str | None = None  # its id; None of a preview
    left: str | None = None  # what is still in the stream, and why
    is_unfinished: bool = False  # whether an earlier one is unfinished

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to erase."""
        counts = (getattr(self, name) for name in COUNTED)
        return not self.is_unfinished and not any(counts)


COUNTED = {
    "stream_dead_letters": "dead letters in the stream",
    "stream_case_events": "news of them in the stream",
    "object_bodies": "bodies in the object store",
    "lake_dead_letters": "dead letters in the lake",
    "lake_case_events": "news of them in the lake",
    "failures": "rows of failed_events",
    "payloads": "raw dead letters in failed_payloads",
    "redrives": "redrives in the outbox",
    "batches": "batches of redrives",
    "alert_messages": "messages of alerts that quote them",
}
"""The erased things, by field of the report."""


async def preview(settings: Settings, tenant: str) -> ErasureReport:
    """What an erasure would find; changes nothing."""
    tenant = _checked(tenant)
    async with open_nats(settings, "dlq erase") as client:
        state = await find_log(client, settings)
        with open_postgres(settings) as connection:
            found = await belongings(settings, client, connection, state, tenant)
            rows = await asyncio.to_thread(count_rows, connection, tenant)
            hashed = _hashed(settings, tenant)
            return ErasureReport(
                tenant_hash=hashed,
                stream=state.stream,
                last_sequence=state.last_sequence,
                **found.counts,
                **rows,
                is_unfinished=is_unfinished(connection, hashed),
            )


async def erase(
    settings: Settings,
    tenant: str,
    build_marts: Callable[[], object],
    *,
    actor: str,
    reason: str,
    tell: Callable[[str], object] = lambda _: None,
) -> ErasureReport:
    """Erase a tenant's messages up to the stream's last one; `build_marts` computes the marts
    again.

    Raises ErasureError for an invalid tenant or reason, FencedError if others rewrite the lake all
    the time. Messages that NATS does not delete are in `left`; everything else is done then.
    """
    tenant = _checked(tenant, reason)
    actor, reason = settings.masked(actor), settings.masked(reason)
    hashed = _hashed(settings, tenant)
    async with open_nats(settings, "dlq erase") as client:
        stream = (await find_log(client, settings)).stream
        with open_postgres(settings) as connection:
            async with alone(settings, connection, stream):
                state = await log_state(client, stream, settings.subjects.log)
                live = partial(_show_life, connection, stream)
                check_owner(connection, Lake(settings.lake))
                tell("looking for it")
                await asyncio.to_thread(recall, connection, Lake(settings.lake))
                found = await belongings(settings, client, connection, state, tenant, live)
                erasure = remember(
                    connection,
                    found.messages,
                    hashed_tenant=hashed,
                    stream=stream,
                    last_sequence=state.last_sequence,
                    actor=actor,
                    reason=reason,
                )
                tell("bodies in the object store")
                # Before the dead letters, because these name the objects.
                left = await erase_objects(client, BODIES_BUCKET, found.objects, live)
                tell("the lake")
                await asyncio.to_thread(_from_lake, settings, connection, live)
                tell("Postgres")
                detail = {"erasure": erasure, "tenant_hash": hashed, **found.counts}
                delete = partial(delete_rows, actor=actor, reason=reason, detail=detail)
                rows = await asyncio.to_thread(delete, connection, tenant)
            tell("the marts")
            await asyncio.to_thread(build_marts)
            # NATS is slow at this: drains continue meanwhile.
            left = left or await _from_stream(client, settings, state, found.in_stream, tell)
            if left is None:
                finish(connection, erasure)
    return ErasureReport(
        tenant_hash=hashed,
        stream=stream,
        last_sequence=state.last_sequence,
        **found.counts,
        **rows,
        erasure=erasure,
        left=left and f"NATS keeps some of {len(found.in_stream):,} messages ({left})",
    )


async def _from_stream(
    client: Client,
    settings: Settings,
    state: LogState,
    sequences: Sequence[int],
    tell: Callable[[str], object],
) -> str | None:
    """Delete messages from the unchanged stream; returns the reason of a refusal, None if all are
    deleted.
    """
    for start in range(0, len(sequences), _AT_ONCE):
        tell(f"the stream, {start:,} of {len(sequences):,} messages")
        now = await log_state(client, state.stream, settings.subjects.log)
        if now.created != state.created:  # other messages have these sequences
            return "the stream was created again meanwhile"
        if refusal := await erase_messages(client, state.stream, sequences[start:][:_AT_ONCE]):
            return refusal
    return None


def _from_lake(settings: Settings, connection: Connection[Any], live: Callable[[], object]) -> None:
    """Nobody may build marts meanwhile, because they would count rows that they read before."""
    lake, erased = Lake(settings.lake), erased_messages(connection)
    copy_to_lake(connection, lake, datetime.now(UTC))
    with open_lock(settings, "marts") as lock:
        lock.wait("The erasure", live)
        for name in LOG_TABLES:
            for attempt in range(_TRIES):
                try:
                    erase_rows(lake.table(name), erased, datetime.now(UTC), live)
                    break
                except FencedError:
                    if attempt == _TRIES - 1:
                        raise
        erase_marts(lake)


def _show_life(connection: Connection[Any], stream: str) -> None:
    """Show progress, because waiting drains end a session without progress; see `lock`."""
    connection.execute(
        "UPDATE drain_checkpoints SET updated_at = now() WHERE stream = %s", [stream]
    )


def _checked(tenant: str, reason: str | None = None) -> str:
    """The tenant's id as decoding gives it."""
    if not tenant.strip():
        raise ErasureError("--tenant is empty: say whose failures are to be erased.")
    if reason is not None and not reason.strip():
        raise ErasureError("A reason is missing: give --reason. It is stored in the audit.")
    if reason is not None and re.search(rf"(?<!\w){re.escape(tenant)}(?!\w)", reason):
        raise ErasureError(
            "The reason names the tenant, and the audit keeps it for ever: leave the id out."
        )
    return clean_text(tenant)


def _hashed(settings: Settings, tenant: str) -> str:
    key = settings.redaction_key
    return tenant_hash(tenant, key.get_secret_value() if key else None)
