"""The streams and their creation: idempotent, and refused if data would be lost.

Used by the consumer library and by `dlq migrate`; needs nats-py only.
"""

import json

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    Header,
    ObjectInfo,
    ObjectStoreConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import NotFoundError, ObjectNotFoundError
from nats.js.object_store import ObjectStore

from sahool_dlq.deadletter.subjects import covers
from sahool_dlq.errors import NotPermittedError, StreamError
from sahool_dlq.jetstream.api import ask
from sahool_dlq.jetstream.incoming import can_hold
from sahool_dlq.jetstream.stream_names import StreamNames

DAY = 24 * 3600.0
GIVEN_UP = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"
TERMINATIONS = "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED"
ADVISORIES = (f"{GIVEN_UP}.>", f"{TERMINATIONS}.>")
"""Subjects of the server's advisories when any consumer gives an event up."""
REMOVED_REASONS = ("Unacknowledged message was deleted", "Message deleted by stream limits")
"""The reasons of a MSG_TERMINATED that no consumer sent: its event left the stream while a consumer
had it, by a newer value, age, TTL, another limit, a rollup, a purge by subject or a deletion."""
ACK_METRICS = "$JS.EVENT.METRIC.CONSUMER.ACK.>"
"""Subject of the server's reports of acknowledgements, for sampled consumers."""
BODIES_BUCKET = "sahool-dlq-bodies"
"""The object store of bodies that are too large for a dead letter."""
_NO_STREAM = "."  # not a valid stream name
_ANSWER_SECONDS = 2  # of a stream that is further away
_ACK_BYTES = 1 << 30  # about four million acknowledgements


async def ensure_streams(js: JetStreamContext, names: StreamNames) -> dict[str, str]:
    """Create missing streams; returns, for each role, the name of its stream.

    A stream of another name that already captures a role's subjects (older services create
    `SAHOOL_EVENTS` on `sahool.>`) serves that role. An existing stream of ours that lacks a subject
    is extended. Raises StreamError if a stream captures only some of the subjects.
    """
    # First, because they check for one elsewhere, and a user that creates streams may publish
    # totals.
    totals = await ensure_totals_stream(js, names)
    log = await ensure_log_stream(js, names)
    return {
        "events": await ensure_event_stream(js, names),
        "dead_letters": log,
        "totals": totals,
        "attempts": await ensure_attempts_stream(js, names),
    }


async def ensure_event_stream(
    js: JetStreamContext, names: StreamNames, subject: str | None = None
) -> str:
    """Create the stream of events if it is missing; see `ensure_streams`.

    If no stream captures the subject of a given event, it is extended by that and similar subjects.
    """
    events = names.subjects.events_with(subject) if subject else names.subjects.events
    return await _ensure(js, names.events, events, max_age=7 * DAY)


async def ensure_log_stream(js: JetStreamContext, names: StreamNames) -> str:
    """Create the dead-letter stream if it is missing; see `ensure_streams`."""
    subjects = names.subjects.log
    asked = names.subjects.dead_letter("anybody")
    return await _ensure(
        js, names.dead_letters, subjects, max_age=30 * DAY, is_log=True, asked=asked
    )


async def ensure_totals_stream(js: JetStreamContext, names: StreamNames) -> str:
    """Create the stream of the consumers' counters if it is missing; see `ensure_streams`."""
    subjects, asked = (names.subjects.totals,), names.subjects.total("anybody", "anybody")
    return await _ensure(js, names.totals, subjects, max_age=7 * DAY, asked=asked)


async def ensure_attempts_stream(js: JetStreamContext, names: StreamNames) -> str:
    """Create the stream of attempts if it is missing; see `ensure_streams`.

    It has one message for each event that waits for a retry: the latest.
    """
    subjects = (names.subjects.attempts,)
    return await _ensure(js, names.attempts, subjects, max_age=7 * DAY, max_msgs_per_subject=1)


async def ensure_advisory_stream(js: JetStreamContext, names: StreamNames) -> str:
    """Create the stream of the server's advisories if there is none; see `ensure_streams`.

    The server sends them even if nobody listens; without a stream they are lost.
    """
    return await _ensure(js, names.advisories, ADVISORIES, max_age=7 * DAY)


async def ensure_ack_stream(js: JetStreamContext, names: StreamNames) -> str:
    """Create the stream of the server's reports of acknowledgements, if there is none.

    It is a separate stream, because there is one message for each handled event: together with the
    advisories it would need a limit, which would also remove advisories, and these are failures.
    """
    return await _ensure(js, names.acks, (ACK_METRICS,), max_age=DAY, max_bytes=_ACK_BYTES)


async def ensure_body_store(js: JetStreamContext) -> ObjectStore:
    """The object store of large bodies, created if it is missing."""
    try:
        await js.object_store(BODIES_BUCKET)
    except NotFoundError:
        await js.create_object_store(BODIES_BUCKET, config=ObjectStoreConfig(ttl=30 * DAY))
    return _WritableStore(BODIES_BUCKET, f"OBJ_{BODIES_BUCKET}", js)


class _WritableStore(ObjectStore):
    """A store for users that may only write: it finds nothing, and writes."""

    async def get_info(self, name: str, show_deleted: bool | None = False) -> ObjectInfo:
        try:
            return await super().get_info(name, show_deleted)
        except NotPermittedError:
            raise ObjectNotFoundError from None


