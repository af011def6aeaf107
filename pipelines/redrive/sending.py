"""One redrive on its way to its consumer: the event as it was, or edited, and the news of it."""

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import PubAck
from nats.js.errors import (
    APIError,
    NoStreamResponseError,
    ServerError,
    ServiceUnavailableError,
)
from psycopg import Connection

from pipelines.deadletter.envelope import encode_case_event
from pipelines.deadletter.headers import ADDRESSEE, INSTEAD_OF, MARKS, MutableHeaders
from pipelines.errors import ServerUnavailableError
from pipelines.events.trace import trace_context
from pipelines.jetstream.connection import wire_size
from pipelines.jetstream.consumers import consumers_of, parts_of
from pipelines.jetstream.reader import LogReader, log_state
from pipelines.jetstream.streams import find_streams
from pipelines.redrive.batches import Batch
from pipelines.redrive.edit import patched
from pipelines.redrive.heard import Place
from pipelines.redrive.origin import (
    Event,
    RefusedError,
    check_subject,
    original_event,
    stored_dead_letter,
)
from pipelines.redrive.outbox import Redrive
from pipelines.settings import Settings
from pipelines.tracing import send_span

__all__ = ["Sender", "allowed_subjects"]

logger = logging.getLogger(__name__)

_FOR_NOW = (
    nats.errors.TimeoutError,
    nats.errors.NoServersError,
    ServiceUnavailableError,  # a stream that is full, a server short of resources
    ServerError,
)
"""What says nothing about the event: it is tried again, and later where that does not help."""
_TRACE_BYTES = 100  # of the trace context that the span of a redrive adds


async def allowed_subjects(js: JetStreamContext, settings: Settings) -> list[str]:
    """Filters of what a redrive may publish to: as set, else the subjects of the event stream."""
    if settings.redrive_subjects:
        return settings.redrive_subjects
    try:
        info = await js.stream_info(settings.events_stream)
    except APIError:
        return list(settings.subjects.events)
    return list(info.config.subjects or settings.subjects.events)


