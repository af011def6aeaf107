"""How a redrive ended at a consumer that has no code of ours, and so says nothing itself.

It gave the event up: the server's advisory becomes a dead letter, which the follower hears. It was
content: its acknowledgement floor passes the event, and no advisory comes. The floor alone is no
proof, since it passes an exhausted event too, once a later one is acknowledged.
"""

import asyncio
from typing import NamedTuple

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import APIError

_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 2.0  # in which an advisory of an event that the floor has passed must have come
_HEARD_SECONDS = 0.2  # for a dead letter that the server has sent to be heard


class Place(NamedTuple):
    """Where a redriven event stands, and whose answer counts."""

    stream: str
    sequence: int
    consumer: str  # durable name


async def inferred_success(
    js: JetStreamContext, place: Place, bridge: tuple[str, str], outcome: "asyncio.Future[str]"
) -> str:
    """Wait until `outcome` is known or nothing is left that could contradict a success.

    Returns the outcome, or `succeeded`, which is then inferred. `bridge` is the stream of
    advisories and the bridge's durable on it. May wait for ever: the caller has the patience.
    """
    while not await _is_past(js, place):
        if await _heard(outcome, _LOOK_SECONDS):
            return outcome.result()
    if await _heard(outcome, _SETTLE_SECONDS):
        return outcome.result()
    while await _backlog(js, *bridge):
        if await _heard(outcome, _LOOK_SECONDS):
            return outcome.result()
    return outcome.result() if await _heard(outcome, _HEARD_SECONDS) else "succeeded"


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


async def _backlog(js: JetStreamContext, stream: str, durable: str) -> bool:
    """Whether there are advisories that the bridge has not brought in, as far as can be known."""
    try:
        info = await js.consumer_info(stream, durable)
    except (nats.errors.Error, APIError):
        return True
    return bool((info.num_pending or 0) + (info.num_ack_pending or 0))
