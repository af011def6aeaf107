"""Failures without an advisory, as far as the counters of a consumer show them.

The server notices that an event is exhausted when somebody pulls, and reports it once, to current
listeners. Its counters (`CONSUMER.INFO`) still show it. They prove the following, tested on
nats-server 2.14 and 2.15, with `max_deliver` 2 or more (older servers also count removed events):

- `num_redelivered` counts events that were delivered more than once and not acknowledged. It
  includes exhausted ones, also after restarts, until the stream removes the event or a late
  acknowledgement comes. Any purge by subject and any rollup, of other subjects too, may reset it to
  zero. So it may be too low, but never too high.
- `num_ack_pending` counts events that wait for an acknowledgement. So `num_redelivered -
  num_ack_pending` events, if positive, are certainly exhausted.
- If no event waits for an acknowledgement, and the stream has exactly `num_redelivered` of the
  events that the consumer ever got, all of these are exhausted (unless its filter was changed
  since). This is true on every work queue, and if all events failed. Otherwise there are
  acknowledged events among them, and no counter shows which.
"""

import json
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerInfo, StreamInfo
from nats.js.errors import NotFoundError

from sahool_dlq.jetstream.api import api_subject, ask
from sahool_dlq.jetstream.handled import filters_of
from sahool_dlq.jetstream.stored import stored_message

logger = logging.getLogger(__name__)

_MOST_NUDGES = 100
_MOST_SUBJECTS = 100_000  # that the server lists in one answer


def exhausted_at_least(info: ConsumerInfo) -> int:
    """The number of events of its stream that the consumer has certainly given up."""
    if not _gives_up(info):
        return 0
    return max(0, (info.num_redelivered or 0) - (info.num_ack_pending or 0))


def is_late(info: ConsumerInfo) -> bool:
    """Whether there may be exhausted events that the server notices only when somebody pulls.

    A consumer that is deleted when idle is left out, because a pull would keep it alive.
    """
    config = info.config
    return bool(
        _gives_up(info)
        and config.durable_name
        and not config.deliver_subject
        and not config.inactive_threshold
        and info.num_ack_pending
        and not info.num_waiting
    )


def _gives_up(info: ConsumerInfo) -> bool:
    return (info.config.max_deliver or -1) > 0 and info.config.ack_policy == AckPolicy.EXPLICIT


async def all_consumers(
    client: Client, without: Iterable[str]
) -> AsyncIterator[tuple[StreamInfo, ConsumerInfo]]:
    """Every consumer of every stream, except these streams."""
    js, left_out = client.jetstream(), set(without)
    streams: list[StreamInfo] = []
    while page := await js.streams_info(len(streams)):
        streams += page
    for stream in streams:
        name, offset = str(stream.config.name), 0
        while name not in left_out and (found := await js.consumers_info(name, offset)):
            offset += len(found)
            for info in found:
                yield stream, info


async def nudge(client: Client, info: ConsumerInfo) -> None:
    """Make the server check events whose acknowledgement is overdue, like the consumer's next pull.

    The request allows at most one byte, so nothing is delivered, and no delivery is counted. In a
    priority group it neither takes the pin nor prolongs that of a client, because it has no id.
    """
    request: dict[str, Any] = {"batch": 1, "no_wait": True, "max_bytes": 1}
    js, what = client.jetstream(), f"CONSUMER.INFO.{info.stream_name}.{info.name}"
    try:
        config = (await ask(js, what))["config"]  # nats-py does not support groups
    except NotFoundError:
        return
    going_on = ["409"]
    if groups := config.get("priority_groups"):
        request["group"] = groups[0]
    if config.get("priority_policy") == "pinned_client":
        going_on.append("404")  # also means that there are events, and for another client
    body = json.dumps(request).encode()
    where = api_subject(client, f"CONSUMER.MSG.NEXT.{info.stream_name}.{info.name}")
    # An event that may still be delivered goes to the end of the queue; the next one may be
    # exhausted.
    for _ in range(min(info.num_ack_pending or 0, _MOST_NUDGES)):
        try:
            answer = await client.request(where, body, timeout=2)
        except nats.errors.Error:
            return
        headers = answer.headers or {}
        if headers.get("Status") not in ("404", "408", "409"):
            logger.warning("%s cannot be looked up: %s", where, headers.get("Description"))
        if headers.get("Status") not in going_on:
            return  # nothing to deliver now


async def proven(client: Client, info: ConsumerInfo) -> list[int] | None:
    """The sequences of the exhausted events, if the counters prove them."""
    count, last = info.num_redelivered or 0, _last_delivered(info)
    if info.num_ack_pending or await _delivered_count(client, info) != count:
        return None
    found: list[int] = []
    for subject in filters_of(info):
        sequence = 1
        while event := await stored_message(client, info.stream_name, sequence, subject):
            if event.sequence > last or len(found) > count:
                break
            found.append(event.sequence)
            sequence = event.sequence + 1
    now = await client.jetstream().consumer_info(info.stream_name, info.name)
    has_moved = (now.num_redelivered, now.num_ack_pending, _last_delivered(now)) != (count, 0, last)
    return None if has_moved or len(found) != count else found


def _last_delivered(info: ConsumerInfo) -> int:
    return info.delivered.stream_seq if info.delivered else 0


async def _delivered_count(client: Client, info: ConsumerInfo) -> int:
    """The number of events in its stream that it ever got; -1 if unknown."""
    total = 0
    for subject in filters_of(info):
        js = client.jetstream()
        state = (await js.stream_info(info.stream_name, subjects_filter=subject)).state
        subjects = state.subjects or {}
        if len(subjects) >= _MOST_SUBJECTS:
            return -1
        total += sum(subjects.values())
    return total - (info.num_pending or 0)
