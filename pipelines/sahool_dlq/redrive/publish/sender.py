"""Sends one redrive to its consumer: the original or edited event."""

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.js.api import PubAck
from nats.js.errors import APIError
from psycopg import Connection

from sahool_dlq.connections import find_log
from sahool_dlq.deadletter.headers import ADDRESSEE, INSTEAD_OF, MARKS, TOKEN, MutableHeaders
from sahool_dlq.deadletter.ids import redrive_id
from sahool_dlq.errors import NotPermittedError, ServerUnavailableError
from sahool_dlq.events.trace_context import trace_context
from sahool_dlq.jetstream.connection import wire_size
from sahool_dlq.jetstream.consumers import parts_of
from sahool_dlq.jetstream.reach import Lookout
from sahool_dlq.jetstream.reader import LogReader
from sahool_dlq.redrive.allowed import allowed_subjects
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.redrive.edit.patch import edit_of
from sahool_dlq.redrive.lifetime import TTL, check_age, remaining_ttl
from sahool_dlq.redrive.origin import (
    Event,
    RefusedError,
    original_event,
    stored_dead_letter,
)
from sahool_dlq.redrive.publish.heard import Place
from sahool_dlq.redrive.publish.late_decisions import DecidedError, LateDecisions
from sahool_dlq.redrive.publish.news import News
from sahool_dlq.redrive.publish.once import ADDED_BYTES, DoubtError, OncePublisher
from sahool_dlq.redrive.publish.outbox import Redrive
from sahool_dlq.redrive.reach import why_no_lifetime
from sahool_dlq.redrive.receivers import Receivers
from sahool_dlq.redrive.source import OwnCopyError, as_stored, stored_event
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.lock import Lock
from sahool_dlq.tracing import send_span

__all__ = ["Sender", "Sent"]

_TRACE_BYTES = 100  # of the trace context that the span of a redrive adds


class Sent(NamedTuple):
    """Facts about a published redrive."""

    place: Place | None = None  # where the event stands, where its consumer takes it from there
    doubt: str | None = None  # why it may not be stored


def _sent(redrive: Redrive, ack: PubAck) -> Sent:
    stream, consumer = parts_of(redrive.addressed_to) or (None, "")
    # A stream that sources or mirrors that one has the event in another place.
    return Sent(Place(ack.stream, ack.seq, consumer) if stream == ack.stream else None)


