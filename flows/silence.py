"""look-after-runs: runs whose process is gone, told from those that could not be heard."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import httpx
from prefect import State, flow, get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.context import FlowRunContext
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Crashed

from flows.show import told

LISTEN_SECONDS = 75.0  # two heartbeats, and time for them to arrive
_PAUSE_SECONDS = 5.0


@flow(name="look-after-runs", flow_run_name="look-after-runs", timeout_seconds=3600)
async def look_after_runs() -> State:
    """Listen to all runs of the platform, and mark those as crashed that nothing is heard of.

    Started when a run has been silent for 90 seconds, and every half hour. Where Prefect's server
    was away that says nothing, so only what is not heard now counts; where it goes away meanwhile,
    this begins anew.
    """
    while True:
        try:
            async with get_client() as client:
                gone = await _silent(client)
                for run_id in gone:
                    state: State[Any] = Crashed(
                        message="Its process is silent, though Prefect's server listened to it for"
                        f" {LISTEN_SECONDS:.0f} seconds."
                    )
                    await client.set_flow_run_state(run_id, state)
                break
        except (httpx.TransportError, PrefectHTTPStatusError):
            await asyncio.sleep(_PAUSE_SECONDS)
    noun = "run" if len(gone) == 1 else "runs"
    return await told(f"{len(gone)} gone", f"Marked {len(gone)} {noun} as crashed")


async def _silent(client: PrefectClient) -> list[UUID]:
    """The runs that are silent as long as this listens; it ends as soon as all were heard."""
    context = FlowRunContext.get()
    own = context.flow_run.id if context and context.flow_run else None
    before = await _heartbeats(client, await _running(client) - {own})
    watched = {run_id for run_id, last in before.items() if last is not None}
    deadline = time.monotonic() + LISTEN_SECONDS
    while watched and time.monotonic() < deadline:
        await asyncio.sleep(_PAUSE_SECONDS)
        watched &= await _running(client)
        now = await _heartbeats(client, watched)
        watched = {run_id for run_id in watched if now[run_id] == before[run_id]}
    return sorted(watched)


async def _running(client: PrefectClient) -> set[UUID]:
    runs = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=["dlq"]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
        )
    )
    return {run.id for run in runs}


async def _heartbeats(client: PrefectClient, run_ids: Iterable[UUID]) -> dict[UUID, UUID | None]:
    """The last heartbeat of each run; None of those that send none."""
    found: dict[UUID, UUID | None] = {}
    for run_id in run_ids:
        page = await client.read_events(
            EventFilter(
                event=EventNameFilter(name=["prefect.flow-run.heartbeat"]),
                resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"]),
            ),
            limit=1,
        )
        found[run_id] = page.events[0].id if page.events else None
    return found
