"""Decisions of people while a batch runs, before a drain has applied them.

A redrive is taken from the outbox by the state in PostgreSQL. A decision that is already in the
log, but not in PostgreSQL, would be overridden by the message that the event is published.
"""

import asyncio

import nats.errors
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError

from sahool_dlq.deadletter.case_events import decode_case_event
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.stored import stored_message

__all__ = ["DecidedError", "LateDecisions"]

_ENDING = ("parked", "resolved", "discarded")


class DecidedError(Exception):
    """Somebody made another decision about the failure; nothing was published."""

    def __init__(self, decision: str, reason: str | None) -> None:
        super().__init__(f"it was {decision} meanwhile")
        self.decision = decision
        self.reason = reason


class LateDecisions:
    """The decisions in the log after a sequence, each read once."""

    def __init__(self, client: Client, stream: str, subjects: Subjects, after: int) -> None:
        self._client = client
        self._stream = stream
        self._subjects = subjects
        self._next = after + 1
        self._latest: dict[str, tuple[str, str | None]] = {}  # by failure: decision, reason
        self._turn = asyncio.Lock()

    async def check(self, failure_id: str) -> None:
        """Raise DecidedError if the latest decision until now forbids the redrive.

        A user that may not read the log continues.
        """
        async with self._turn:
            try:
                await self._read_on()
            except (nats.errors.Error, JetStreamError, NotPermittedError):
                return
        decision, reason = self._latest.get(failure_id, ("", None))
        if decision in _ENDING:
            raise DecidedError(decision, reason)

    async def _read_on(self) -> None:
        wanted = self._subjects.triage("*")
        while stored := await stored_message(self._client, self._stream, self._next, wanted):
            self._next = stored.sequence + 1
            kind = stored.subject.rpartition(".")[2]
            if kind == "alerted":
                continue
            message = LogMessage(stored.subject, stored.sequence, stored.timestamp_ns, stored.data)
            event = decode_case_event(message, "")
            if event.failure_id and not event.parse_error:
                self._latest[event.failure_id] = kind, event.reason