class Sender:
    """Publishes the events of one batch."""

    def __init__(
        self,
        client: Client,
        connection: Connection[Any],
        batch: Batch,
        lookout: Lookout,
        lock: Lock,
        news: News,
    ) -> None:
        self._client = client
        self._js = client.jetstream()
        self._once = OncePublisher(client, lock.check)
        self._connection = connection
        self._batch = batch
        self._edit = edit_of(batch.patch) if batch.patch else None
        self._lookout = lookout
        self._news = news
        self._receivers: Receivers | None = None  # of a redirect
        self._lifeless: dict[str, str | None] = {}  # subjects whose stream takes no Nats-TTL: why

    async def prepare(self, settings: Settings) -> None:
        """Find the stream with the raw bytes, and the consumers of a redirect."""
        subjects, redirect = settings.subjects, self._batch.redirect_to
        state = await find_log(self._client, settings)
        self._reader = LogReader(self._client, state.stream, subjects.log)
        drained = self._connection.execute(
            "SELECT last_sequence FROM drain_checkpoints WHERE stream = %s", [state.stream]
        ).fetchone()
        after = drained[0] if drained else 0
        self._decisions = LateDecisions(self._client, state.stream, subjects, after)
        self._decoders = settings.decoders(settings.rules)
        self._allowed = await allowed_subjects(self._js, settings)
        if redirect is not None:
            self._receivers = await Receivers.of(self._js, self._lookout, redirect)

    def is_elsewhere(self, redrive: Redrive) -> bool:
        """Whether its subject is one where the failing consumer does not listen, or no longer
        pulls.
        """
        return self._receivers is not None and not self._receivers.take(
            redrive.addressed_to, is_foreign=redrive.is_foreign
        )

    def why_nobody(self, redrive: Redrive) -> str | None:
        """Why none of the known consumers takes the redirected event."""
        if self._receivers is None:
            return None
        return self._receivers.why_nobody(redrive.addressed_to, is_foreign=redrive.is_foreign)

    async def event(self, redrive: Redrive) -> Event:
        """The event to publish; raises RefusedError or ExpiredError if there is none, OwnCopyError
        if only the dead letter has it, or TooLateError for that.
        """
        try:
            if redrive.replayed is not None:
                event = await stored_event(self._client, redrive.replayed, redrive.subject)
            else:
                event = await self._failed_event(redrive)
        except nats.errors.TimeoutError as error:  # which is a TimeoutError, as silence is
            raise ServerUnavailableError(
                "NATS does not give the raw dead letters: the batch stays running, and the next "
                "run continues it."
            ) from error
        if self._edit:
            its = self._edit.of_failure(redrive.failure_id)
            # A decoder may ask a schema registry.
            event = await asyncio.to_thread(its.applied, event, self._decoders)
        if self._batch.redirect_to:
            event = replace(event, subject=self._batch.redirect_to)
        self._allowed.check(event.subject)
        return event

    async def _failed_event(self, redrive: Redrive) -> Event:
        message = await stored_dead_letter(
            self._reader,
            self._connection,
            redrive.failure_id,
            redrive.dlq_sequence,
            redrive.dead_lettered_at,
        )
        return await self._as_stored(redrive, await original_event(self._client, message))

    async def _as_stored(self, redrive: Redrive, event: Event) -> Event:
        try:
            return await as_stored(self._client, event)
        except OwnCopyError:
            if not self._batch.own_copy:
                self._time_left(redrive, event)  # a stream removes the oldest first
                raise
            return event

    def _time_left(self, redrive: Redrive, event: Event) -> MutableHeaders:
        """The header with the remaining time of the event; raises TooLateError."""
        now = datetime.now(UTC)
        since = min(filter(None, (event.published_at, redrive.dead_lettered_at)), default=now)
        check_age(self._batch.max_age_seconds, since, now)
        return {**remaining_ttl(event.ttl, since, now)}

    def headers(self, redrive: Redrive, event: Event) -> MutableHeaders:
        """Its headers; raises RefusedError if they cannot be sent, or make it too large, and
        TooLateError if the event is too old.
        """
        time_left = self._time_left(redrive, event)
        mark = redrive_id(redrive.failure_id, redrive.attempt)
        marks = redrive.failure_id, mark, str(redrive.attempt)
        headers = event.headers | {"Nats-Msg-Id": mark} | dict(zip(MARKS, marks, strict=True))
        headers[TOKEN] = redrive.id
        headers |= time_left
        if redrive.addressed_to:
            name = INSTEAD_OF if self.is_elsewhere(redrive) else ADDRESSEE
            headers[name] = redrive.addressed_to
        try:
            size = wire_size(event.body, headers) + _TRACE_BYTES + ADDED_BYTES
        except nats.errors.BadHeaderError as error:
            raise RefusedError(f"a header of its event cannot be sent: {error}") from error
        if size > self._client.max_payload:  # the server would drop the connection
            raise RefusedError(
                f"with its headers it has {size} bytes, more than the server accepts"
            )
        return headers

    async def why_not_taken(self, event: Event, headers: MutableHeaders) -> str | None:
        """Why its stream would refuse the event, as far as known in advance."""
        if TTL not in headers:
            return None
        if event.subject not in self._lifeless:
            self._lifeless[event.subject] = await why_no_lifetime(self._client, event.subject)
        return self._lifeless[event.subject]

    async def send(
        self, redrive: Redrive, event: Event, headers: MutableHeaders, *, is_parked: bool = False
    ) -> Sent:
        """Publish, and return what is known then; `is_parked`: its failure was parked before.

        Raises NotPermittedError if a right is missing, and DecidedError if somebody decided about
        the failure before the message in the log; both leave the failure unchanged.
        """
        traced = send_span(
            "redrive",
            trace_context(event.headers, event.traceparent),
            headers,
            dlq__failure_id=redrive.failure_id,
            dlq__redrive_id=redrive.id,
        )
        async with traced:
            await self._news.tell(redrive, "published", None)
            await self._check_decisions(redrive)
            try:
                ack = await self.until_known(event, headers)
            except DoubtError as error:
                return Sent(None, f"it is not known whether it was stored: {error}")
            except NotPermittedError as error:
                await self._take_back(redrive, f"not published: {error}", is_parked=is_parked)
                raise
        return _sent(redrive, ack)

    async def send_again(
        self, redrive: Redrive, event: Event, headers: MutableHeaders
    ) -> Sent | None:
        """Publish a redrive that a killed run took; None if it was published, or if that is
        unknown.
        """
        if not await self._once.drops_repeat(event.subject, redrive.silent_seconds or 0):
            return None
        await self._news.tell(redrive, "published", None)  # known again where it was told
        try:
            ack = await self._js.publish(event.subject, event.body, headers=headers, timeout=5)
        except (nats.errors.Error, APIError, NotPermittedError):
            return None
        return None if ack.duplicate else _sent(redrive, ack)

    async def _check_decisions(self, redrive: Redrive) -> None:
        try:
            await self._decisions.check(redrive.failure_id)
        except DecidedError as error:
            if error.decision == "parked":  # which the published message reset
                name = f"parked-{secrets.token_hex(8)}"
                await self._news.decide(redrive, "parked", error.reason or str(error), name)
            raise

    async def _take_back(self, redrive: Redrive, reason: str, *, is_parked: bool) -> None:
        """Restore the failure's state before `published`, which uses up no attempt.

        Each time with other ids, so that the server does not drop the messages as duplicates.
        """
        token = secrets.token_hex(8)
        for kind in ("parked",) if is_parked else ("parked", "unparked"):
            await self._news.decide(redrive, kind, reason, f"{kind}-{token}")

    async def until_known(self, event: Event, headers: MutableHeaders) -> PubAck:
        """Publish; raises as `OncePublisher.publish` does."""
        return await self._once.publish(event.subject, event.body, headers)
