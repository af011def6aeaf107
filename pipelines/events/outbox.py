"""Publishing to the log so that nothing is lost: acknowledged, deduplicated, never too large."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import ObjectStoreConfig
from nats.js.errors import APIError, NotFoundError
from nats.js.errors import Error as JetStreamError

from pipelines.deadletter.envelope import encode_dead_letter, encode_pointer

logger = logging.getLogger(__name__)

PUBLISH_ERRORS = (nats.errors.Error, JetStreamError, OSError, TimeoutError)
"""What a publish raises while the log can not be written."""

_HEADER_ROOM = 1_024
_BUCKET = "sahool-dlq-bodies"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0


async def publish_dead_letter(
    connection: Client, subject: str, fields: dict[str, Any], body: bytes, is_json: bool
) -> None:
    """Publish one dead letter and wait for the server's acknowledgement.

    A body that is too large for one message once wrapped goes to an object store, and the dead
    letter carries a pointer. Raises one of PUBLISH_ERRORS; publishing again is harmless.
    """
    js = connection.jetstream()
    room = connection.max_payload - _HEADER_ROOM
    payload = encode_dead_letter(fields, body, is_json)
    if len(payload) > room:
        pointer = await _store_body(js, fields["failure_id"], body)
        payload = encode_pointer(fields, pointer)
    if len(payload) > room:  # a message of a few hundred kilobytes of error text
        payload = encode_pointer(_shortened(fields), pointer)
    await js.publish(subject, payload, headers={"Nats-Msg-Id": fields["failure_id"]}, timeout=5)


async def publish_until_acknowledged(
    publish: Callable[[], Any], *, what: str, give_up: asyncio.Event
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


async def _store_body(js: JetStreamContext, name: str, body: bytes) -> dict[str, Any]:
    try:
        store = await js.object_store(_BUCKET)
    except NotFoundError:
        store = await js.create_object_store(_BUCKET, config=ObjectStoreConfig(ttl=30 * 24 * 3600))
    try:
        info = await store.get_info(name)
        is_there = info.size == len(body)
    except (NotFoundError, APIError, JetStreamError):
        is_there = False
    if not is_there:
        await store.put(name, body)
    digest = hashlib.sha256(body).hexdigest()
    return {"bucket": _BUCKET, "name": name, "size": len(body), "sha256": digest}


def _shortened(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with texts cut, for a failure that says too much for one message."""
    limit = 8_000
    short = {k: v[:limit] if isinstance(v, str) else v for k, v in fields.items()}
    headers = {k: v[:200] for k, v in list(fields["original_headers"].items())[:50]}
    return {**short, "original_headers": headers, "attempts": []}
