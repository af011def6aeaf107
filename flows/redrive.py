"""redrive-transient and redrive: bring back what can be cured."""

from typing import Annotated

from prefect import State, flow
from prefect.states import Completed
from pydantic import Field

from flows.show import table
from pipelines.redrive.run import RedriveReport
from pipelines.redrive.selection import Selection
from pipelines.redrive_jobs import redrive, transient_selection
from pipelines.settings import load_settings


@flow(name="redrive-transient", timeout_seconds=3600)
async def redrive_transient() -> State:
    """Publish failures that may pass by themselves again, to the consumer that failed.

    Takes the error types of DLQ_TRANSIENT_ERROR_TYPES (TimeoutError and ConnectionError), and
    whatever a monitor asked for once it is due. Each group ramps 1, 10, all, and stops where
    nothing succeeds.
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
    group_id: str | None = None,
    error_type: str | None = None,
    service: str | None = None,
    tenant_id: str | None = None,
    limit: Annotated[int, Field(ge=1)] = 1_000,
) -> State:
    """Publish the failures that a person selected again, to the consumers that failed.

    Every condition that is given must hold. Each group ramps 1, 10, all, and stops where nothing
    succeeds.

    Args:
        reason: Why; kept with the batch.
        requested_by: Your name; self-declared.
        group_id: A failure group, as the groups table shows it.
        error_type: Class name of the exception; its known subclasses are taken too.
        service: The service that failed.
        tenant_id: Only events of this tenant.
        limit: At most so many.
    """
    selection = Selection(
        group_id=group_id,
        error_types=(error_type,) if error_type else (),
        service=service,
        tenant_id=tenant_id,
        limit=limit,
    )
    report = await redrive(
        load_settings(),
        selection,
        trigger="manual",
        requested_by=requested_by,
        reason=reason,
    )
    return await _told(report)


async def _told(report: RedriveReport | None) -> State:
    if report is None:
        return Completed(message="Nothing to redrive")
    await table("redrives", [{"outcome": k, "redrives": n} for k, n in report.outcomes.items()])
    outcomes = ", ".join(f"{n:,} {state}" for state, n in report.outcomes.items())
    stopped = f"; {len(report.stopped_groups)} groups stopped" if report.stopped_groups else ""
    return Completed(
        message=f"Redrove {report.planned:,}: {outcomes or 'no outcome'}{stopped}",
        data=report.as_dict(),
    )
