"""Which consumers would get the redrives of a plan, and which ones have replaced missing ones."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from psycopg import Connection

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.consumers import consumers_of, durable_name
from sahool_dlq.jetstream.reach import Lookout, Reach, Stopped, Wanted
from sahool_dlq.jetstream.streams import find_streams
from sahool_dlq.redrive.choose.plan import Addressee, PlannedFailure
from sahool_dlq.redrive.lifetime import TTL
from sahool_dlq.stores.postgres.addressees import pending_addressees

__all__ = [
    "Reached",
    "Unreached",
    "unreached_addressees",
    "unreached_of",
    "whom_it_reaches",
    "why_no_lifetime",
]

_MOST_SUCCESSORS = 3
_TTL_SINCE = (2, 11)  # nats-server; before, the header says nothing


@dataclass(frozen=True, slots=True)
class Unreached:
    """Failures of a plan whose redrive no consumer would get."""

    consumer: str  # <stream>/<durable>; of a redirect, its subject
    reason: str
    count: int
    successors: tuple[str, ...] = ()  # consumers of the same service that would take the events


@dataclass(frozen=True, slots=True)
class Reached:
    """Which failures of a plan get to their consumer, as far as known."""

    unreached: tuple[Unreached, ...] = ()  # the most first
    doubts: tuple[tuple[str, int], ...] = ()  # why it is unknown, and for how many
    unreached_ids: frozenset[str] = frozenset()

    def __add__(self, other: "Reached") -> "Reached":
        """Both together, for different failures."""
        return Reached(
            self.unreached + other.unreached,
            self.doubts + other.doubts,
            self.unreached_ids | other.unreached_ids,
        )

    def as_list(self) -> list[dict[str, Any]]:
        """For `--json`."""
        return [{**asdict(each), "successors": list(each.successors)} for each in self.unreached]


async def whom_it_reaches(
    js: JetStreamContext,
    connection: Connection[Any],
    rows: Iterable[PlannedFailure],
    addressed_to: str | None = None,
) -> Reached:
    """A check of each addressed consumer; `addressed_to`: all go to that one."""
    lookout, rows = Lookout(js), list(rows)
    is_named = addressed_to is not None
    keys = [(addressed_to or row.address, row.subject, row.is_foreign or is_named) for row in rows]
    reaches = await lookout.reaches(keys)
    reaches |= await _stopped(lookout, connection, reaches)
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], PlannedFailure] = {}
    doubts: Counter[str] = Counter()
    ids = set()
    for row, key in zip(rows, keys, strict=True):
        address, (problem, doubt) = key[0] or "", reaches[key]
        if doubt is not None:
            doubts[doubt] += 1
        if problem is not None:
            counts[address, problem] += 1
            examples.setdefault((address, problem), row)
            ids.add(row.failure_id)
    found = []
    for (address, problem), count in counts.most_common():
        row = examples[address, problem]
        successors = await _successors(js, connection, lookout, row, address)
        found.append(Unreached(address, problem, count, successors))
    return Reached(tuple(found), tuple(doubts.most_common()), frozenset(ids))


def unreached_of(found: Iterable[tuple[PlannedFailure, str, str]]) -> Reached:
    """Failures that no consumer would get, with their address and the reason."""
    rows = list(found)
    counts = Counter((where, reason) for _, where, reason in rows)
    return Reached(
        tuple(Unreached(*key, count) for key, count in counts.most_common()),
        unreached_ids=frozenset(row.failure_id for row, _, _ in rows),
    )


async def why_no_lifetime(client: Client, subject: str) -> str | None:
    """Why the stream of a subject refuses a `Nats-TTL`; None if unknown."""
    version, js = client.connected_server_version, client.jetstream()
    if (version.major, version.minor) < _TTL_SINCE:
        return None
    try:
        streams = await find_streams(js, subject)
        if len(streams) != 1 or (await js.stream_info(streams[0])).config.allow_msg_ttl:
            return None
    except (nats.errors.Error, JetStreamError, NotPermittedError):
        return None
    return (
        f"{streams[0]} does not accept an event with a {TTL}: set allow_msg_ttl, or "
        "redirect elsewhere"
    )


async def _stopped(
    lookout: Lookout, connection: Connection[Any], reaches: Mapping[Wanted, Reach]
) -> dict[Wanted, Reach]:
    """Consumers that the alerts saw stopped, and that nobody pulls from now either.

    A single check would take events in progress for a sign of life.
    """
    rows = connection.execute("SELECT consumer FROM stopped_consumers").fetchall()
    seen = {consumer for (consumer,) in rows}
    found = {}
    for key, reach in reaches.items():
        address = key[0]
        if address is not None and address in seen and reach == Reach():
            stopped = await lookout.stopped(address, is_silent=True)
            if isinstance(stopped, Stopped):
                found[key] = Reach(stopped.reason)
    return found


async def _successors(
    js: JetStreamContext,
    connection: Connection[Any],
    lookout: Lookout,
    row: PlannedFailure,
    address: str,
) -> tuple[str, ...]:
    """The consumers of the failing service that get the event's subject and are pulled."""
    own = {name for (name,) in connection.execute(
        "SELECT DISTINCT consumer FROM service_totals WHERE service = %s", [row.service]
    )}  # fmt: skip
    try:
        heard_by = await consumers_of(js, row.subject)
    except NotPermittedError:
        return ()
    found = []
    for each in heard_by:
        if each == address or not _is_of(row.service, each.partition("/")[2], own):
            continue
        if (await lookout.reach(each, row.subject, is_patient=True)).problem is None:
            found.append(each)
    return tuple(found[:_MOST_SUCCESSORS])


def _is_of(service: str, durable: str, own: Collection[str]) -> bool:
    """By the totals that it publishes, or by its name in the form of our consumers."""
    name = durable_name(service)
    return durable in own or durable == name or durable.startswith((f"{name}-", f"{name}_"))


async def unreached_addressees(
    js: JetStreamContext, connection: Connection[Any]
) -> dict[Addressee, str]:
    """The consumers of pending failures that get no events, and why."""
    reaches = await Lookout(js).reaches(pending_addressees(connection))
    return {(str(a), subject): r.problem for (a, subject, _), r in reaches.items() if r.problem}
