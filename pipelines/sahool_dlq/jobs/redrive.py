"""The complete jobs of a redrive: a flow, a verb of `dlq` or a notebook calls them.

A redrive has steps, and each may be the last of a run: `preview_redrive` (changes nothing),
`plan_redrive` (stores a batch), `run_redrive`. Between them a person may approve, pause or cancel
the batch (`jobs.batches`). `redrive` does all of them for callers that need no approval. Jobs drain
before, to see the current state, and after, so that their effect is visible when they return.
Their parts are named steps, which a caller may show (`redrive.steps`).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from psycopg import Connection

from sahool_dlq.bridge.run import bridging
from sahool_dlq.connections import open_lock, open_nats, open_postgres
from sahool_dlq.deadletter.cases import opening_and_nth
from sahool_dlq.deadletter.record import BRIDGED_REASONS
from sahool_dlq.deadletter.replays import ReplayedEvent
from sahool_dlq.errors import BusyError, QueryError, RedriveError, UnknownNameError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.redrive.batches import Batch, find_batch, unfinished_batches
from sahool_dlq.redrive.choose.backtest import BacktestReport, Outcome, backtest
from sahool_dlq.redrive.choose.plan import Order, Plan, freeze, plan
from sahool_dlq.redrive.choose.policy import Cell, Policy
from sahool_dlq.redrive.choose.schedule import (
    Judged,
    changed_redrives,
    judged,
    learn,
    plan_scheduled,
    policy_of,
)
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.edit.patch import edit_of
from sahool_dlq.redrive.origin import RefusedError
from sahool_dlq.redrive.preview import Preview, preview
from sahool_dlq.redrive.publish.ramp import Progress as RedriveProgress
from sahool_dlq.redrive.publish.ramp import RedriveReport, run_batch
from sahool_dlq.redrive.publish.unfollowed import follow_again, has_unfollowed
from sahool_dlq.redrive.reach import unreached_addressees
from sahool_dlq.redrive.replay.selection import ReplaySelection
from sahool_dlq.redrive.steps import Step, plainly
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.addressees import FAILED_AT
from sahool_dlq.stores.postgres.lock import Lock

_BEFORE = "Drain what came before"
_AFTER = "Settle: drain the outcomes"


async def preview_redrive(
    settings: Settings,
    selection: Selection,
    *,
    redirect_to: str | None = None,
    patch: Any = None,
    per_second: float | None = None,
    addressed_to: str | None = None,
    max_age_seconds: float | None = None,
) -> Preview:
    """What a redrive of this selection would do, as of the last drain; changes nothing."""
    order = Order("manual", "", "", redirect_to, patch, per_second, addressed_to, max_age_seconds)
    with open_postgres(settings) as connection:
        planned = await _plan(settings, connection, selection)
        return await _preview(settings, connection, planned, order)


async def plan_redrive(
    settings: Settings, selection: Selection, order: Order, step: Step = plainly
) -> tuple[Batch, Preview] | None:
    """Drain, plan and store the batch; None if there is nothing to redrive.

    The batch is `planned`, or `awaiting_approval` if a person requested more redrives than
    DLQ_REDRIVE_APPROVAL_COUNT.
    """
    await step(_BEFORE, partial(drain_log, settings), is_repeatable=True)
    return await step("Plan", partial(_plan_by_hand, settings, selection, order))


async def _plan_by_hand(
    settings: Settings, selection: Selection, order: Order
) -> tuple[Batch, Preview] | None:
    with open_postgres(settings) as connection:
        planned = await _plan(settings, connection, selection)
        if not planned.count:
            return None
        shown = await _preview(settings, connection, planned, order)
        order = _as_edited(order, shown)
        batch_id = store_batch(settings, connection, planned, selection, order)
        return find_batch(connection, batch_id), shown


async def run_redrive(
    settings: Settings,
    batch_id: str,
    progress: RedriveProgress | None = None,
    step: Step = plainly,
) -> RedriveReport:
    """Execute a batch that was planned, approved, resumed, or left by a killed run.

    It drains before, for outcomes since the last run, and afterwards. Other unfinished batches are
    finished first. A batch that has ended is only reported. Raises RedriveError if it waits for a
    person, or if another redrive is running: then the batch stays stored, and the next redrive
    continues it.
    """
    await step(_BEFORE, partial(drain_log, settings), is_repeatable=True)
    with open_postgres(settings) as connection:
        batch = find_batch(connection, batch_id)
        with _one_redriver(settings) as lock:
            for left_over in await _left_over(settings, connection, lock):
                if left_over != batch.id:
                    await _run(settings, connection, lock, left_over, None, step)
            report = await _run(settings, connection, lock, batch.id, progress, step)
    await step(_AFTER, partial(drain_log, settings), is_repeatable=True)
    return report


async def redrive(
    settings: Settings,
    selection: Selection,
    *,
    trigger: str,
    requested_by: str,
    reason: str,
    redirect_to: str | None = None,
    patch: Any = None,
    per_second: float | None = None,
    addressed_to: str | None = None,
    max_age_seconds: float | None = None,
    own_copy: bool | None = None,
    progress: RedriveProgress | None = None,
    step: Step = plainly,
) -> RedriveReport | None:
    """Drain, plan, publish and follow, drain again; None if there was nothing to redrive.

    A batch that an earlier run left unfinished is finished first. A batch that needs approval is
    only stored: its report says `awaiting_approval`. Without `own_copy`, an event that its stream
    no longer has is published only by hand, or if DLQ_REDRIVE_OWN_COPIES is set.
    """
    is_by_hand = trigger == "manual"
    order = Order(
        trigger,
        requested_by,
        reason,
        redirect_to,
        patch,
        per_second,
        addressed_to,
        max_age_seconds,
        (is_by_hand or settings.redrive_own_copies) if own_copy is None else own_copy,
    )
    await step(_BEFORE, partial(drain_log, settings), is_repeatable=True)
    with (
        open_postgres(settings) as connection,
        _one_redriver(settings) as lock,
    ):
        left_over = await _left_over(settings, connection, lock)
        for batch_id in left_over:
            await _run(settings, connection, lock, batch_id, progress, step)
        if left_over:
            await step(_BEFORE, partial(drain_log, settings), is_repeatable=True)
        planned = await step("Plan", partial(_plan, settings, connection, selection))
        if not planned.count:
            return None
        if redirect_to is not None or patch:
            order = _as_edited(order, await _preview(settings, connection, planned, order))
        batch = find_batch(connection, store_batch(settings, connection, planned, selection, order))
        if batch.state == "awaiting_approval":
            return RedriveReport(batch.id, batch.kind, batch.planned, state=batch.state)
        report = await _run(settings, connection, lock, batch.id, progress, step)
    await step(_AFTER, partial(drain_log, settings), is_repeatable=True)
    return report


def known_group(settings: Settings, prefix: str) -> str:
    """The id of the group that begins with this; raises UnknownNameError for none, QueryError for
    several.
    """
    found: list[str] = []
    if re.fullmatch("[0-9a-f]{1,16}", prefix.lower()):
        with open_postgres(settings) as connection:
            rows = connection.execute(
                "SELECT DISTINCT group_id FROM failed_events WHERE group_id LIKE %s LIMIT 3",
                [f"{prefix.lower()}%"],
            )
            found = [group for (group,) in rows]
    if not found:
        raise UnknownNameError(f"There is no group {prefix!r}: `dlq groups` lists them.")
    if len(found) > 1:
        raise QueryError(f"Several groups begin with {prefix!r}: {', '.join(found)}.")
    return found[0]


def transient_selection(settings: Settings) -> Selection:
    """The selection of the scheduled redrive: transient failures, and due requests."""
    return Selection(error_types=tuple(settings.transient_error_types), due_at=datetime.now(UTC))


def explain_policy(
    settings: Settings, selection: Selection | None = None, policy: Policy | None = None
) -> list[Judged]:
    """The policy's decisions about pending failures in a selection, and why; changes nothing."""
    now, policy = datetime.now(UTC), policy or policy_of(settings)
    with open_postgres(settings) as connection:
        history = learn(connection, now, policy)
        chosen = selection or transient_selection(settings)
        return judged(connection, chosen, history, now)


