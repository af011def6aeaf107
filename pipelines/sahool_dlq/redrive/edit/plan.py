"""An edit applied to all events of a plan, before anything is published."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from psycopg import Connection

from sahool_dlq.deadletter.decoding.decoders import Decoders
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.redrive.choose.plan import Plan
from sahool_dlq.redrive.edit.bodies import as_json
from sahool_dlq.redrive.edit.function import Function, load_function, result_of
from sahool_dlq.redrive.edit.patch import Edit
from sahool_dlq.redrive.edit.preview import Change, EditPreview, changes, counted
from sahool_dlq.redrive.origin import Event, RefusedError
from sahool_dlq.redrive.raw_event import raw_event

__all__ = ["changed", "edits_of"]

_READ_AT_ONCE = 50


async def edits_of(
    client: Client,
    reader: LogReader,
    connection: Connection[Any],
    redactor: Redactor,
    decoders: Decoders,
    planned: Plan,
    edit: Edit,
) -> tuple[EditPreview, Any]:
    """The changes of the edit in all events: applied to the raw ones, shown redacted.

    Also the edit for the batch, with the results of its function.
    """
    function = load_function(edit.function, Path.cwd()) if edit.function else None
    found: list[list[Change]] = []
    refused: dict[str, str] = {}
    results: dict[str, dict[str, Any]] = {}
    unread = 0
    for start in range(0, planned.count, _READ_AT_ONCE):
        rows = planned.rows[start : start + _READ_AT_ONCE]
        events = await asyncio.gather(*(raw_event(client, reader, connection, row) for row in rows))
        for row, event in zip(rows, events, strict=True):
            if event is None:
                unread += 1
                continue
            try:
                # A decoder may ask a schema registry.
                its, pair = await asyncio.to_thread(changed, event, function or edit, decoders)
                found.append(changes(*pair, redactor))
            except RefusedError as error:
                refused[row.failure_id] = redactor.redact_text(str(error))
                continue
            if function:
                told = {"body": its.body, "headers": its.headers}
                results[row.failure_id] = {name: held for name, held in told.items() if held}
    if function:
        edit = replace(edit, events=results)
    return counted(found, refused, unread), edit.stored()


def changed(
    event: Event, edit: Edit | Function, decoders: Decoders
) -> tuple[Edit, tuple[Event, Event]]:
    """The edit of this event; and the event before and after it, with JSON if the body changed.

    Raises RefusedError if the edit cannot be made.
    """
    its = edit if isinstance(edit, Edit) else result_of(edit, _readable(event, decoders))
    after = its.applied(event, decoders)
    if after.body == event.body:
        return its, (event, after)
    return its, (as_json(event, decoders), as_json(after, decoders))


def _readable(event: Event, decoders: Decoders) -> Event:
    try:
        return as_json(event, decoders)
    except RefusedError:
        return event  # the function gets the bytes
