"""Totals of consumers without our library, from the server's reports of their acknowledgements.

Only for consumers with reports of all acknowledgements (`dlq adopt --proof`). Counts and position
are in one message, the latest of the consumer's totals, and the server accepts the next one only if
that is still the latest. So each acknowledgement is counted once, however many bridges count, and
whenever they die.
"""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.js.api import ConsumerInfo, Header
from nats.js.errors import APIError

from sahool_dlq.bridge.advisory import read_advisory, service_of
from sahool_dlq.bridge.consumer_figures import all_consumers
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.jetstream.ack_metrics import ack_stream, ack_subject, read_ack, told_percent
from sahool_dlq.jetstream.api import domain_of
from sahool_dlq.jetstream.latest import latest_messages
from sahool_dlq.jetstream.pull import delivery_of
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.jetstream.streams import ACK_METRICS, ADVISORIES, REMOVED_REASONS, find_stream
from sahool_dlq.settings import Settings

logger = logging.getLogger(__name__)

Address = tuple[str, str]
"""Stream and durable of a consumer."""

_WRONG_LAST_SEQUENCE = 10071  # the server's code: somebody else has published meanwhile
_READ_MESSAGES, _READ_BYTES = 5_000, 8 << 20


class Position(msgspec.Struct, frozen=True):
    """The position up to which a stream was counted."""

    created: str  # the stream, which may have been recreated since
    sequence: int


class Total(msgspec.Struct):
    """The current totals of one consumer on their subject."""

    service: str
    stream: str
    consumer: str
    started_at: datetime
    at: datetime
    counted_to: dict[str, Position]  # by stream
    handled: int = 0
    succeeded: int = 0
    retried: int = 0
    dead_lettered: int = 0
    skipped: int = 0
    handler_seconds: float = 0


class Latest(NamedTuple):
    """The current messages on the subjects of totals."""

    sequences: dict[str, int]  # by subject
    bridged: dict[Address, Total]  # ours
    own: dict[tuple[str | None, str], str]  # services of NATSConsumer, by stream and durable


async def latest_totals(client: Client, settings: Settings) -> Latest:
    """The latest totals of every consumer; see `drain.totals` for their use."""
    found = Latest({}, {}, {})
    subject = settings.subjects.totals
    stream = await find_stream(client.jetstream(), subject, settings.totals_stream)
    if stream is None:
        return found
    async with aclosing(latest_messages(client, stream, subject)) as latest:
        async for msg in latest:
            found.sequences[msg.subject] = delivery_of(msg).sequence
            try:
                total = msgspec.json.decode(msg.data, type=Total)
            except msgspec.MsgspecError:
                with suppress(msgspec.MsgspecError):
                    own = msgspec.json.decode(msg.data, type=_Own)
                    found.own[own.stream, own.consumer] = own.service
                continue
            found.bridged[total.stream, total.consumer] = total  # they come oldest first
    return found


def owner_of(latest: Latest, address: Address) -> str | None:
    """The service of this NATSConsumer, which publishes its own totals."""
    stream, consumer = address
    return latest.own.get((stream, consumer)) or latest.own.get((None, consumer))


async def publish_totals(
    client: Client, settings: Settings, *, anew: Collection[Address] = ()
) -> int:
    """Count new reports and publish the totals of every such consumer; returns their number.

    Those in `anew` begin at zero, with reports from now on. May raise the errors of a publish.
    """
    js = client.jetstream()
    acks = await ack_stream(js, settings.ack_stream)
    if acks is None:
        return 0
    latest = await latest_totals(client, settings)
    adopted = [
        info
        async for _, info in all_consumers(client, settings.stream_names.own)
        if await told_percent(js, acks, info) == 100 and not owner_of(latest, _address(info))
    ]
    if not adopted:
        return 0
    totals = {_address(info): _total(_address(info), settings, latest, anew) for info in adopted}
    holders = {acks: [ACK_METRICS]}  # first: it has the start time of the others
    for subject in ADVISORIES:
        if holder := await find_stream(js, subject, settings.advisory_stream):
            holders.setdefault(holder, []).append(subject)
    for stream, subjects in holders.items():
        await _count(client, stream, subjects, totals, anew)
    for total in totals.values():
        await _publish(client, settings, latest, total)
    return len(totals)