def backtest_policy(settings: Settings, policy: Policy | None = None) -> BacktestReport:
    """What a policy would have done with the past redrives in the lake.

    Those with an edit or redirect are left out; PostgreSQL knows which.
    """
    with open_postgres(settings) as connection:
        others = changed_redrives(connection)
    rows = query(
        settings,
        "SELECT failure_id, group_id, error_class, attempt, has_succeeded,"
        " coalesce(published_at, ended_at), ended_at FROM redrives"
        " WHERE has_succeeded IS NOT NULL",
    ).rows()
    outcomes = [
        Outcome(
            failure,
            Cell(group or "", error, opening_and_nth(attempt)[1]),
            is_success,
            published_at,
            ended_at,
        )
        for failure, group, error, attempt, is_success, published_at, ended_at in rows
        if (failure, attempt) not in others
    ]
    return backtest(outcomes, policy or policy_of(settings))


async def _plan(settings: Settings, connection: Connection[Any], selection: Selection) -> Plan:
    if selection.due_at is None:
        return plan(connection, selection)
    async with open_nats(settings, "dlq redrive") as client:
        unreached = await unreached_addressees(client.jetstream(), connection)
    return plan_scheduled(connection, selection, policy_of(settings), selection.due_at, unreached)


async def _preview(
    settings: Settings,
    connection: Connection[Any],
    planned: Plan,
    order: Order,
) -> Preview:
    async with open_nats(settings, "dlq redrive") as client:
        try:
            return await preview(settings, client, connection, planned, _limited(settings, order))
        except RefusedError as error:
            raise RedriveError(f"The redirect is refused: {error}.") from error


