"""The plan of a replay: reads the events' stream, and leaves out what is not to be replayed."""

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nats.aio.client import Client
from nats.js.api import ConsumerInfo
from psycopg import Connection

from sahool_dlq.deadletter.cases import OPEN
from sahool_dlq.deadletter.headers import redrive_of
from sahool_dlq.deadletter.ids import failure_id
from sahool_dlq.deadletter.message import time_of_ns
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.replays import REPLAY, ReplayedEvent
from sahool_dlq.jetstream.handled import filters_of, floor_of, read_stored, start_of, was_for
from sahool_dlq.jetstream.stored import StoredMessage, stored_message
from sahool_dlq.redrive.choose.plan import Plan, PlannedFailure
from sahool_dlq.redrive.lifetime import ttl_of
from sahool_dlq.redrive.replay.match import matching
from sahool_dlq.redrive.replay.selection import Position, ReplaySelection
from sahool_dlq.stores.postgres.replays import waiting_replays

__all__ = ["LEFT_OUT", "ReplayPlan", "plan_replay"]

_MOST_READ = 1_000_000  # events for one plan

LEFT_OUT = {
    "open": "are open failures of this consumer: `dlq redrive` is for those",
    "closed": "failed and were closed by a person, so they never succeeded",
    "replaying": "are in another replay that has not ended",
}
"""Why a matching event is not replayed."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The events to replay, as a plan of redrives, and what was found while reading."""

    plan: Plan  # failure_id is the id of the replay
    events: tuple[ReplayedEvent, ...]  # in the order of the plan's rows
    ttls: Mapping[str, str]  # Nats-TTL by id of the replay
    left_out: Mapping[str, int]  # matching events by key of LEFT_OUT
    read_count: int  # events of the consumer that were read
    seconds: float  # that took
    rest_from: int | None  # the sequence from which a limit left events out
    begins_at: datetime | None  # the stream's first event, if earlier ones were asked for
    unfinished: int  # events that the consumer has not finished; 0 if the selection ends before


@dataclass(slots=True)
class _Found:
    """The events found so far, by their key: one for all copies of an event."""

    condition: tuple[str, list[Any]] | None  # of `compile_where`
    events: dict[str, StoredMessage] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    read_count: int = 0
    rest_from: int | None = None
    has_ended: bool = False  # what follows is not selected


async def plan_replay(
    client: Client,
    connection: Connection[Any],
    redactor: Redactor,
    info: ConsumerInfo,
    selection: ReplaySelection,
    progress: Callable[[int], None] | None = None,
) -> ReplayPlan:
    """Read the selected events that the consumer has handled; changes nothing.

    At most a million of its events are read. `progress` gets their number so far. Raises
    ServerUnavailableError if NATS stops answering.
    """
    started, found = time.monotonic(), _Found(selection.condition())
    since = selection.since if selection.since is not None else start_of(info)
    floor = floor_of(info)
    if isinstance(selection.until, int) and selection.until <= floor:
        floor, found.has_ended = selection.until - 1, True
    state = (await client.jetstream().stream_info(info.stream_name)).state
    if floor >= state.first_seq and (isinstance(since, datetime) or since <= floor):
        parts = read_stored(
            client,
            info.stream_name,
            filters_of(info),
            since if isinstance(since, datetime) else max(since, state.first_seq),
            floor,
            is_headers_only=selection.where is None,
        )
        async with aclosing(parts):
            async for part in parts:
                if _take(connection, redactor, info, selection, part, found):
                    break
                if progress is not None:
                    progress(found.read_count)
    seconds = time.monotonic() - started
    begins_at = await _begins_at(client, info.stream_name, state.first_seq, since)
    return _planned(connection, info, found, seconds, begins_at)


def _take(
    connection: Connection[Any],
    redactor: Redactor,
    info: ConsumerInfo,
    selection: ReplaySelection,
    part: Sequence[StoredMessage],
    found: _Found,
) -> bool:
    """Add the selected events of a part; returns whether this was the last one to read."""
    is_over, taken = False, []
    for event in part:
        stored_at = time_of_ns(event.timestamp_ns)
        if is_over := selection.is_after(event.sequence, stored_at):
            found.has_ended = True
            break
        found.read_count += 1
        is_early = selection.is_before(event.sequence, stored_at)
        if not is_early and selection.takes(event.subject) and was_for(info, event):
            taken.append(event)
    if found.condition is not None and taken:
        taken = matching(connection, redactor, taken, found.condition)
    keys = _keys(connection, info, taken)
    states = _states(connection, set(keys)) if keys else {}
    for key, event in zip(keys, taken, strict=True):
        if why := states.get(key):
            found.events.pop(key, None)
            found.left_out[key] = why
        elif key not in found.events and len(found.events) == selection.limit:
            found.rest_from = event.sequence
            return True
        else:
            found.events[key] = event  # a later copy is what succeeded, perhaps edited
    if found.read_count >= _MOST_READ and not is_over:
        found.rest_from, is_over = part[-1].sequence + 1, True
    return is_over


