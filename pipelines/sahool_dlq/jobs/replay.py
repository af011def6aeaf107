"""The complete jobs of a replay: a flow, a verb of `dlq` or a notebook calls them.

A replay publishes events again that did not fail, for one consumer. Its batch is like that of a
redrive: `jobs.redrive` runs it, `jobs.batches` approves, pauses, resumes and cancels it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.connections import open_nats, open_postgres
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import store_batch
from sahool_dlq.redrive.batches import Batch, find_batch
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.replay.plan import plan_replay as read_events
from sahool_dlq.redrive.replay.preview import ReplayPreview, preview_of
from sahool_dlq.redrive.replay.selection import ReplaySelection, find_consumer
from sahool_dlq.redrive.steps import Step, plainly
from sahool_dlq.settings import Settings

__all__ = ["plan_replay", "preview_replay"]

Reading = Callable[[int], None]
"""Called with the number of events that were read so far."""


async def preview_replay(
    settings: Settings,
    selection: ReplaySelection,
    *,
    per_second: float | None = None,
    progress: Reading | None = None,
) -> ReplayPreview:
    """What a replay of this selection would do, as of the last drain; changes nothing.

    Raises UnknownNameError if there is no such consumer, RedriveError if its stream has no handled
    events, ServerUnavailableError if NATS stops answering.
    """
    order = Order("manual", "", "", per_second=per_second)
    with open_postgres(settings) as connection:
        async with open_nats(settings, "dlq replay") as client:
            return await _preview(settings, client, connection, selection, order, progress)


async def plan_replay(
    settings: Settings,
    selection: ReplaySelection,
    order: Order,
    step: Step = plainly,
    progress: Reading | None = None,
) -> tuple[Batch, ReplayPreview] | None:
    """Drain, plan and store the batch; None if there is nothing to replay.

    The batch is `planned`, or `awaiting_approval` if it has more events than
    DLQ_REDRIVE_APPROVAL_COUNT. `jobs.redrive.run_redrive` runs it. Raises as `preview_replay` does.
    """
    drain = partial(drain_log, settings)
    await step("Drain what came before", drain, is_repeatable=True)
    return await step("Plan", partial(_plan, settings, selection, order, progress))


async def _plan(
    settings: Settings, selection: ReplaySelection, order: Order, progress: Reading | None
) -> tuple[Batch, ReplayPreview] | None:
    with open_postgres(settings) as connection:
        async with open_nats(settings, "dlq replay") as client:
            shown = await _preview(settings, client, connection, selection, order, progress)
        if not shown.planned:
            return None
        stored = replace(selection, consumer=shown.consumer)
        batch_id = store_batch(
            settings, connection, shown.found.plan, stored, order, shown.found.events
        )
        return find_batch(connection, batch_id), shown


async def _preview(
    settings: Settings,
    client: Client,
    connection: Connection[Any],
    selection: ReplaySelection,
    order: Order,
    progress: Reading | None,
) -> ReplayPreview:
    info = await find_consumer(client.jetstream(), selection.consumer, settings.events_stream)
    redactor = settings.redactor(settings.rules)
    found = await read_events(client, connection, redactor, info, selection, progress)
    order = replace(order, max_age_seconds=settings.redrive_max_age_seconds)
    consumer = f"{info.stream_name}/{info.name}"
    return await preview_of(settings, client, connection, found, consumer, order)