def _as_edited(order: Order, shown: Preview) -> Order:
    """The order with its edit as shown; raises RedriveError if that does not fit all events."""
    if shown.edits and (refused := shown.edits.refused):
        told = "; ".join(f"{failure}: {why}" for failure, why in list(refused.items())[:5])
        raise RedriveError(
            f"The edit does not fit {len(refused):,} of {shown.edits.events:,} events, so nothing"
            f" is published: {told}. Change the edit, or select other failures."
        )
    return replace(order, patch=shown.patch)


def _limited(settings: Settings, order: Order) -> Order:
    """With the maximum age of the settings, if the order has none."""
    return replace(order, max_age_seconds=order.max_age_seconds or settings.redrive_max_age_seconds)


def store_batch(
    settings: Settings,
    connection: Connection[Any],
    planned: Plan,
    selection: Selection | ReplaySelection,
    order: Order,
    replayed: Sequence[ReplayedEvent] = (),
) -> str:
    """Store a batch as `freeze` does, with masked texts and the limits of the settings."""
    selection = selection.masked(settings.masked)
    order = replace(
        _limited(settings, order),
        requested_by=settings.masked(order.requested_by),
        reason=settings.masked(order.reason),
    )
    most = settings.redrive_approval_count
    is_large = order.trigger == "manual" and 0 < most < planned.count
    redactor = settings.redactor(settings.rules)
    shown = edit_of(order.patch).shown(redactor) if order.patch else None
    return freeze(
        connection,
        planned,
        selection,
        order,
        needs_approval=order.needs_approval or is_large,
        shown_patch=shown,
        replayed=replayed,
    )


async def _left_over(settings: Settings, connection: Connection[Any], lock: Lock) -> list[str]:
    """The batches to finish first, and one with redrives that nobody follows."""
    if has_unfollowed(connection):
        await drain_log(settings)  # then outcomes that another redriver followed are stored
        lock.check()
        follow_again(connection)
    return unfinished_batches(connection)


async def _run(
    settings: Settings,
    connection: Connection[Any],
    lock: Lock,
    batch_id: str,
    progress: RedriveProgress | None,
    step: Step,
) -> RedriveReport:
    foreign = connection.execute(
        "SELECT FROM redrives r JOIN redrive_roots f ON f.id = r.failure_id"  # noqa: S608
        " WHERE r.batch_id = %s AND (f.dlq_reason = ANY(%s)"
        f" OR r.addressed_to IS DISTINCT FROM {FAILED_AT}) LIMIT 1",
        [batch_id, list(BRIDGED_REASONS)],
    ).fetchone()
    # Otherwise failures of consumers without our library would not be noticed.
    async with bridging(settings) if foreign is not None else nullcontext():
        return await run_batch(settings, lock, batch_id, progress, step)


@contextmanager
def _one_redriver(settings: Settings) -> Iterator[Lock]:
    """Two redrives at once would continue each other's batches."""
    with open_lock(settings, "redrive") as lock:
        if not lock.take():
            raise BusyError(
                f"Another redrive is running ({lock.held_by()}): try again when it has ended. "
                "The next redrive also continues a batch that is already stored."
            )
        yield lock
