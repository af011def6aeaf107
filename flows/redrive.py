"""redrive-transient and redrive: bring back what can be cured."""

from datetime import datetime
from typing import Annotated, Any

from prefect import State, flow
from pydantic import Field

from sahool_dlq.alerts.text import quantity
from sahool_dlq.jobs.redrive import (
    approve,
    plan_redrive,
    redrive,
    reject,
    run_redrive,
    show_batch,
    transient_selection,
)
from sahool_dlq.orchestration.approval import (
    ask,
    batch_of_this_run,
    plan_as_markdown,
    remember_batch,
)
from sahool_dlq.orchestration.show import happened, markdown, progress, table, told
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.settings import load_settings


@flow(name="redrive-transient", flow_run_name="redrive-transient", timeout_seconds=3600)
async def redrive_transient() -> State:
    """Publish failures that may pass by themselves again, to the consumer that failed.

    Takes the error types of DLQ_TRANSIENT_ERROR_TYPES (TimeoutError and ConnectionError), and
    whatever a monitor asked for once it is due. Of the former only what the policy says pays
    (`dlq policy`). Each group ramps 1, 10, all, and stops where nothing succeeds.
    """
    settings = load_settings()
    report = await redrive(
        settings,
        transient_selection(settings),
        trigger="automatic",
        requested_by="redrive-transient",
        reason="scheduled redrive of transient errors",
    )
    return await _told(report)


@flow(name="redrive", flow_run_name="redrive", persist_result=True, timeout_seconds=3600)
async def redrive_selected(
    reason: Annotated[str, Field(min_length=3)],
    requested_by: Annotated[str, Field(min_length=1)],
    failure_ids: list[str] | None = None,
    group_id: str | None = None,
    error_type: str | None = None,
    service: str | None = None,
    tenant_id: str | None = None,
    event_type: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    where: str | None = None,
    limit: Annotated[int, Field(ge=1)] = 10_000,
    redirect_to: str | None = None,
    edit: dict[str, Any] | None = None,
    per_second: Annotated[float, Field(gt=0)] | None = None,
    addressed_to: str | None = None,
    max_age_seconds: Annotated[float, Field(gt=0)] | None = None,
    own_copy: bool = False,
) -> State:
    """Publish the failures that a person selected again, to the consumers that failed.

    Every condition that is given must hold. Each group ramps 1, 10, all, and stops where nothing
    succeeds. More than DLQ_REDRIVE_APPROVAL_COUNT wait until somebody has approved their plan.

    Args:
        reason: Why; kept with the batch.
        requested_by: Your name; self-declared.
        failure_ids: These failures, parked ones too.
        group_id: A failure group, as the groups table shows it.
        error_type: Class name of the exception; its known subclasses are taken too.
        service: The service that failed.
        tenant_id: Only events of this tenant.
        event_type: Last token of the event's subject.
        subject: The event's subject, or a filter such as sahool.analysis.*
        since: Failed then or later.
        until: Failed before then.
        where: A condition over documented columns, such as data.crop = 'wheat'.
        limit: At most so many, the oldest.
        redirect_to: Publish to this subject instead of the events' own.
        edit: JSON merge patch of the events' bodies; the original is kept.
        per_second: Redrives a second; empty leaves it to the budget.
        addressed_to: The consumer, STREAM/CONSUMER, that takes the place of those that failed.
        max_age_seconds: Events that are older are left out and parked; empty takes any age.
        own_copy: Also publish events that their stream has lost, as their dead letters hold them.
    """
    selection = Selection(
        failure_ids=tuple(failure_ids or ()),
        group_id=group_id,
        error_types=(error_type,) if error_type else (),
        service=service,
        tenant_id=tenant_id,
        event_type=event_type,
        subject=subject,
        since=since,
        until=until,
        where=where,
        limit=limit,
    )
    order = Order(
        "manual",
        requested_by,
        reason,
        redirect_to,
        edit,
        per_second,
        addressed_to,
        max_age_seconds,
        own_copy,
    )
    return await _carry_out(selection, order)


async def _carry_out(selection: Selection, order: Order) -> State:
    """Freeze the batch, have it approved where it is large, run it.

    A run that was suspended, or crashed and is retried, goes on with the batch that it froze.
    """
    settings = load_settings()
    batch_id, shown = await batch_of_this_run(), ""
    if batch_id is None:
        planned = await plan_redrive(settings, selection, order)
        if planned is None:
            return await told("nothing to do", "Nothing to redrive")
        batch_id, shown = planned[0].id, plan_as_markdown(planned[1].as_dict())
        await remember_batch(batch_id)
        await markdown("redrive-plan", shown, "What the batch publishes.")
    batch = show_batch(settings, batch_id)
    if batch.state == "awaiting_approval":
        answer = await ask(shown or f"**{batch.planned:,} redrives.**")
        if not answer.approve:
            reject(settings, batch_id, by=answer.decided_by, reason=answer.comment or None)
            said = settings.masked(
                f"Rejected by {answer.decided_by}: {answer.comment or 'no comment'}"
            )
            return await told("rejected", said, state="Rejected")
        approve(settings, batch_id, by=answer.decided_by, reason=answer.comment or None)
    async with progress("Redriving") as move:
        report = await run_redrive(
            settings, batch_id, lambda outcomes, count: move(outcomes.total(), count)
        )
    return await _told(report)


async def _told(report: RedriveReport | None) -> State:
    if report is None:
        return await told("nothing to do", "Nothing to redrive")
    await table("redrives", [{"outcome": k, "redrives": n} for k, n in report.outcomes.items()])
    outcomes = ", ".join(f"{n:,} {state}" for state, n in report.outcomes.items()) or "no outcome"
    stopped_count = quantity(len(report.stopped_groups), "groups")
    stopped = f"; {stopped_count} stopped" if report.stopped_groups else ""
    if report.state in ("paused", "cancelled"):
        stopped += f"; {report.state} by a person"
    if report.stopped_groups:
        batch = f"dlq.redrive.{report.batch_id}"
        happened("dlq.redrive.aborted", batch, report.batch_id, report.as_dict())
    return await told(
        f"{report.planned:,}, {outcomes}",
        f"Redrove {report.planned:,}: {outcomes}{stopped}",
        report.as_dict(),
    )
