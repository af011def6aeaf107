"""The outcome of a redrive at a consumer without our library, which reports nothing itself.

If it gave the event up, the server's advisory becomes a dead letter, which the follower receives.
If it succeeded, it acknowledged the event: the server reports that, a proof (`redrive.acks`), or
the acknowledgement was received on its way to the server (`redrive.sent_acks`) and nothing
contradicts it. Counters prove nothing: an acknowledgement floor also passes events that were
exhausted, replaced, expired or deleted, that a reset skipped, and that are before the start of a
recreated consumer.
"""

import asyncio
from typing import Any, NamedTuple

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.redrive.publish.acks import AckFollower
from sahool_dlq.redrive.publish.heard import Mark, Place
from sahool_dlq.redrive.publish.sent_acks import SentAcks

_NO_MESSAGE = 10037  # the server's code for "no message found"
_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 2.0  # within this time an advisory about an acknowledged event must have arrived
_HEARD_SECONDS = 0.2  # for a sent dead letter to arrive


class Advisories(NamedTuple):
    """Where the server's advisories are, and who reads them."""

    stream: str
    durable: str  # the bridge's


async def end_of_foreign(
    js: JetStreamContext,
    told: AckFollower,
    sent: SentAcks,
    place: Place,
    mark: Mark,
    advisories: Advisories,
    outcome: "asyncio.Future[str]",
) -> str:
    """The outcome, or `proved` or `inferred`, which are successes.

    `mark` is from before the publish. If the server reports every acknowledgement, nothing is
    inferred. It may wait for ever: the caller sets the time limit.
    """
    proved = asyncio.ensure_future(told.acknowledged(place, mark))
    heard = asyncio.ensure_future(sent.acknowledged(place, mark))
    ends: list[asyncio.Future[Any]] = [outcome, proved]
    try:
        await asyncio.wait(
            ends if mark.is_all_told else [*ends, heard], return_when=asyncio.FIRST_COMPLETED
        )
        if not outcome.done() and not proved.done():
            await _settle(js, advisories, outcome)
        # A service that writes its own dead letter acknowledges the event after it.
        if await _has_ended(outcome, _HEARD_SECONDS):
            return outcome.result()
        return "proved" if proved.done() else "inferred"
    finally:
        proved.cancel()
        heard.cancel()


async def _settle(
    js: JetStreamContext, advisories: Advisories, outcome: "asyncio.Future[str]"
) -> None:
    """Wait until no advisory is left that could report that it was given up before."""
    is_over = await _has_ended(outcome, _SETTLE_SECONDS)
    while not is_over and await _backlog(js, advisories):
        is_over = await _has_ended(outcome, _LOOK_SECONDS)


async def _has_ended(outcome: "asyncio.Future[str]", seconds: float) -> bool:
    done, _ = await asyncio.wait({outcome}, timeout=seconds)
    return bool(done)


async def _backlog(js: JetStreamContext, advisories: Advisories) -> bool:
    """Whether there are advisories that the bridge has not read, as far as known."""
    try:
        info = await js.consumer_info(advisories.stream, advisories.durable)
    except (nats.errors.Error, APIError, NotPermittedError):
        return True
    return bool((info.num_pending or 0) + (info.num_ack_pending or 0))


async def why_silent(js: JetStreamContext, place: Place, mark: Mark) -> str | None:
    """What happened to an event without an answer; None if it still waits."""
    try:
        info = await js.consumer_info(place.stream, place.consumer)
        if info.created != mark.consumer_created:
            return f"{place.stream}/{place.consumer} was created again meanwhile"
        await js.get_msg(place.stream, place.sequence)
    except NotFoundError as error:
        if error.err_code == _NO_MESSAGE:
            return f"the event left {place.stream} without an acknowledgement"
        return f"{place.stream}/{place.consumer} no longer exists"
    except (nats.errors.Error, APIError, NotPermittedError):
        return None
    return None
