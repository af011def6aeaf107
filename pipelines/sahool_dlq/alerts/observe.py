"""Checks the servers before the rules run, and stores the result in PostgreSQL for the rules."""

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.js.api import ConsumerInfo, DiscardPolicy, StreamInfo
from nats.js.errors import APIError, NotFoundError
from psycopg import Connection

from sahool_dlq.connections import find_log, open_nats
from sahool_dlq.deadletter.sanitize import readable
from sahool_dlq.errors import DLQError
from sahool_dlq.jetstream.api import api_subject
from sahool_dlq.jetstream.consumers import is_name
from sahool_dlq.jetstream.latest import latest_messages
from sahool_dlq.jetstream.pull import PullStalledError, delivery_of
from sahool_dlq.jetstream.reach import Lookout, Reach, Stopped, Wanted
from sahool_dlq.jetstream.streams import find_stream
from sahool_dlq.settings import Settings

__all__ = ["StreamSample", "keep", "look", "silent_consumers", "stopped_consumers"]

logger = logging.getLogger(__name__)

_KEPT = "7 days"
_FRESH = timedelta(minutes=3)  # maximum age of a consumer's totals
_MOST_CONSUMERS = 50
_MOST_STOPPED = 1_000  # maximum number of our consumers that are checked

# Consumers whose services failed of late and publish no totals: do they acknowledge anything?
_SILENT = """
SELECT DISTINCT f.original_stream, f.consumer_name
FROM failed_events f
WHERE f.dlq_timestamp > now() - interval '15 minutes'
  AND f.original_stream IS NOT NULL AND f.consumer_name IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM service_totals t
      WHERE t.service = service(f)
        AND t.published_at > now() - interval '30 minutes')
"""


@dataclass(frozen=True, slots=True)
class StreamSample:
    """The current state of a stream: a row of `stream_samples` without its time."""

    role: str  # log | events | totals
    stream: str
    created: datetime | None = None
    first_sequence: int | None = None
    last_sequence: int | None = None  # of the log's own subjects
    message_count: int | None = None
    size_bytes: int | None = None
    max_messages: int | None = None
    max_bytes: int | None = None
    problem: str | None = None  # why it cannot be read or written


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one check."""

    streams: tuple[StreamSample, ...]
    acknowledged: dict[tuple[str, str], int]  # sequence by stream and consumer
    reaches: dict[Wanted, Reach] | None = None  # of pending failures; None: not checked
    skipped: int = 0  # consumers in dead letters that could not be looked up
    # by service and consumer that published totals; a Reach: it did not stop, or that is unknown
    stopped: dict[tuple[str, str], Stopped | Reach] = field(default_factory=dict)


async def look(
    settings: Settings,
    consumers: Iterable[tuple[str, str]] = (),
    addressees: Iterable[Wanted] = (),
    stopped_before: Mapping[str, str] | None = None,
) -> Look:
    """Check the streams, the progress of these consumers, and whether events reach the others.

    `stopped_before` are the services of consumers that were stopped at the previous check: they are
    checked even if their totals are gone. If a server is down, that is recorded as a problem.
    """
    log = settings.dlq_stream
    try:
        async with open_nats(settings, "dlq alerts", patience_seconds=5) as client:
            state = await find_log(client, settings)
            info = await client.jetstream().stream_info(state.stream)
            last = await _last_of_log(client, settings) if state.is_shared else state.last_sequence
            totals = await _totals(client, settings)
            problem = _why_unwritable(info) or _held(totals)
            others = [await _other(client, settings, role) for role in ("events", "totals")]
            acknowledged, skipped = await _acknowledged(client, consumers)
            lookout = Lookout(client.jetstream())
            return Look(
                (_sample("log", info, last, problem), *filter(None, others)),
                acknowledged,
                await lookout.reaches(addressees),
                skipped,
                await _stopped(lookout, totals, stopped_before or {}),
            )
    except DLQError as error:
        return Look((StreamSample("log", log, problem=str(error)),), {})
    except (nats.errors.Error, APIError, TimeoutError, PullStalledError) as error:
        reason = f"NATS does not answer as expected: {str(error) or type(error).__name__}"
        return Look((StreamSample("log", log, problem=reason),), {})


def silent_consumers(connection: Connection[Any]) -> list[tuple[str, str]]:
    """Consumers that failed recently and publish no totals: stream and durable, as given."""
    return connection.execute(_SILENT).fetchall()


def keep(connection: Connection[Any], seen: Look, at: datetime) -> None:
    """Store a check, and delete those older than a week."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO stream_samples (role, stream, created, first_sequence, last_sequence,"
            " message_count, size_bytes, max_messages, max_bytes, problem, at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                [
                    *(s.role, s.stream, s.created, s.first_sequence, s.last_sequence),
                    *(s.message_count, s.size_bytes, s.max_messages, s.max_bytes, s.problem, at),
                ]
                for s in seen.streams
            ],
        )
        cursor.executemany(
            "INSERT INTO consumer_samples (stream, consumer, acknowledged_sequence, at)"
            " VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [[*key, sequence, at] for key, sequence in seen.acknowledged.items()],
        )
        if seen.reaches is not None:
            _keep_reaches(connection, seen.reaches, at)
        _keep_stopped(connection, seen.stopped, at)
        for table in ("stream_samples", "consumer_samples"):
            cursor.execute(
                f"DELETE FROM {table} WHERE at < %s - interval '{_KEPT}'",  # noqa: S608  (our own names, bound values)
                [at],
            )


