"""Checks whether the server's dead letter with our id is the same as ours."""

import json
import logging
from datetime import datetime
from typing import Any

from nats.aio.client import Client
from nats.js.api import PubAck

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.stored import stored_message

__all__ = ["SameLetters"]

logger = logging.getLogger(__name__)

_OF_THE_WRITER = ("last_attempt_at", "dlq_timestamp", "retry_count", "attempts", "traceparent")
"""Keys about the time and the calls of a dead letter: two letters of one failure may differ in
these.
"""
_ALWAYS = {"last_attempt_at", "dlq_timestamp"}  # in each letter of ours
_BODY = b', "original_data": '


class SameLetters:
    """Checks duplicates: another process of ours may have written it before it died."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_permitted = True

    async def is_ours(self, ack: PubAck, subject: str, payload: bytes) -> bool:
        """Whether that message has the same content as ours; False if it cannot be read.

        Raises as `stored_message` does.
        """
        if not self._is_permitted:
            return False
        try:
            stored = await stored_message(self._client, ack.stream, ack.seq)
        except NotPermittedError as error:
            self._is_permitted = False
            logger.warning("An earlier dead letter with the same id is kept as well: %s", error)
            return False
        if stored is None or stored.subject != subject:
            return False
        if stored.data == payload:
            return True
        ours = _said(payload)
        return ours is not None and _said(stored.data) == ours


def _said(letter: bytes) -> tuple[dict[str, Any], bytes] | None:
    """The content of a letter, with the body's exact text; None if it is not a letter."""
    at = -1
    while (at := letter.find(_BODY, at + 1)) >= 0:  # a header may be called so, too
        try:
            fields = json.loads(letter[:at] + b"}")
            datetime.fromisoformat(fields["dlq_timestamp"])
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if not fields.keys() >= _ALWAYS:
            return None
        said = {key: value for key, value in fields.items() if key not in _OF_THE_WRITER}
        return said, letter[at + len(_BODY) :]
    return None
