"""The complete job that copies failed events to another NATS: masked, or raw by right."""

import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.errors import RedriveError
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jobs.payloads import reading_raw
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.reproduce.elsewhere import (
    Copy,
    Publisher,
    check_elsewhere,
    masked_copy,
    raw_copy,
)
from sahool_dlq.reproduce.export import selected_events, selected_places
from sahool_dlq.reproduce.raw import AT_ONCE, Missing
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.audit import audit

__all__ = ["CopyReport", "copy_events", "count_copies"]


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied."""

    copy_id: str  # of this run, in the audit
    target: str
    is_masked: bool
    copied: dict[str, int]  # by subject
    left_out: dict[str, int]  # by reason
    limit_reached: bool = False  # more may match

    @property
    def count(self) -> int:
        """The copied events."""
        return sum(self.copied.values())


def count_copies(
    settings: Settings, selection: Selection, *, is_raw: bool
) -> tuple[dict[str, int], dict[str, int]]:
    """The events that would be copied, by subject, and those left out, by reason; as of the last
    drain.
    """
    copied: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    with open_postgres(settings) as connection:
        for part in selected_events(connection, selection):
            for row in part:
                found = masked_copy(row)
                if isinstance(found, Missing) and not is_raw:
                    left_out[found.reason] += 1
                else:
                    copied[row[1]] += 1
    return dict(copied.most_common()), dict(left_out.most_common())


async def copy_events(
    settings: Settings,
    selection: Selection,
    access: Access,
    *,
    target: str,
    actor: str,
    reason: str,
    is_raw: bool = False,
    subject: str | None = None,
    per_second: float | None = None,
) -> CopyReport:
    """Publish the events of a selection to another NATS, whatever the failures' status.

    Nothing is written to the log, so no case changes. Each failure is in the audit before its event
    is copied. `target` names the NATS in the audit; `subject` replaces the events' own. Raises
    RedriveError without a reason, or if it is the same NATS; for raw events as `reading_raw` does.
    """
    if not reason.strip():
        raise RedriveError("Give a reason: it is stored in the audit.")
    copy_id = str(uuid.uuid4())
    actor, reason = settings.masked(actor), settings.masked(reason)
    detail = {
        "to": target,
        "masked": not is_raw,
        "selection": selection.masked(settings.masked).as_json(),
        **({"redirect_to": subject} if subject else {}),
    }
    rate = per_second or settings.redrive_per_second
    async with (
        open_nats(settings, "dlq redrive") as here,
        connected(access, "dlq redrive") as there,
    ):
        await check_elsewhere(settings, here, there)
        publisher = Publisher(there, settings.subjects, copy_id, subject, rate)
        with open_postgres(settings) as auditing, open_postgres(settings) as connection:
            try:
                if is_raw:
                    await _raw(settings, connection, selection, publisher, detail, actor, reason)
                else:
                    for rows in selected_events(connection, selection):
                        part = [masked_copy(row) for row in rows]
                        ids = [each.failure_id for each in part if isinstance(each, Copy)]
                        audit(
                            auditing,
                            "redrive.copied",
                            actor=actor,
                            reason=reason,
                            batch_id=copy_id,
                            failure_ids=ids,
                            detail={"failures": len(ids), **detail},
                        )
                        await publisher.publish(part)
            finally:
                told = _told(publisher)
                audit(
                    auditing,
                    "redrive.copied.done",
                    actor=actor,
                    reason=reason,
                    batch_id=copy_id,
                    detail=detail | told,
                )
    found = publisher.copied.total() + publisher.left_out.total()
    return CopyReport(copy_id, target, not is_raw, **told, limit_reached=found >= selection.limit)


async def _raw(
    settings: Settings,
    connection: Connection[Any],
    selection: Selection,
    publisher: Publisher,
    detail: dict[str, Any],
    actor: str,
    reason: str,
) -> None:
    async with reading_raw(settings, "payload.copied", actor=actor, reason=reason) as reading:
        for part in selected_places(connection, selection):
            waiting: list[Copy | Missing] = []
            async for found in reading.each([place for place, _ in part], detail):
                waiting.append(found if isinstance(found, Missing) else raw_copy(found))
                if len(waiting) == AT_ONCE:
                    await publisher.publish(waiting)
                    waiting = []
            await publisher.publish(waiting)


def _told(publisher: Publisher) -> dict[str, dict[str, int]]:
    return {
        "copied": dict(publisher.copied.most_common()),
        "left_out": dict(publisher.left_out.most_common()),
    }