def _keys(
    connection: Connection[Any], info: ConsumerInfo, events: Sequence[StoredMessage]
) -> list[str]:
    """What each event is a copy of: the failure id of the original at this consumer."""
    own = [
        failure_id(info.stream_name, event.sequence, event.timestamp_ns, info.name)
        for event in events
    ]
    redrives = [redrive_of(event.headers) for event in events]
    asked = [redrive.root for redrive in redrives if redrive]
    known: dict[str, str] = {}
    if asked:
        rows = connection.execute(
            "SELECT f.id::text, coalesce(p.replay_of, f.id)::text FROM failed_events f"
            " LEFT JOIN replays p ON p.id = f.root_failure_id WHERE f.id = ANY(%(ids)s::uuid[])"
            " UNION ALL SELECT id::text, replay_of::text FROM replays"
            " WHERE id = ANY(%(ids)s::uuid[])",
            {"ids": asked},
        )
        known = dict(rows.fetchall())
    return [
        known.get(redrive.root, key) if redrive else key
        for redrive, key in zip(redrives, own, strict=True)
    ]


def _states(connection: Connection[Any], keys: Collection[str]) -> dict[str, str]:
    """Why events are left out, by their key; also if a replay of them failed."""
    rows = connection.execute(
        "SELECT f.id::text, f.status, f.resolution_cause FROM failed_events f"
        " WHERE f.id = ANY(%(keys)s::uuid[])"
        " UNION ALL SELECT p.replay_of::text, f.status, f.resolution_cause FROM replays p"
        "   JOIN failed_events f ON f.root_failure_id = p.id"
        "   WHERE p.replay_of = ANY(%(keys)s::uuid[])",
        {"keys": list(keys)},
    ).fetchall()
    found = dict.fromkeys(waiting_replays(connection, keys), "replaying")
    for key, status, cause in rows:
        if status in OPEN:
            found[key] = "open"
        elif status == "discarded" or cause == "manual":
            found.setdefault(key, "closed")
    return found


def _planned(
    connection: Connection[Any],
    info: ConsumerInfo,
    found: _Found,
    seconds: float,
    begins_at: datetime | None,
) -> ReplayPlan:
    stream, consumer = info.stream_name, f"{info.stream_name}/{info.name}"
    service = _service(connection, stream, info.name)
    rows, events, ttls = [], [], {}
    is_cut = found.has_ended or found.rest_from is not None
    for key, event in found.events.items():
        replay, stored_at = str(uuid.uuid4()), time_of_ns(event.timestamp_ns)
        rows.append(
            PlannedFailure(
                failure_id=replay, group_id=REPLAY, error_type=REPLAY, service=service,
                subject=event.subject, address=consumer, redrive_count=0, opening=1,
                is_foreign=True, error_message="", failed_at=stored_at, ended_at=None,
                epoch=None, dlq_sequence=None, published_at=stored_at,
            )
        )  # fmt: skip
        events.append(
            ReplayedEvent(replay, key, consumer, stream, event.sequence, event.timestamp_ns)
        )
        if ttl := ttl_of(event.headers):
            ttls[replay] = ttl
    return ReplayPlan(
        Plan(tuple(rows), limit_reached=found.rest_from is not None),
        tuple(events),
        ttls,
        Counter(found.left_out.values()),
        found.read_count,
        seconds,
        found.rest_from,
        begins_at,
        0 if is_cut else (info.num_pending or 0) + (info.num_ack_pending or 0),
    )


async def _begins_at(client: Client, stream: str, first: int, since: Position) -> datetime | None:
    """The time of the stream's first event, if it has lost selected events before it."""
    stored = await stored_message(client, stream, first) if first > 1 else None
    if stored is None:
        return None
    at = time_of_ns(stored.timestamp_ns)
    return at if (since < at if isinstance(since, datetime) else since < first) else None


def _service(connection: Connection[Any], stream: str, durable: str) -> str:
    """The service of a consumer: by its totals, else by its failures, else its own name."""
    row = connection.execute(
        "SELECT coalesce((SELECT service FROM service_totals WHERE consumer = %(durable)s"
        "   ORDER BY published_at DESC LIMIT 1),"
        " (SELECT service(f) FROM failed_events f WHERE f.consumer_name = %(durable)s"
        "   AND f.original_stream = %(stream)s ORDER BY f.dlq_timestamp DESC LIMIT 1),"
        " %(durable)s)",
        {"durable": durable, "stream": stream},
    ).fetchone()
    return str(row[0]) if row else durable
