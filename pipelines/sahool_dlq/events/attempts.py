"""The number and results of an event's handler calls, over all processes.

The server counts deliveries, but not every delivery becomes a call: an event may wait in a process
that dies, or be delivered again because the server was restarted. So the calls of an event that is
delivered again are recorded in a stream, one message per event: which process called last, at which
delivery, and how many calls began. It contains no text of the event or its errors.
"""

import json
import logging
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client
from nats.js.api import PubAck
from nats.js.errors import NoStreamResponseError, NotFoundError

from sahool_dlq.deadletter.sanitize import clean_text
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.events.cause import Cause, cause_of, shortened
from sahool_dlq.jetstream.permissions import check_permitted
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.jetstream.stored import last_message

logger = logging.getLogger(__name__)

_LONGEST_KEPT_TRACE = 16_000  # characters, while an event waits for its retry
_MOST_CALLS = 10  # maximum in a dead letter
_LOOK_AGAIN_SECONDS = 10.0  # for the stream, while there is none


@dataclass(slots=True)
class Attempts:
    """The recorded calls for one event."""

    first_at: datetime  # when the first call began, UTC
    delivery_count: int = 0  # of the delivery that the latest call was for
    begun_count: int = 0  # calls that began, including the running one
    failed_count: int = 0  # calls that ended in failure
    calls: list[dict[str, str]] = field(default_factory=list)  # the latest that failed
    cause: Cause | None = None  # of the last call whose cause is known, its texts cut
    owner: str = ""  # the process that called last
    is_over: bool = False  # it was handled or dead-lettered: later calls count from zero

    @property
    def unfinished_count(self) -> int:
        """Calls that began and never ended, because their process died."""
        return self.begun_count - self.failed_count

    def add(self, at: datetime, error: BaseException | None, reason: str | None = None) -> None:
        """Record a failed call."""
        call = {"at": at.isoformat(), "error_type": "", "error_message": ""}
        if error is not None:
            kind, message, trace = cause_of(error, _LONGEST_KEPT_TRACE)
            self.cause = Cause(kind, shortened(message, _LONGEST_KEPT_TRACE), trace)
            call |= {"error_type": kind, "error_message": message[:2_000]}
        if reason is not None:
            call["reason"] = clean_text(str(reason))[:2_000]
        self.calls = [*self.calls[1 - _MOST_CALLS :], call]
        self.failed_count += 1