def _keep_reaches(
    connection: Connection[Any], reaches: Mapping[Wanted, Reach], at: datetime
) -> None:
    """Store which consumers get no events, or are unknown, in place of the previous result."""
    rows = [
        (address, subject, reach.problem or reach.doubt, reach.problem is not None)
        for (address, subject, _), reach in reaches.items()
        if reach.problem or reach.doubt
    ]
    connection.execute(
        "DELETE FROM unreached_consumers WHERE (consumer, subject)"
        " NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))",
        [[row[0] for row in rows], [row[1] for row in rows]],
    )
    connection.cursor().executemany(
        "INSERT INTO unreached_consumers AS u (consumer, subject, reason, is_known, since)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (consumer, subject) DO UPDATE"
        " SET reason = excluded.reason, is_known = excluded.is_known",
        [[*row, at] for row in rows],
    )


def stopped_consumers(connection: Connection[Any]) -> dict[str, str]:
    """The services of consumers that were stopped at the latest check, by `<stream>/<durable>`."""
    rows = connection.execute("SELECT consumer, service FROM stopped_consumers").fetchall()
    return dict(rows)


def _keep_stopped(
    connection: Connection[Any], seen: Mapping[tuple[str, str], Stopped | Reach], at: datetime
) -> None:
    """Store stopped consumers; unknown ones keep their previous state."""
    others = [
        consumer
        for (_, consumer), each in seen.items()
        if not isinstance(each, Stopped) and each.doubt is None
    ]
    connection.execute("DELETE FROM stopped_consumers WHERE consumer = ANY(%s)", [others])
    connection.cursor().executemany(
        "INSERT INTO stopped_consumers AS s"
        " (service, consumer, reason, waiting_count, least_count, since)"
        " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (consumer) DO UPDATE"
        " SET service = excluded.service, reason = excluded.reason,"
        " waiting_count = excluded.waiting_count,"
        " least_count = least(s.least_count, excluded.waiting_count)",
        [
            [*key, each.reason, each.waiting_count, each.waiting_count, at]
            for key, each in seen.items()
            if isinstance(each, Stopped)
        ],
    )


def _sample(role: str, info: StreamInfo, last: int, problem: str | None = None) -> StreamSample:
    config, state = info.config, info.state
    return StreamSample(
        role=role,
        stream=str(config.name),
        created=info.created if isinstance(info.created, datetime) else None,
        first_sequence=state.first_seq,
        last_sequence=last,
        message_count=state.messages,
        size_bytes=state.bytes,
        max_messages=_limit(config.max_msgs),
        max_bytes=_limit(config.max_bytes),
        problem=problem,
    )


def _limit(value: int | None) -> int | None:
    return value if value and value > 0 else None


def _why_unwritable(info: StreamInfo) -> str | None:
    """Why the stream itself accepts no dead letters."""
    config, state = info.config, info.state
    if config.sealed:
        return "it is sealed"
    if config.discard != DiscardPolicy.NEW:
        return None
    if (most := _limit(config.max_msgs)) and state.messages >= most:
        return f"it is full: {state.messages} of {most} messages, and it refuses new ones"
    if (most := _limit(config.max_bytes)) and state.bytes >= most * 0.999:
        return f"it is full: {state.bytes} of {most} bytes, and it refuses new ones"
    return None


