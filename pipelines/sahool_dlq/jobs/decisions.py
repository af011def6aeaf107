"""The complete jobs for people's decisions about failures, and for their history.

A decision is in the audit before it is in the log, and drained before its job returns.
"""

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.deadletter.ids import is_uuid
from sahool_dlq.errors import RedriveError, UnknownNameError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.redrive.batches import find_batch
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.decisions import (
    Affected,
    Decision,
    DecisionReport,
    affected,
    newest_closed,
    publish_decision,
)
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.audit import audit, audited

_GROUP = re.compile("[0-9a-f]{16}")


def preview_decision(
    settings: Settings, selection: Selection, decision: Decision
) -> tuple[list[Affected], dict[str, str]]:
    """What a decision would change, and which given ids it would not; changes nothing."""
    with open_postgres(settings) as connection:
        return affected(connection, selection, decision)


async def decide(
    settings: Settings,
    selection: Selection,
    decision: Decision,
    *,
    actor: str,
    reason: str,
    in_version: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DecisionReport:
    """Drain, publish the decision for every failure that it changes, drain again.

    It is in the audit before it is in the log. With `in_version`, the group counts as repaired in
    that version of its services, also if nothing of it is open. Raises RedriveError without a
    reason, and for a version without a group.
    """
    if not reason.strip():
        raise RedriveError("Give a reason: it is stored with the failure and in the audit.")
    if in_version is not None and not (in_version.strip() and selection.group_id):
        raise RedriveError("A version repairs a group: give --group, and the version as in 2.4.")
    started, actor, reason = time.monotonic(), settings.masked(actor), settings.masked(reason)
    await drain_log(settings)
    decision_id = uuid.uuid4()
    with open_postgres(settings) as connection:
        found, left = affected(connection, selection, decision)
        ids = [each.failure_id for each in found]
        closed = newest_closed(connection, selection, found) if in_version else []
        if in_version and not ids + closed:
            raise RedriveError("No failure matches, so the version cannot be stored with any.")
        if ids or closed:
            audit(
                connection,
                f"triage.{decision}",
                actor=actor,
                reason=reason,
                batch_id=str(decision_id),
                failure_ids=[*ids, *closed],
                detail={
                    "selection": selection.masked(settings.masked).as_json(),
                    "failures": len(ids),
                    **({"in_version": settings.masked(in_version)} if in_version else {}),
                },
            )
            async with open_nats(settings, "dlq") as client:
                await publish_decision(
                    client.jetstream(),
                    settings.subjects,
                    [*ids, *closed],
                    decision,
                    decision_id=decision_id,
                    actor=actor,
                    reason=reason,
                    in_version=in_version,
                    progress=(lambda done: progress(done, len(ids))) if progress else None,
                )
            await drain_log(settings)
        status = "pending" if decision == "unparked" else decision
        row = connection.execute(
            "SELECT count(*) FROM failed_events WHERE id = ANY(%s::uuid[]) AND status = %s",
            [ids, status],
        ).fetchone()
        changed = row[0] if row else 0
        if ids or closed:
            audit(
                connection,
                f"triage.{decision}.done",
                actor=actor,
                batch_id=str(decision_id),
                detail={"failures": len(ids), "changed": changed},
            )
    groups, seconds = Counter(each.group_id for each in found), time.monotonic() - started
    is_cut = len(ids) >= selection.limit
    return DecisionReport(
        decision, changed, dict(groups), left, round(seconds, 3), is_cut, in_version
    )


def audit_trail(
    settings: Settings,
    *,
    about: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """The latest rows of the audit, newest first.

    `about` is a failure's id, or a batch's or its first digits, or a group's.
    """
    with open_postgres(settings) as connection:
        if about is not None and _GROUP.fullmatch(about):
            return audited(connection, group=about, actor=actor, action=action, limit=limit)
        if about is not None and not is_uuid(about):
            try:
                about = find_batch(connection, about).id
            except (RedriveError, UnknownNameError):
                raise UnknownNameError(
                    f"{about!r} is not an id of a failure, of one batch or of a group."
                ) from None
        return audited(connection, about=about, actor=actor, action=action, limit=limit)