class AttemptLog:
    """The stream in which the processes of one consumer record attempts."""

    def __init__(self, subjects: Subjects, stream: str, consumer: str) -> None:
        self._owner = secrets.token_hex(8)
        self._subjects = subjects
        self._consumer = stream, consumer
        self._kept_in: str | None = None  # the stream that holds the attempts
        self._looked_at = 0.0  # of the monotonic clock
        self._said = ""  # why there is none

    @property
    def is_kept(self) -> bool:
        """Whether attempts can be stored; if not, each delivery counts as a call."""
        return self._kept_in is not None

    async def open(self, connection: Client) -> None:
        """Find the stream by a first message; a missing stream is only logged.

        Raises the errors of a request in an outage: the place used before stays valid.
        """
        self._looked_at = time.monotonic()
        subject = self._subject(0)
        try:
            stored = await self._publish(connection, subject, b"{}")
            if await last_message(connection, stored.stream, subject) is None:
                self._lose(f"stream {stored.stream} drops messages that no consumer reads")
            else:
                self._kept_in, self._said = stored.stream, ""
        except NoStreamResponseError as error:
            if self._kept_in is None:  # else it may only be without a leader: reading shows that
                self._lose(str(error))
        except NotPermittedError as error:
            self._lose(str(error))

    def _lose(self, why: str) -> None:
        self._kept_in = None
        if why != self._said:
            self._said = why
            logger.warning(
                "Attempts cannot be stored on %s (%s), so each delivery counts as an attempt: run"
                " `dlq migrate`, or grant the right (docs/security.md).",
                self._subjects.attempts,
                why,
            )

    async def before(
        self, connection: Client, delivery: Delivery, own: Attempts | None
    ) -> Attempts:
        """The calls before this delivery; `own` are those that this process knows.

        Raises the errors of a request in an outage.
        """
        count = delivery.delivery_count
        latest_own = own if own is not None and own.delivery_count == count - 1 else None
        if latest_own is not None and not latest_own.unfinished_count:
            return latest_own
        if self._kept_in is None and time.monotonic() - self._looked_at > _LOOK_AGAIN_SECONDS:
            await self.open(connection)
        kept = await self._latest(connection, delivery)
        if self._kept_in is None:
            return latest_own or Attempts(datetime.now(UTC), count - 1, count - 1, count - 1)
        # A finished record, or one of this or a later delivery, is from before the consumer was
        # recreated or reset.
        known = [
            each
            for each in (own, kept)
            if each is not None and each.delivery_count < count and not each.is_over
        ]
        latest = max(known, key=lambda each: each.delivery_count, default=None)
        return latest or Attempts(datetime.now(UTC))

    async def begin(self, connection: Client, delivery: Delivery, attempts: Attempts) -> None:
        """Count a call before it starts, in case the process dies of it.

        A call after a failure in this process needs no message, because that failure was recorded.
        Raises the errors of a publish in an outage.
        """
        is_next = attempts.delivery_count == delivery.delivery_count - 1
        is_own = is_next and attempts.owner == self._owner
        # A delivery without a finished call: a process may have died of it.
        is_suspect = not is_next or attempts.unfinished_count > 0
        attempts.delivery_count = delivery.delivery_count
        attempts.begun_count += 1
        if is_suspect or not is_own:
            await self.write(connection, delivery, attempts, is_sure=is_suspect)

    async def is_latest(self, connection: Client, delivery: Delivery) -> bool:
        """Whether no other process has taken the event since this delivery.

        Raises the errors of a request in an outage.
        """
        latest = await self._latest(connection, delivery)
        ours = (self._owner, delivery.delivery_count, False)
        return latest is None or (latest.owner, latest.delivery_count, latest.is_over) == ours

    async def write(
        self, connection: Client, delivery: Delivery, attempts: Attempts, *, is_sure: bool = False
    ) -> None:
        """Record the attempts of an event; with `is_sure`, wait until the server has them.

        Raises the errors of a publish in an outage. A lost record costs the event one more call.
        """
        attempts.owner = self._owner
        if self._kept_in is None:
            return
        subject, body = self._subject(delivery.sequence), _encode(attempts, delivery)
        if not is_sure:
            await connection.publish(subject, body)
            return
        try:
            await self._publish(connection, subject, body)
        except NotPermittedError as error:
            self._lose(str(error))

    async def _publish(self, connection: Client, subject: str, body: bytes) -> PubAck:
        try:
            return await connection.jetstream().publish(subject, body, timeout=5)
        except TimeoutError:
            check_permitted(connection, subject)  # other clients do not report this
            raise

    async def _latest(self, connection: Client, delivery: Delivery) -> Attempts | None:
        """The last record of an event; None if there is none."""
        if self._kept_in is None:
            return None
        try:
            kept = await last_message(connection, self._kept_in, self._subject(delivery.sequence))
        except (NotPermittedError, NotFoundError) as error:
            self._lose(str(error))
            return None
        return _decode(kept.data, delivery) if kept else None

    def _subject(self, sequence: int) -> str:
        return self._subjects.attempt(*self._consumer, sequence)


def _encode(attempts: Attempts, delivery: Delivery) -> bytes:
    kept = {
        "event_timestamp_ns": delivery.timestamp_ns,
        "first_at": attempts.first_at.isoformat(),
        "delivery_count": attempts.delivery_count,
        "begun_count": attempts.begun_count,
        "failed_count": attempts.failed_count,
        "calls": [{"at": each["at"], "error_type": each["error_type"]} for each in attempts.calls],
        "owner": attempts.owner,
        "is_over": attempts.is_over,
    }
    return json.dumps(kept).encode()


def _decode(data: bytes, delivery: Delivery) -> Attempts | None:
    """The record of this event in a message; None if it is about another event or not valid."""
    try:
        kept: dict[str, Any] = json.loads(data)
        if kept["event_timestamp_ns"] != delivery.timestamp_ns:
            return None
        return Attempts(
            datetime.fromisoformat(kept["first_at"]),
            delivery_count=int(kept["delivery_count"]),
            begun_count=int(kept["begun_count"]),
            failed_count=int(kept["failed_count"]),
            calls=[
                {"at": str(each["at"]), "error_type": str(each["error_type"]), "error_message": ""}
                for each in kept["calls"]
            ],
            owner=str(kept["owner"]),
            is_over=bool(kept.get("is_over")),
        )
    except (ValueError, KeyError, TypeError):
        return None