class Sender:
    """Publishes the events of one batch, and what becomes of them."""

    def __init__(
        self, settings: Settings, client: Client, connection: Connection[Any], batch: Batch
    ) -> None:
        self._settings = settings
        self._client = client
        self._js = client.jetstream()
        self._connection = connection
        self._batch = batch

    async def prepare(self) -> None:
        """Find the stream that holds the raw bytes, and whom a redirect reaches."""
        subjects, redirect = self._settings.subjects, self._batch.redirect_to
        state = await log_state(self._client, self._settings.dlq_stream, subjects.log)
        self._reader = LogReader(self._client, state.stream, subjects.log)
        self._allowed = await allowed_subjects(self._js, self._settings)
        self._receivers = set(await consumers_of(self._js, redirect)) if redirect else None

    def is_elsewhere(self, redrive: Redrive) -> bool:
        """Whether it goes where the consumer that failed does not listen."""
        return self._receivers is not None and redrive.addressed_to not in self._receivers

    async def event(self, redrive: Redrive) -> Event:
        """What is to be published; raises RefusedError or ExpiredError where nothing can be."""
        try:
            message = await stored_dead_letter(
                self._reader,
                self._connection,
                redrive.failure_id,
                redrive.dlq_sequence,
                redrive.dead_lettered_at,
            )
            event = await original_event(self._client, message)
        except nats.errors.TimeoutError as error:  # which is a TimeoutError, as silence is
            raise ServerUnavailableError(
                "NATS does not give the raw dead letters: the batch stays running, and the next run"
                " takes it up."
            ) from error
        if self._batch.patch:
            event = replace(event, body=patched(event.body, self._batch.patch))
        if self._batch.redirect_to:
            event = replace(event, subject=self._batch.redirect_to)
        check_subject(event.subject, self._allowed, self._settings.subjects)
        return event

    def headers(self, redrive: Redrive, event: Event) -> MutableHeaders:
        """Its headers; raises RefusedError where they can not be sent, or make it too large."""
        marks = redrive.failure_id, redrive.id, str(redrive.attempt)
        headers = event.headers | {"Nats-Msg-Id": redrive.id} | dict(zip(MARKS, marks, strict=True))
        if redrive.addressed_to:
            mark = INSTEAD_OF if self.is_elsewhere(redrive) else ADDRESSEE
            headers[mark] = redrive.addressed_to
        try:
            size = wire_size(event.body, headers) + _TRACE_BYTES
        except nats.errors.BadHeaderError as error:
            raise RefusedError(f"a header of its event can not be sent: {error}") from error
        if size > self._client.max_payload:  # the server would drop the connection
            raise RefusedError(f"with its headers it has {size} bytes, more than the server takes")
        return headers

    async def send(self, redrive: Redrive, event: Event, headers: MutableHeaders) -> Place | None:
        """Publish; returns where the event stands then, where its consumer takes it from there."""
        traced = send_span(
            "redrive",
            trace_context(event.headers, event.traceparent),
            headers,
            dlq__failure_id=redrive.failure_id,
            dlq__redrive_id=redrive.id,
        )
        async with traced:
            await self.tell(redrive, "published", None)
            ack = await self.until_known(event, headers)
        stream, consumer = parts_of(redrive.addressed_to) or (None, "")
        # A stream that sources or mirrors that one has the event in another place.
        return Place(ack.stream, ack.seq, consumer) if stream == ack.stream else None

    async def until_known(self, event: Event, headers: MutableHeaders) -> PubAck:
        """Publish; a publish that timed out may have landed, so it is repeated under its id."""
        for pause in (0.2, 1.0, 3.0):
            try:
                return await self._js.publish(event.subject, event.body, headers=headers, timeout=5)
            except NoStreamResponseError:
                if not await self._may_be_captured(event.subject):
                    raise
                logger.warning("Nobody takes %s now, trying again", event.subject)
                await asyncio.sleep(pause)
            except _FOR_NOW as error:
                logger.warning("Publishing to %s: %r, trying again", event.subject, error)
                await asyncio.sleep(pause)
            except (nats.errors.Error, APIError) as error:
                raise RefusedError(f"the server refused it: {error}") from error
        raise ServerUnavailableError(
            f"NATS does not acknowledge what is published to {event.subject}: the batch stays"
            " running, and the next run takes it up."
        )

    async def _may_be_captured(self, subject: str) -> bool:
        """Whether a stream takes it: one that elects a leader answers as if there were none."""
        try:
            return bool(await find_streams(self._js, subject))
        except (nats.errors.Error, nats.errors.TimeoutError, APIError):
            return True

    async def tell(
        self, redrive: Redrive, kind: str, reason: str | None, name: str | None = None
    ) -> None:
        """Tell the log; `name` is what its message is called where others tell the same."""
        body = encode_case_event(
            failure_id=redrive.failure_id,
            redrive_id=redrive.id,
            batch_id=self._batch.id,
            attempt=redrive.attempt,
            trigger=self._batch.trigger,
            consumer=redrive.addressed_to,
            actor=self._batch.requested_by,
            reason=reason,
            redrive_cap=self._settings.redrive_cap if kind == "published" else None,
            at=datetime.now(UTC),
        )
        subject = self._settings.subjects.redrive(kind)
        await self._publish(subject, body, f"{redrive.id}-{name or kind}")

    async def park(self, redrive: Redrive, reason: str) -> None:
        """Tell the log that its failure is parked."""
        body = encode_case_event(
            failure_id=redrive.failure_id,
            batch_id=self._batch.id,
            actor=self._batch.requested_by,
            reason=reason,
            at=datetime.now(UTC),
        )
        subject = self._settings.subjects.triage("parked")
        await self._publish(subject, body, f"{redrive.id}-parked")

    async def _publish(self, subject: str, body: bytes, message_id: str) -> None:
        headers = {"Nats-Msg-Id": message_id}
        try:
            await self._js.publish(subject, body, headers=headers, timeout=5)
        except (nats.errors.Error, APIError) as error:
            raise ServerUnavailableError(
                f"The log can not be written ({error!r}): the batch stays running, and the next"
                " run takes it up."
            ) from error
