"""How a redrive ended at a consumer that has no code of ours, and so says nothing itself.

It gave the event up: the server's advisory becomes a dead letter, which the follower hears. It was
content: where the server tells of its acknowledgements, that proves it (`redrive.acks`). Elsewhere
its acknowledgement floor passes the event, and no advisory comes. The floor alone says little: it
passes an exhausted event too, once a later one is acknowledged, and one that left its stream before
it was answered: by a newer value, its age, a purge. That is no success.
"""

import asyncio
import json
from typing import NamedTuple

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy
from nats.js.errors import APIError, NotFoundError

from pipelines.jetstream.streams import REMOVED_REASONS, TERMINATIONS
from pipelines.redrive.acks import AckFollower, Mark, Place

_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 2.0  # in which an advisory of an event that the floor has passed must have come
_HEARD_SECONDS = 0.2  # for a dead letter that the server has sent to be heard


class Advisories(NamedTuple):
    """Where the server's advisories are, and who brings them in."""

    stream: str
    since: int  # the first sequence that can be about the redrives
    durable: str  # the bridge's


async def end_of_foreign(
    js: JetStreamContext,
    acks: AckFollower,
    place: Place,
    mark: Mark | None,
    advisories: Advisories,
    outcome: "asyncio.Future[str]",
) -> str:
    """The outcome, or `proved` or `inferred`, which are successes.

    `mark` is from before the publish. Where the server tells of every acknowledgement, nothing is
    inferred. May wait for ever: the caller has the patience.
    """
    if mark is None:
        return await inferred_success(js, place, advisories, outcome)
    acked = asyncio.ensure_future(acks.acknowledged(place, mark))
    told = asyncio.ensure_future(_first_told(outcome, acked))
    try:
        return await (told if mark.is_all_told else inferred_success(js, place, advisories, told))
    finally:
        acked.cancel()
        told.cancel()


async def _first_told(outcome: "asyncio.Future[str]", acked: "asyncio.Future[str]") -> str:
    await asyncio.wait({outcome, acked}, return_when=asyncio.FIRST_COMPLETED)
    # A service that wrote a dead letter of its own acknowledges the event after it.
    if outcome.done() or await _heard(outcome, _HEARD_SECONDS):
        return outcome.result()
    return acked.result()


async def inferred_success(
    js: JetStreamContext, place: Place, advisories: Advisories, outcome: "asyncio.Future[str]"
) -> str:
    """The outcome, or `inferred` once nothing is left that could contradict a success."""
    while not await _is_past(js, place) or await _may_be_removed(js, place, advisories):
        if await _heard(outcome, _LOOK_SECONDS):
            return outcome.result()
    if await _heard(outcome, _SETTLE_SECONDS):
        return outcome.result()
    while await _backlog(js, advisories.stream, advisories.durable):
        if await _heard(outcome, _LOOK_SECONDS):
            return outcome.result()
    return outcome.result() if await _heard(outcome, _HEARD_SECONDS) else "inferred"


async def _heard(outcome: "asyncio.Future[str]", seconds: float) -> bool:
    done, _ = await asyncio.wait({outcome}, timeout=seconds)
    return bool(done)


async def _is_past(js: JetStreamContext, place: Place) -> bool:
    """Whether the consumer has answered for this event and all before it."""
    try:
        info = await js.consumer_info(place.stream, place.consumer)
    except (nats.errors.Error, APIError):
        return False  # gone, or not to be asked now
    return info.ack_floor is not None and info.ack_floor.stream_seq >= place.sequence


async def _may_be_removed(js: JetStreamContext, place: Place, advisories: Advisories) -> bool:
    """Whether the event may have left its stream before the consumer answered for it."""
    try:
        await js.get_msg(place.stream, place.sequence)
    except NotFoundError:
        pass
    except (nats.errors.Error, APIError):
        return True  # nobody can say: look again
    else:
        return False
    try:
        stream = await js.stream_info(place.stream)
        if stream.config.retention == RetentionPolicy.LIMITS:
            return True  # an answer does not take it away, and a purge is not told of
        return await _is_told_removed(js, place, advisories)
    except (nats.errors.Error, APIError):
        return True


async def _is_told_removed(js: JetStreamContext, place: Place, advisories: Advisories) -> bool:
    subject = f"{TERMINATIONS}.{place.stream}.{place.consumer}"
    sequence = advisories.since
    while True:
        try:
            found = await js.get_msg(advisories.stream, sequence, subject=subject, next=True)
        except NotFoundError:
            return False
        said = json.loads(found.data or b"{}")
        if said.get("stream_seq") == place.sequence and said.get("reason") in REMOVED_REASONS:
            return True
        sequence = (found.seq or sequence) + 1


async def _backlog(js: JetStreamContext, stream: str, durable: str) -> bool:
    """Whether there are advisories that the bridge has not brought in, as far as can be known."""
    try:
        info = await js.consumer_info(stream, durable)
    except (nats.errors.Error, APIError):
        return True
    return bool((info.num_pending or 0) + (info.num_ack_pending or 0))
