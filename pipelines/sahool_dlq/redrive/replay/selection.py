"""The events that a person selects for a replay, and the consumer that gets them."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError

from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.errors import RedriveError, SelectionError, UnknownNameError
from sahool_dlq.jetstream.consumers import parts_of
from sahool_dlq.jetstream.handled import keeps_handled
from sahool_dlq.jetstream.incoming import stream_names
from sahool_dlq.redrive.choose.selection import Selection, moment, subject_pattern
from sahool_dlq.redrive.choose.where import COLUMNS, compile_where

__all__ = ["EVENT_COLUMNS", "Position", "ReplaySelection", "find_consumer", "stream_position"]

Position = datetime | int
"""A time, or a sequence of the stream."""

EVENT_COLUMNS = {
    name: COLUMNS[name]
    for name in (
        *("subject", "event_type", "event_id", "source_service"),
        *("tenant_id", "field_id", "farmer_id"),
    )
}
"""The names in the conditions of a replay, besides `data.…` and `headers.…`."""

_SEQUENCE = re.compile(r"seq:\s*(\d{1,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReplaySelection:
    """Events that a consumer has handled; all given conditions must hold.

    Raises SelectionError without any condition, or for a subject that is no filter.
    """

    consumer: str  # a durable name, or STREAM/CONSUMER
    since: Position | None = None  # stored at or after
    until: Position | None = None  # stored before
    subject: str | None = None  # or a filter
    where: str | None = None
    limit: int = Selection().limit  # maximum number; the oldest first

    def __post_init__(self) -> None:
        for name in ("consumer", "subject", "where"):
            value = getattr(self, name)
            if value is not None and not value.strip():  # an unset variable of a script
                raise SelectionError(
                    f"An empty {name} selects nothing: say which, or leave it out."
                )
        if self.subject is not None:
            subject_pattern(self.subject)
        if not any([self.since, self.until, self.subject, self.where]):
            raise SelectionError("Say what to replay: --since, --until, --subject or --where.")

    def as_json(self) -> dict[str, Any]:
        """The given conditions."""
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in ("since", "until"):
            if isinstance(values[name], datetime):
                values[name] = values[name].isoformat()
        return {name: value for name, value in values.items() if value is not None}

    def masked(self, mask: Callable[[str], str]) -> "ReplaySelection":
        """The same for storing: `mask` is applied to each free text."""
        return replace(
            self,
            subject=self.subject and mask(self.subject),
            where=self.where and mask(self.where),
        )

    def condition(self) -> tuple[str, list[Any]] | None:
        """`where` as SQL with its values; raises QueryError if it is not valid."""
        return None if self.where is None else compile_where(self.where, EVENT_COLUMNS)

    def takes(self, subject: str) -> bool:
        """Whether an event's subject is selected."""
        return self.subject is None or matches(self.subject, subject)

    def is_before(self, sequence: int, stored_at: datetime) -> bool:
        """Whether an event is too early."""
        return _is_before(self.since, sequence, stored_at)

    def is_after(self, sequence: int, stored_at: datetime) -> bool:
        """Whether an event, and so all that follow it, are too late."""
        return self.until is not None and not _is_before(self.until, sequence, stored_at)


def _is_before(limit: Position | None, sequence: int, stored_at: datetime) -> bool:
    if isinstance(limit, datetime):
        return stored_at < limit
    return limit is not None and sequence < limit


def stream_position(text: str, now: datetime) -> Position:
    """`24h`, `7d` or an ISO 8601 time as `moment` reads them, or a sequence: `seq:120000`.

    Raises SelectionError for anything else.
    """
    if found := _SEQUENCE.fullmatch(text.strip()):
        return int(found[1])
    try:
        return moment(text, now)
    except RedriveError as error:
        raise SelectionError(f"{str(error).removesuffix('.')}, or seq:120000.") from None


async def find_consumer(js: JetStreamContext, name: str, events_stream: str) -> ConsumerInfo:
    """The state of a durable consumer, given as its name or STREAM/CONSUMER.

    A name is searched in `events_stream`, then in all streams. Raises UnknownNameError if there is
    none, RedriveError if several streams have one, or if its stream deletes handled events.
    """
    stream, durable = parts_of(name) or parts_of(f"{events_stream}/{name}") or ("", "")
    found = await _named(js, [stream], durable)
    if not found and durable == name:
        found = await _named(js, await stream_names(js), durable)
    if not found:
        raise UnknownNameError(
            f"There is no consumer {name[:100]!r}: `nats consumer ls STREAM` lists them."
        )
    if len(found) > 1:
        ways = " or ".join(f"{each.stream_name}/{each.name}" for each in found)
        raise SelectionError(f"Several streams have a consumer {name}: write {ways}.")
    config = (await js.stream_info(found[0].stream_name)).config
    if not keeps_handled(config):
        raise RedriveError(
            f"{config.name} deletes the events that were handled ({config.retention}), so none can"
            " be replayed."
        )
    return found[0]


async def _named(js: JetStreamContext, streams: Sequence[str], durable: str) -> list[ConsumerInfo]:
    found = []
    for stream in filter(None, streams):
        with contextlib.suppress(NotFoundError):
            found.append(await js.consumer_info(stream, durable))
    return found
