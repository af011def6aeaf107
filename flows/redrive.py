"""redrive-transient and redrive: bring back what can be cured."""

from datetime import datetime
from typing import Annotated, Any

from prefect import State, flow
from prefect.states import Completed
from pydantic import Field

from flows.show import progress_artifact, table
from pipelines.redrive.run import RedriveReport
from pipelines.redrive.selection import Selection
from pipelines.redrive_jobs import redrive, transient_selection
from pipelines.settings import load_settings


@flow(name="redrive-transient", timeout_seconds=3600)
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


@flow(name="redrive", timeout_seconds=3600)
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
    limit: Annotated[int, Field(ge=1)] = 1_000,
    redirect_to: str | None = None,
    edit: dict[str, Any] | None = None,
    per_second: Annotated[float, Field(gt=0)] | None = None,
) -> State:
    """Publish the failures that a person selected again, to the consumers that failed.

    Every condition that is given must hold. Each group ramps 1, 10, all, and stops where nothing
    succeeds. A batch above DLQ_REDRIVE_APPROVAL_COUNT waits for an approval.

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
    move = await progress_artifact("Redriving")
    report = await redrive(
        load_settings(),
        selection,
        trigger="manual",
        requested_by=requested_by,
        reason=reason,
        redirect_to=redirect_to,
        patch=edit,
        per_second=per_second,
        progress=lambda done, total: move(sum(done.values()), total),
    )
    return await _told(report)


async def _told(report: RedriveReport | None) -> State:
    if report is None:
        return Completed(message="Nothing to redrive")
    if report.state == "awaiting_approval":
        return Completed(
            message=f"{report.planned:,} wait for: dlq batches approve {report.batch_id}",
            data=report.as_dict(),
        )
    await table("redrives", [{"outcome": k, "redrives": n} for k, n in report.outcomes.items()])
    outcomes = ", ".join(f"{n:,} {state}" for state, n in report.outcomes.items())
    stopped = f"; {len(report.stopped_groups)} groups stopped" if report.stopped_groups else ""
    return Completed(
        message=f"Redrove {report.planned:,}: {outcomes or 'no outcome'}{stopped}",
        data=report.as_dict(),
    )