class _Total(NamedTuple):
    """The last counters of one of our consumers."""

    service: str
    consumer: str | None  # <stream>/<durable>; None: not a valid name
    is_dlq_writable: bool
    is_fresh: bool


async def _totals(client: Client, settings: Settings) -> list[_Total]:
    """The latest totals of our consumers, without those of the bridge."""
    found: list[_Total] = []
    js = client.jetstream()
    stream = await find_stream(js, settings.subjects.totals, settings.totals_stream)
    if stream is None:
        return found
    fresh = (datetime.now(UTC) - _FRESH).timestamp() * 1e9
    async with aclosing(latest_messages(client, stream, settings.subjects.totals)) as latest:
        async for msg in latest:
            try:
                value = json.loads(msg.data)
                if "counted_to" in value:
                    continue
                names = [str(value.get(key)) for key in ("stream", "consumer")]
                total = _Total(
                    readable(str(value.get("service"))),
                    "/".join(names) if all(map(is_name, names)) else None,
                    value.get("is_dlq_writable") is not False,
                    delivery_of(msg).timestamp_ns > fresh,
                )
            except (ValueError, TypeError, AttributeError, RecursionError):
                continue
            found.append(total)
    return found


def _held(totals: Iterable[_Total]) -> str | None:
    """The services that report that they hold dead letters which they cannot write."""
    names = sorted({each.service for each in totals if each.is_fresh and not each.is_dlq_writable})
    return f"{', '.join(names[:5])} cannot write dead letters and hold them back" if names else None


async def _stopped(
    lookout: Lookout, totals: Iterable[_Total], before: Mapping[str, str]
) -> dict[tuple[str, str], Stopped | Reach]:
    """Whether anybody pulls from our consumers."""
    services = dict(before)
    services |= {each.consumer: each.service for each in totals if each.consumer is not None}
    fresh = {each.consumer for each in totals if each.is_fresh}
    asked = list(services)[:_MOST_STOPPED]
    found = await asyncio.gather(
        *(lookout.stopped(consumer, is_silent=consumer not in fresh) for consumer in asked)
    )
    return {
        (services[consumer], consumer): each for consumer, each in zip(asked, found, strict=True)
    }


async def _other(client: Client, settings: Settings, role: str) -> StreamSample | None:
    name = {"events": settings.events_stream, "totals": settings.totals_stream}[role]
    try:
        info = await client.jetstream().stream_info(name)
    except APIError:
        return None
    return _sample(role, info, info.state.last_seq)


async def _last_of_log(client: Client, settings: Settings) -> int:
    """The last sequence of the log's subjects on a stream that holds others too."""
    last = 0
    for subject in settings.subjects.log:
        request = json.dumps({"last_by_subj": subject}).encode()
        name = await find_stream(client.jetstream(), subject, settings.dlq_stream)
        where = api_subject(client, f"STREAM.MSG.GET.{name}")
        answer = await client.request(where, request, timeout=5)
        message = json.loads(answer.data).get("message") or {}
        last = max(last, int(message.get("seq", 0)))
    return last


async def _acknowledged(
    client: Client, consumers: Iterable[tuple[str, str]]
) -> tuple[dict[tuple[str, str], int], int]:
    """How far each consumer acknowledged, and for how many this is unknown.

    A dead letter may name any stream and consumer, which may not exist or not be valid.
    """
    asked = list(consumers)
    named = [pair for pair in asked if all(map(is_name, pair))][:_MOST_CONSUMERS]
    js = client.jetstream()
    infos = await asyncio.gather(
        *(js.consumer_info(*pair) for pair in named), return_exceptions=True
    )
    found = {}
    for pair, info in zip(named, infos, strict=True):
        if isinstance(info, ConsumerInfo):
            found[pair] = info.ack_floor.stream_seq if info.ack_floor else 0
        elif not isinstance(info, NotFoundError):
            logger.info("Consumer %s of %s cannot be looked up: %r", *reversed(pair), info)
    gone = sum(isinstance(info, NotFoundError) for info in infos)
    return found, len(asked) - len(found) - gone
