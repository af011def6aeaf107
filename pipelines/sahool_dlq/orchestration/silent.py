"""Finds runs whose process has died: they send no heartbeat while others do.

A run sends a heartbeat every half a minute (PREFECT_FLOWS_HEARTBEAT_FREQUENCY in prefect.yaml). A
server that was down receives none, so the time is not measured by the clock: of each pause between
the heartbeats of all runs, at most the interval between two heartbeats counts.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from prefect import get_client
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import OrchestrationResult
from prefect.events.filters import (
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventResourceFilter,
)
from prefect.events.schemas.events import ReceivedEvent
from prefect.states import Crashed

HEARTBEAT_SECONDS = 30.0
"""Interval of a run's heartbeats, from prefect.yaml."""
_RUN = "prefect.flow-run."
_HEARTBEAT = EventNameFilter(name=["prefect.flow-run.heartbeat"])
_PAGE = 50  # the server's maximum of events per request
_LOOKED_BACK = timedelta(minutes=15)


class Dead(NamedTuple):
    """A run that was marked as crashed."""

    name: str
    last_heard_at: datetime


def heard_seconds(received: Iterable[datetime], since: datetime) -> float:
    """The time after `since` in which the server could have received a run's heartbeat."""
    seconds, before = 0.0, since
    for at in sorted(at for at in received if at > since):
        seconds += min((at - before).total_seconds(), HEARTBEAT_SECONDS)
        before = at
    return seconds


async def mark_silent(silent_seconds: float) -> list[Dead]:
    """Mark runs as crashed whose heartbeat is missing for so long.

    Only those that sent one before. This frees their slots; a run that has ended meanwhile is not
    changed.
    """
    dead = []
    async with get_client() as client:
        running = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])),
                tags=FlowRunFilterTags(all_=["dlq"]),
            )
        )
        heard = await _heartbeats(client, datetime.now(UTC) - _LOOKED_BACK)
        received = [event.received for event in heard]
        for run in running:
            last = await _last_heartbeat(client, run.id)
            if last is None or heard_seconds(received, last) < silent_seconds:
                continue
            said = f"Its process sent no heartbeat for {silent_seconds:.0f} s while others did."
            ended: OrchestrationResult[Any] = await client.set_flow_run_state(
                run.id, Crashed(message=said)
            )
            if ended.state is not None and ended.state.is_crashed():
                dead.append(Dead(run.name, last))
    return dead


async def _heartbeats(client: PrefectClient, since: datetime) -> list[ReceivedEvent]:
    wanted = EventFilter(event=_HEARTBEAT, occurred=EventOccurredFilter(since=since))
    page = await client.read_events(wanted, limit=_PAGE)
    found = list(page.events)
    while page.next_page is not None:
        page = await client.read_events_page(str(page.next_page))
        found += page.events
    return found


async def _last_heartbeat(client: PrefectClient, run: UUID) -> datetime | None:
    wanted = EventFilter(event=_HEARTBEAT, resource=EventResourceFilter(id=[f"{_RUN}{run}"]))
    page = await client.read_events(wanted, limit=1)
    return page.events[0].received if page.events else None
