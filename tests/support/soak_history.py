"""The history of a soak: the records of its processes, and the state at its end."""

import json
from collections.abc import Iterable

from nats.aio.client import Client

from sahool_dlq.analysis.marts.views import create_views
from sahool_dlq.deadletter.case_events import CaseEvent, decode_case_event
from sahool_dlq.deadletter.envelope.exact import decode
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.deadletter.record import DeadLetter
from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.jobs.batches import list_batches
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.sql import connect
from support import history
from support.folding import cases_of, fold_all
from support.redriving import rows
from support.soak_services import Service


async def history_of(
    settings: Settings, client: Client, services: Iterable[Service], cap: int
) -> history.History:
    """Everything that happened, from the records of the processes and the state at the end."""
    messages = await _log(settings, client)
    return history.History(
        cap,
        [
            history.Service(
                each.address(settings),
                f"{settings.subject_prefix}.{each.subject}",
                each.max_retries,
            )
            for each in services
        ],
        await _events(settings, client),
        [call for service in services for call in service.calls],
        [_told(message) for message in messages],
        [
            history.Redrive(*row)
            for row in rows(
                settings,
                "SELECT id::text, failure_id::text, attempt, batch_id::text, state,"
                " extract(epoch FROM published_at)::float8 FROM redrives",
            )
        ],
        {
            each.id: history.Batch(
                each.state, "failure_ids" in each.selection, each.patch, each.redirect_to
            )
            for each in list_batches(settings, 100_000)
        },
        _deeds(settings),
        {"the stream": _by_fold(messages), **_stored(settings)},
    )


async def _events(settings: Settings, client: Client) -> list[history.Event]:
    js, name = client.jetstream(timeout=60), settings.events_stream
    last = (await js.stream_info(name)).state.last_seq
    found = []
    for sequence in range(1, last + 1):
        msg = await js.get_msg(name, sequence)
        at, subject = msg.time.timestamp(), msg.subject or ""
        headers = msg.headers or {}
        found.append(history.Event(name, sequence, at, subject, msg.data or b"", headers))
    return found


async def _log(settings: Settings, client: Client) -> list[DeadLetter | CaseEvent]:
    name, subjects = settings.dlq_stream, settings.subjects
    last = (await client.jetstream(timeout=60).stream_info(name)).state.last_seq
    reader = LogReader(client, name, subjects.log)
    await reader.seek(1)
    found: list[DeadLetter | CaseEvent] = []
    while not found or found[-1].dlq_sequence < last:
        for message in await reader.read(1_000, 10_000_000, last):
            is_letter = matches(subjects.dead_letters, message.subject)
            found.append(
                decode(message, "e", name) if is_letter else decode_case_event(message, "e")
            )
    await reader.close()
    return found


def _stored(settings: Settings) -> dict[str, dict[str, history.Case]]:
    columns = "failure_id::text, status, redrive_count, CASE WHEN status = 'resolved' THEN"
    in_postgres = rows(
        settings,
        f"SELECT {columns.replace('failure_id', 'id')} resolution_cause END FROM failed_events"
        " WHERE status <> 'superseded'",
    )
    with connect(Lake(settings.lake)) as lake:
        create_views(lake)
        in_lake = lake.execute(
            f"SELECT {columns} cause END FROM cases WHERE status <> 'reopened'"
        ).fetchall()
    return {
        "Postgres": {key: history.Case(*rest) for key, *rest in in_postgres},
        "the lake": {key: history.Case(*rest) for key, *rest in in_lake},
    }


def _deeds(settings: Settings) -> list[history.Deed]:
    file = settings.home / "deeds.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    deeds = [history.Deed(d, tuple(about), *when) for d, about, *when in map(json.loads, lines)]
    return sorted(deeds, key=lambda deed: deed.began)


def _told(message: DeadLetter | CaseEvent) -> history.Told:
    at = message.published_at.timestamp()
    if isinstance(message, CaseEvent):
        assert message.failure_id is not None
        return history.Told(
            message.kind,
            message.failure_id,
            at,
            message.consumer,
            message.redrive_id,
            message.attempt,
        )
    return history.Told(
        history.FAILED,
        message.failure_id,
        at,
        consumer_address(message.original_stream, message.consumer_name),
        message.redrive_id,
        message.redrive_attempt,
        message.root_failure_id,
        message.original_sequence,
    )


def _by_fold(messages: list[DeadLetter | CaseEvent]) -> dict[str, history.Case]:
    return {
        key: history.Case(
            case.status,
            case.redrive_count,
            case.resolution_cause if case.status == "resolved" else None,
        )
        for key, case in cases_of(fold_all(messages, {})).items()
        if case.status != "superseded"
    }
