"""The output of a run: name and state, artifacts with constant keys (a history), events."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from prefect import State, get_client
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed

from sahool_dlq.errors import RedriveError

DEAD_LETTERS = "dead-letters"
"""The key of the page that shows all groups."""

INCIDENTS = "incidents"
"""The key of the page that shows what these groups are part of."""


_MOST_RELATED = 90
"""Prefect refuses an event with more than 100 related resources, and adds some itself."""


def page_address() -> str:
    """The address of that page."""
    settings = get_current_settings()
    ui = settings.ui_url or str(settings.api.url or "").removesuffix("/api")
    return f"{ui.rstrip('/')}/artifacts/key/{DEAD_LETTERS}"


async def told(did: str, message: str, data: Any = None, *, state: str | None = None) -> State:
    """A run's successful end: its name says what it did, its state has the counts.

    `state` replaces "Completed" if there was nothing to do.
    """
    await _call(did)
    return Completed(message=message, data=data, name=state or "Completed")


async def stopped(did: str, message: str) -> State:
    """The end of a run that stopped itself, which is not an error of ours."""
    await _call(did)
    return Failed(message=message, data=RedriveError(message))


async def _call(did: str) -> None:
    context = FlowRunContext.get()
    if context is not None and context.flow_run is not None:
        async with get_client() as client:
            # The flow's name again, since a resumed run has a name already.
            name = f"{context.flow_run.name.split(':')[0]}: {did}"
            await client.update_flow_run(context.flow_run.id, name=name)


async def table(key: str, rows: Sequence[Mapping[str, Any]], description: str = "") -> None:
    """A searchable table with cells in Markdown; texts from messages must be escaped."""
    shown = [dict(row) for row in rows]
    await acreate_table_artifact(table=shown, key=key, description=description or None)


async def markdown(key: str, text: str, description: str = "") -> UUID:
    """A page in Markdown, and its id; texts from messages must be escaped."""
    made = acreate_markdown_artifact(markdown=text, key=key, description=description or None)
    return await made


def happened(
    event: str,
    resource: str,
    name: str,
    payload: Mapping[str, Any],
    *,
    groups: Iterable[str] = (),
    services: Iterable[str] = (),
) -> None:
    """An event for automations, about one of the platform's resources.

    Failure groups and services that it is about are related resources, `dlq.group.<id>` and
    `dlq.service.<name>`; as many as Prefect takes, services first.
    """
    about = {"prefect.resource.id": resource, "prefect.resource.name": name}
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    related = (
        [{"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.role": "flow-run"}]
        if run
        else []
    )
    about_too = [(f"dlq.service.{name}", "service") for name in dict.fromkeys(services)]
    about_too += [(f"dlq.group.{name}", "group") for name in dict.fromkeys(groups)]
    related += [
        {"prefect.resource.id": id_, "prefect.resource.role": role}
        for id_, role in about_too[:_MOST_RELATED]
    ]
    emit_event(event, resource=about, related=related, payload=dict(payload))


@asynccontextmanager
async def progress(description: str) -> AsyncIterator[Callable[[int, int], None]]:
    """A progress bar; yields a function to move it (done, total), at most once a second."""
    artifact = await acreate_progress_artifact(progress=0.0, description=description)
    loop = asyncio.get_running_loop()
    last = 0.0
    moving: asyncio.Task[Any] | None = None

    def move(done: int, total: int) -> None:
        nonlocal last, moving
        if loop.time() - last >= 1 and (moving is None or moving.done()):
            last = loop.time()
            share = min(100.0 * done / max(total, 1), 100.0)
            moving = loop.create_task(aupdate_progress_artifact(artifact, progress=share))

    yield move
    if moving is not None:
        await asyncio.wait([moving])
    await aupdate_progress_artifact(artifact, progress=100.0)
