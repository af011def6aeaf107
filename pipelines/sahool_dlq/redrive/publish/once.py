"""Publishes an event so that no repeat stores it twice.

A publish without acknowledgement may have been stored, or may still be. Usually its id is a guard:
the stream drops a repeat. This is not so if the stream keeps no ids, like one with `sources`, or
keeps them only briefly, or forgets those of removed messages. Then an event is repeated only after
the stream was checked, and on the condition that nothing was stored since: if the first one is
still on its way, the server refuses the repeat.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.api import Header, PubAck, RetentionPolicy, StreamConfig, StreamInfo
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from sahool_dlq.deadletter.headers import TOKEN, MutableHeaders, value_of
from sahool_dlq.errors import NotPermittedError, ServerUnavailableError
from sahool_dlq.jetstream.refusals import WRONG_LAST_SEQUENCE, is_for_now
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.jetstream.streams import find_streams
from sahool_dlq.redrive.origin import RefusedError

__all__ = ["ADDED_BYTES", "PAUSES", "DoubtError", "OncePublisher"]

logger = logging.getLogger(__name__)

PAUSES = 0.2, 1.0, 3.0
"""Pauses after each try, in seconds."""
ADDED_BYTES = 60
"""Maximum bytes that a condition adds to the headers of a repeat."""

_SECONDS = 5.0  # for one try
_WINDOW_SECONDS = 60.0  # a duplicate window that outlasts all tries
_MOST_CONFLICTS = 20  # with others who publish to the stream, in one try
_MOST_LOOKED_AT = 10_000  # messages that were stored since
_ERRORS = (nats.errors.Error, APIError)


class DoubtError(Exception):
    """It is unknown whether the event was stored; the message says why."""


class OncePublisher:
    """Publishes events with one id each; streams are known after the first event of a subject."""

    def __init__(self, client: Client, may_go_on: Callable[[], object] = lambda: None) -> None:
        """`may_go_on` is called before each repeat, and raises if it must not happen."""
        self._client = client
        self._may_go_on = may_go_on
        self._js = client.jetstream()
        self._guarding: dict[str, str] = {}  # by subject: the stream whose ids are a guard

    async def publish(self, subject: str, body: bytes, headers: MutableHeaders) -> PubAck:
        """Publish in up to three tries, with the `Nats-Msg-Id` of the headers.

        Raises RefusedError if the server refuses the event, NoStreamResponseError if no stream
        captures its subject, DoubtError if it may be stored and a repeat could store it twice,
        NotPermittedError if it is certainly not stored because a right is missing, and
        ServerUnavailableError if nothing more is known after the tries.
        """
        place = await self._place(subject)
        may_be_stored = False
        for pause in PAUSES:
            try:
                if not may_be_stored:
                    return await self._first(subject, body, headers)
                return await self._again(place, subject, body, headers)
            except NoStreamResponseError:
                if may_be_stored:
                    raise DoubtError(f"no stream captures {subject} any more") from None
                if not await self._may_be_captured(subject):
                    raise
                logger.warning("No stream captures %s now, trying again", subject)
            except NotPermittedError as error:
                if may_be_stored:
                    raise DoubtError(f"then it was not permitted: {error}") from error
                raise
            except _ERRORS as error:
                if not is_for_now(error):
                    if may_be_stored:
                        raise DoubtError(f"then the server refused it: {error}") from error
                    raise RefusedError(f"the server refused it: {error}") from error
                may_be_stored = True
                said = str(error) or type(error).__name__
                logger.warning("Publishing to %s: %s, trying again", subject, said)
            await asyncio.sleep(pause)
            self._may_go_on()
        raise ServerUnavailableError(
            f"NATS does not acknowledge messages to {subject}: the batch stays running, and the "
            "next run continues it."
        )

    async def drops_repeat(self, subject: str, after_seconds: float) -> bool:
        """Whether an event that may have been published that long ago can be published again, and
        is stored once.

        This is so within the duplicate window of a stream that keeps its messages.
        """
        try:
            streams = await find_streams(self._js, subject)
            if len(streams) != 1:
                return False
            config = (await self._js.stream_info(streams[0])).config
        except (*_ERRORS, NotPermittedError):
            return False
        window = config.duplicate_window or 0
        return _is_guarded(config) and after_seconds + _WINDOW_SECONDS / 2 < window

    async def _first(self, subject: str, body: bytes, headers: MutableHeaders) -> PubAck:
        """Anybody can use a redrive's id before the redriver does: then the stream drops the
        redrive.
        """
        ack = await self._try(subject, body, headers)
        if ack.duplicate and TOKEN in headers:
            stored = await stored_message(self._client, ack.stream, ack.seq)
            if stored is None or value_of(stored.headers, TOKEN) != headers[TOKEN]:
                raise DoubtError(
                    f"the stream dropped it, because message {ack.seq} of {ack.stream} has its id"
                )
        return ack

    async def _try(self, subject: str, body: bytes, headers: Any) -> PubAck:
        return await self._js.publish(subject, body, headers=dict(headers), timeout=_SECONDS)

    async def _again(
        self, place: "_Place | None", subject: str, body: bytes, headers: MutableHeaders
    ) -> PubAck:
        """Repeat a publish that may have been stored."""
        if place is None:
            raise DoubtError(f"it is not known which stream captures {subject}")
        error: APIError | None = None
        for _ in range(_MOST_CONFLICTS):
            try:
                stored = await place.find(str(headers["Nats-Msg-Id"]))
            except NotPermittedError as denied:
                raise DoubtError(str(denied)) from None
            if stored is not None:
                return PubAck(stream=place.stream, seq=stored)
            try:
                return await self._try(subject, body, headers | place.condition)
            except APIError as refusal:
                if refusal.err_code != WRONG_LAST_SEQUENCE:
                    raise
                error = refusal
        assert error is not None
        raise error

    async def _place(self, subject: str) -> "_Place | None":
        """The stream for the event; None if no stream captures its subject."""
        try:
            stream = self._guarding.get(subject)
            if stream is not None:
                return _Place(self._client, stream)
            streams = await find_streams(self._js, subject)
            if len(streams) != 1:
                return None
            info = await self._js.stream_info(streams[0])
        except _ERRORS as error:
            raise ServerUnavailableError(
                f"NATS does not say which stream captures {subject} ({error!r}): the batch stays"
                " running, and the next run takes it up."
            ) from error
        if _is_guarded(info.config):
            self._guarding[subject] = streams[0]
            return _Place(self._client, streams[0])
        return _Place(self._client, streams[0], info)

    async def _may_be_captured(self, subject: str) -> bool:
        """Whether a stream may capture it: a stream that elects a leader answers as if it did not
        exist.
        """
        try:
            return bool(await find_streams(self._js, subject))
        except _ERRORS:
            return True


class _Place:
    """The stream that captures an event, and how far it was checked."""

    def __init__(self, client: Client, stream: str, before: StreamInfo | None = None) -> None:
        """`before` is its state before the publish; without it the ids are a guard."""
        self.stream = stream
        self._client = client
        self._created: datetime | None = None
        self._looked_up_to: int | None = None
        if before is not None:
            self._created, self._looked_up_to = before.created, before.state.last_seq
        self._is_whole = True

    @property
    def condition(self) -> MutableHeaders:
        """The headers with which the server refuses a repeat if anything was stored since."""
        if self._looked_up_to is None:
            return {}
        return {Header.EXPECTED_LAST_SEQUENCE.value: str(self._looked_up_to)}

    async def find(self, message_id: str) -> int | None:
        """The sequence of the message with this id; None if it is not stored until now.

        Raises DoubtError if the stream cannot tell. It asks in any case: a repeat to a hanging
        server may be accepted after the duplicate window.
        """
        try:
            info = await self._client.jetstream().stream_info(self.stream)
        except NotFoundError:
            raise DoubtError(f"stream {self.stream} no longer exists") from None
        if self._looked_up_to is None:
            return None
        if info.created != self._created or info.state.last_seq < self._looked_up_to:
            raise DoubtError(f"stream {self.stream} was created again or restored meanwhile")
        if info.state.last_seq > self._looked_up_to + _MOST_LOOKED_AT:
            raise DoubtError(f"stream {self.stream} got too many messages since then to check them")
        while self._looked_up_to < info.state.last_seq:
            wanted = self._looked_up_to + 1
            stored = await stored_message(self._client, self.stream, wanted, ">")
            self._looked_up_to = stored.sequence if stored else info.state.last_seq
            self._is_whole &= stored is not None and stored.sequence == wanted
            if stored is not None and stored.headers.get("Nats-Msg-Id") == message_id:
                return stored.sequence
        if not self._is_whole:
            raise DoubtError(f"stream {self.stream} no longer has all messages since then")
        return None


def _is_guarded(config: StreamConfig) -> bool:
    """Whether a stream drops a repeat, also after a restart, during all tries."""
    keeps_ids = (config.duplicate_window or 0) >= _WINDOW_SECONDS
    keeps_messages = config.retention in (None, RetentionPolicy.LIMITS)
    return keeps_ids and keeps_messages and (config.max_msgs_per_subject or -1) < 1