async def find_streams(js: JetStreamContext, subject: str) -> list[str]:
    """The names of all streams that capture a part of a subject or filter.

    Mirrors, and messages from `sources`, are not included.
    """
    found: list[str] = []
    while True:  # nats-py would return the first of several
        answer = await ask(js, "STREAM.NAMES", subject=subject, offset=len(found))
        page = answer.get("streams") or []
        found += page
        if not page or len(found) >= answer["total"]:
            return sorted(found)


async def find_stream(js: JetStreamContext, subject: str, name: str | None = None) -> str | None:
    """The stream that captures a subject or filter, or None; of several the one called `name`.

    Raises StreamError if several do and none has that name.
    """
    found = await find_streams(js, subject)
    if len(found) > 1 and name not in found:
        raise StreamError(
            f"Streams {' and '.join(found)} all capture a part of {subject}: give one of them as"
            f" stream_name, or use a narrower filter."
        )
    return name if name in found else next(iter(found), None)


async def named_stream(js: JetStreamContext, name: str, subject: str) -> str:
    """`name`, if there is such a stream and it can contain messages that a filter matches.

    Raises StreamError otherwise.
    """
    holders = await find_streams(js, subject)
    if name in holders:
        return name
    holds = await can_hold(js, name, subject)
    if holds:
        return name
    others = f" ({' and '.join(holders)} can)" if holders else ""
    if holds is None:
        raise StreamError(
            f"There is no stream {name} for {subject}{others}: create it, or give another"
            f" stream_name."
        )
    raise StreamError(
        f"Stream {name} does not receive {subject}{others}: give another stream_name or filter,"
        f" or add the subject to the stream."
    )


async def _ensure(
    js: JetStreamContext,
    name: str,
    subjects: tuple[str, ...],
    *,
    max_age: float,
    max_msgs_per_subject: int = -1,
    max_bytes: int | None = None,
    is_log: bool = False,
    asked: str | None = None,  # subject of one that all linked domains and accounts share
) -> str:
    existing = await _stream_info(js, name)
    if existing is None:
        holders = {subject: await find_streams(js, subject) for subject in subjects}
        if other := _sole_holder(holders, name):
            return other
        if asked:
            await _refuse_second(js, name, asked)
        config = _new_config(name, subjects, max_age, is_log)
        config.max_msgs_per_subject = max_msgs_per_subject
        config.max_bytes = max_bytes
        await js.add_stream(config)
        return name
    held = list(existing.config.subjects or [])
    missing = [s for s in subjects if not any(covers(have, s) for have in held)]
    if missing:
        holders = {subject: await find_streams(js, subject) for subject in missing}
        if other := _sole_holder(holders, name):
            return other
        if existing.config.mirror or (existing.config.sources and not held and not is_log):
            raise StreamError(
                f"Stream {name} gets its messages from others, and does not capture"
                f" {', '.join(missing)}: let another stream capture them."
            )
        kept = [have for have in held if not any(covers(s, have) for s in missing)]
        config = existing.config
        config.subjects = [*kept, *missing]
        await js.update_stream(config)
    return name


async def _refuse_second(js: JetStreamContext, name: str, subject: str) -> None:
    """Raise StreamError if a stream outside this API already stores a subject.

    On a leaf node that is a stream in the hub's domain, in an account one that another account
    exports: published messages reach it, and with a second stream here, each would have only a part
    of the log. Every stream that gets a test message answers with an error that the message is not
    for it.
    """
    request = js._nc.request  # noqa: SLF001  (it has no public one)
    try:
        headers = {Header.EXPECTED_STREAM.value: _NO_STREAM}
        answer = await request(subject, headers=headers, timeout=_ANSWER_SECONDS)
        keeper = json.loads(answer.data).get("stream")
    except (nats.errors.NoRespondersError, TimeoutError, NotPermittedError):
        return  # no stream stores it, or that is unknown
    except (ValueError, AttributeError):
        return  # no stream's answer
    if keeper and not await find_streams(js, subject):  # one that was just made is found
        raise StreamError(
            f"Stream {keeper} of another JetStream domain or account captures {subject} already,"
            f" and {name} would be a second stream for it: set jetstream_domain or"
            f" jetstream_api_prefix"
            " (DLQ_NATS_JETSTREAM_…) to where it is (docs/connecting.md)."
        )


def _sole_holder(holders: dict[str, list[str]], name: str) -> str | None:
    found = {holder for those in holders.values() for holder in those if holder != name}
    if not found:
        return None
    if len(found) > 1 or [] in holders.values():
        raise StreamError(
            f"Stream {' and '.join(sorted(found))} captures some of {', '.join(holders)} but not"
            f" all: give stream {name} all of them, or use one stream for all of them."
        )
    return found.pop()


def _new_config(name: str, subjects: tuple[str, ...], max_age: float, is_log: bool) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=list(subjects),
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        max_age=max_age,
        duplicate_window=3600 if is_log else 120,
        allow_direct=True,
        deny_purge=is_log,
    )


async def _stream_info(js: JetStreamContext, name: str) -> StreamInfo | None:
    try:
        return await js.stream_info(name)
    except NotFoundError:
        return None
