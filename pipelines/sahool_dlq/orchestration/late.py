"""Late runs: after a downtime they all start, one by one, the oldest first."""

from prefect import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.context import FlowRunContext


async def is_overtaken() -> bool:
    """Whether another run of this deployment that started after this one was due has done its work.

    So of ten late runs the first works and the others end immediately. It checks what was done, not
    the run's age or later runs: if every run starts late, all would leave the work to the next one.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or run.deployment_id is None or not run.auto_scheduled:
        return False
    if run.expected_start_time is None:
        return False
    async with get_client() as client:
        done = await client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[run.deployment_id])),
            flow_run_filter=FlowRunFilter(
                # Not "Skipped": that is the state of a run that found the work done.
                state=FlowRunFilterState(name=FlowRunFilterStateName(any_=["Completed"])),
                start_time=FlowRunFilterStartTime(after_=run.expected_start_time),
            ),
            limit=1,
        )
    return bool(done)
