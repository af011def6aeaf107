"""Publishing to the log without loss: acknowledged, deduplicated, never too large."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.errors import MaxPayloadError
from nats.js.api import ObjectMeta, ObjectMetaOptions, PubAck
from nats.js.errors import APIError, NoStreamResponseError
from nats.js.errors import Error as JetStreamError

from sahool_dlq.deadletter.envelope.encode import (
    encode_case_event,
    encode_dead_letter,
    encode_pointer,
)
from sahool_dlq.deadletter.headers import (
    INSTEAD_OF,
    Headers,
    MutableHeaders,
    add_header,
    pairs_of,
    redrive_of,
    value_of,
)
from sahool_dlq.deadletter.ids import consumer_address
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.events.config import NATSConsumerConfig
from sahool_dlq.events.trace_context import trace_context
from sahool_dlq.jetstream.connection import wire_size
from sahool_dlq.jetstream.pull import Delivery
from sahool_dlq.jetstream.streams import BODIES_BUCKET, ensure_body_store

logger = logging.getLogger(__name__)

PUBLISH_ERRORS = (
    nats.errors.Error,
    JetStreamError,
    NotPermittedError,
    OSError,
    TimeoutError,
)
"""Errors of a publish while the log cannot be written."""

_TOO_LARGE_FOR_STREAM = 10054  # the server's code: beyond the stream's max_msg_size
_SUFFIX_BYTES = 8
_SMALL_BODY = 8_000  # bytes; smaller bodies never make a dead letter too large
_CHUNK_BYTES = 128 * 1024
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_MOST_OWN_IDS = 10_000

IsOurs = Callable[[PubAck, str, bytes], Awaitable[bool]]
"""Whether the existing message of a duplicate is ours: arguments are its position, our subject,
body.
"""


@dataclass(slots=True)
class OwnId:
    """Whether a dead letter's id can be in the log because of this process's own tries.

    If it is there for another reason, somebody else used it: another process of the service, which
    died before it acknowledged the event, or a forger, whose message would replace ours.
    """

    suffix: str = ""  # makes the id unknown to others
    is_sent: bool = False  # a try succeeded, or ended without an answer: it may be stored
    is_ours: IsOurs | None = None  # for users that may read the log, and would write the same again


class OwnIds:
    """The latest of a process: an answer may be lost, and the event is then delivered again."""

    def __init__(self, is_ours: IsOurs | None = None) -> None:
        self._is_ours = is_ours
        self._latest: dict[str, OwnId] = {}

    def of(self, fields: dict[str, Any]) -> OwnId:
        """The one of the dead letter with these fields."""
        name = _message_id(fields, "")
        own_id = self._latest.pop(name, None) or OwnId(is_ours=self._is_ours)
        self._latest[name] = own_id
        if len(self._latest) > _MOST_OWN_IDS:
            del self._latest[next(iter(self._latest))]
        return own_id


async def publish_dead_letter(
    connection: Client,
    subject: str,
    fields: dict[str, Any],
    body: bytes,
    is_json: bool,
    own_id: OwnId | None = None,
) -> None:
    """Publish one dead letter and wait for the server's acknowledgement.

    A body that is too large for one message goes to an object store, and the dead letter has a
    pointer. The event's trace continues in it. Raises one of PUBLISH_ERRORS; publishing the same
    again is harmless. If an event fails again because its consumer was reset, its first attempt is
    different, so the server accepts its dead letter. With `own_id`, kept from try to try, also when
    the event is delivered again, it is published even if somebody else's message has its id.
    """
    headers = trace_context(fields["original_headers"], fields.get("traceparent"))
    async with aclosing(_forms(connection, fields, body, is_json)) as forms:
        async for payload in forms:
            longest = "0" * 2 * _SUFFIX_BYTES if own_id else ""
            headers["Nats-Msg-Id"] = _message_id(fields, longest)
            if wire_size(payload, headers) > connection.max_payload:
                continue
            try:
                await _publish_once(connection, subject, payload, headers, fields, own_id)
            except APIError as error:
                if error.err_code != _TOO_LARGE_FOR_STREAM:
                    raise
            else:
                return
    raise MaxPayloadError


async def _publish_once(
    connection: Client,
    subject: str,
    payload: bytes,
    headers: dict[str, Any],
    fields: dict[str, Any],
    own_id: OwnId | None,
) -> None:
    js = connection.jetstream()
    while True:
        headers["Nats-Msg-Id"] = _message_id(fields, own_id.suffix if own_id else "")
        try:
            stored = await js.publish(subject, payload, headers=headers, timeout=5)
        except (APIError, NoStreamResponseError, NotPermittedError):
            raise  # it is not there
        except PUBLISH_ERRORS:
            if own_id:
                own_id.is_sent = True
            raise
        if own_id is None:
            return
        is_known = not stored.duplicate or own_id.is_sent or own_id.suffix
        if is_known or (own_id.is_ours and await own_id.is_ours(stored, subject, payload)):
            own_id.is_sent = True
            return
        own_id.suffix = secrets.token_hex(_SUFFIX_BYTES)


def _message_id(fields: dict[str, Any], suffix: str) -> str:
    message_id = f"{fields['failure_id']}-{fields['first_attempt_at']}"
    return f"{message_id}-{suffix}" if suffix else message_id


async def publish_until_acknowledged(
    publish: Callable[[], Awaitable[None]], *, what: str, give_up: asyncio.Event
) -> bool:
    """Repeat `publish` with backoff until the server acknowledges; False once `give_up` is set."""
    pause = _FIRST_PAUSE
    while True:
        try:
            await publish()
        except PUBLISH_ERRORS as error:
            logger.warning(
                "%s could not be written (%s): trying again in %.1f s",
                what,
                str(error) or type(error).__name__,
                pause,
            )
        else:
            return True
        try:
            async with asyncio.timeout(pause):
                await give_up.wait()
        except TimeoutError:
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            return False


async def tell_redrive_success(
    connection: Client, delivery: Delivery, headers: Headers, config: NATSConsumerConfig
) -> None:
    """If an event is a redrive, report its success with its token.

    There are up to three tries; a failure is only logged, because calling a successful handler
    again would be worse than an unknown outcome.
    """
    redrive = redrive_of(headers)
    if redrive is None:
        return
    consumer = consumer_address(delivery.stream, delivery.consumer)
    instead_of = value_of(headers, INSTEAD_OF)
    body = encode_case_event(
        failure_id=redrive.root,
        redrive_id=redrive.id,
        attempt=redrive.attempt,
        consumer=instead_of or consumer,
        consumer_version=None if instead_of else config.version,
        reason=f"redirected, and handled by {consumer}" if instead_of else None,
        actor=config.name,
        at=datetime.now(UTC),
    )
    await _publish_success(connection, config.subjects.redrive("succeeded"), body, redrive.id)


async def _publish_success(connection: Client, subject: str, body: bytes, redrive_id: str) -> None:
    js = connection.jetstream()
    # Not the redrive id alone: a redirected redrive may share the stream's ids.
    headers = {"Nats-Msg-Id": f"{redrive_id}-succeeded"}
    for pause in (0.1, 0.5, 0):
        try:
            await js.publish(subject, body, headers=headers, timeout=2)
        except PUBLISH_ERRORS as error:
            logger.warning("The success of redrive %s could not be reported: %s", redrive_id, error)
            await asyncio.sleep(pause)
        else:
            return


async def _forms(
    connection: Client, fields: dict[str, Any], body: bytes, is_json: bool
) -> AsyncGenerator[bytes, None]:
    """The dead letter, complete at first, then shorter; the complete body is always stored."""
    yield encode_dead_letter(fields, body, is_json)
    if len(body) > _SMALL_BODY:
        pointer = await _store_body(
            connection, fields["failure_id"], body, fields["first_attempt_at"]
        )
        yield encode_pointer(fields, pointer)
    for limit in (
        8_000,
        1_000,
        100,
    ):  # characters: the failure's texts are too long for one message
        short = _shortened(fields, limit)
        if len(body) > _SMALL_BODY:
            yield encode_pointer(short, pointer)
        else:
            yield encode_dead_letter(short, body, is_json)


async def _store_body(connection: Client, name: str, body: bytes, began_at: str) -> dict[str, Any]:
    """Store a body, even if an earlier failure did: it must last as long as this one."""
    js = connection.jetstream()
    store = await ensure_body_store(js)
    try:
        info = await store.get_info(name)
        is_there = info.size == len(body) and (info.mtime or "") > began_at
    except JetStreamError:
        is_there = False
    if not is_there:
        chunk_bytes = min(_CHUNK_BYTES, connection.max_payload // 2)
        options = ObjectMetaOptions(max_chunk_size=chunk_bytes)
        await store.put(name, body, ObjectMeta(options=options))
    digest = hashlib.sha256(body).hexdigest()
    return {"bucket": BODIES_BUCKET, "name": name, "size": len(body), "sha256": digest}


def _shortened(fields: dict[str, Any], limit: int) -> dict[str, Any]:
    """The fields with texts cut to `limit` characters; ids and subjects are kept."""
    kept = ("failure_id", "original_subject", "imported_from")
    short = {
        key: value[:limit] if isinstance(value, str) and key not in kept else value
        for key, value in fields.items()
    }
    cut: MutableHeaders = {}
    for name, value in islice(pairs_of(fields["original_headers"]), 50):
        if len(name) <= limit:
            add_header(cut, name, value[:limit])
    return {**short, "original_headers": cut, "attempts": []}