def _address(info: ConsumerInfo) -> Address:
    return info.stream_name, info.name


def _total(
    address: Address, settings: Settings, latest: Latest, anew: Collection[Address]
) -> Total:
    """Where counting of a consumer continues."""
    service, now = service_of(*address, settings.bridge_services), datetime.now(UTC)
    before = latest.bridged.get(address)
    if before is None or address in anew:
        return Total(service, *address, now, now, {})
    if before.service != service:  # renamed since: earlier counts stay under the old name
        return Total(service, *address, before.at, now, before.counted_to)
    before.at = now
    return before


async def _count(
    client: Client,
    stream: str,
    subjects: Sequence[str],
    totals: Mapping[Address, Total],
    anew: Collection[Address],
) -> None:
    """Add the reports of a stream for each consumer, after its counted position."""
    info = await client.jetstream().stream_info(stream)
    created, last = str(info.created), info.state.last_seq
    starts, first, failed = {}, set(), defaultdict[Address, set[int]](set)
    for address, total in totals.items():
        if stream not in total.counted_to:
            first.add(address)
        position = total.counted_to.get(stream, Position(created, 0))
        if position.created != created:
            position = Position(created, 0)
        if position.sequence and info.state.first_seq > position.sequence + 1:
            logger.warning(
                "The totals of %s are too low: %s dropped some of %d messages before they were"
                " counted. Let it keep messages for longer, or run the bridge more often.",
                "/".join(address),
                stream,
                info.state.first_seq - position.sequence - 1,
            )
        starts[address] = last if address in anew else min(position.sequence, last)
        total.counted_to = total.counted_to | {stream: Position(created, last)}
    filters = (each.replace(">", ".".join(address)) for each in subjects for address in totals)
    reader, domain = LogReader(client, stream, tuple(filters)), domain_of(client)
    await reader.seek(min(starts.values()) + 1)
    try:
        while found := await reader.read(_READ_MESSAGES, _READ_BYTES, last):
            for message in found:
                of_stream, consumer = message.subject.split(".")[-2:]
                if message.sequence > starts[address := (of_stream, consumer)]:
                    is_first = address in first
                    _add(totals[address], message, domain, failed[address], is_first=is_first)
    finally:
        await reader.close()


def _add(
    total: Total, message: LogMessage, domain: str, failed: set[int], *, is_first: bool
) -> None:
    try:
        if message.subject == ack_subject(total.stream, total.consumer):
            metric = read_ack(message.data, domain)
            total.started_at = min(total.started_at, metric.timestamp)
            total.succeeded += 1
            total.handler_seconds += max(metric.ack_time, 0) / 1e9
            deliveries = metric.deliveries
        else:
            advisory = read_advisory(message.data, domain)
            if is_first and advisory.timestamp < total.started_at:
                return  # from before the server reported acknowledgements
            if advisory.reason in REMOVED_REASONS or advisory.stream_seq in failed:
                return  # no failure, or already counted: it was terminated too late
            failed.add(advisory.stream_seq)
            total.dead_lettered += 1
            deliveries = advisory.deliveries
    except ValueError as error:
        logger.warning("The message on %s is not valid: %s", message.subject, error)
        return
    total.handled += 1  # its last call; it is unknown whether earlier deliveries were calls
    total.retried += deliveries - 1


async def _publish(client: Client, settings: Settings, latest: Latest, total: Total) -> None:
    # Consumers of two streams may have one name.
    subject = settings.subjects.total(total.service, f"{total.stream}-{total.consumer}")
    headers = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(latest.sequences.get(subject, 0))}
    try:
        data = msgspec.json.encode(total)
        await client.jetstream().publish(subject, data, headers=headers, timeout=5)
    except APIError as error:
        if error.err_code != _WRONG_LAST_SEQUENCE:
            raise
        logger.info("The totals of %s were counted by another bridge", total.consumer)


class _Own(msgspec.Struct):
    """The totals of a NATSConsumer; older ones do not contain their stream."""

    service: str
    consumer: str
    stream: str | None = None
