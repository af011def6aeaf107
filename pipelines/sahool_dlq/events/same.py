"""Whether the dead letter that the server holds under our id is the one that we write."""

import json
import logging
from typing import Any

from nats.aio.client import Client
from nats.js.api import PubAck

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.stored import stored_message

__all__ = ["SameLetters"]

logger = logging.getLogger(__name__)

_OF_THE_WRITER = ("last_attempt_at", "dlq_timestamp", "retry_count", "attempts", "traceparent")
"""What says when, and after which calls, somebody wrote it: two may say it of one failure."""
_BODY = b', "original_data": '


class SameLetters:
    """Looks at duplicates: another process of ours may have written it before it died."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._is_permitted = True

    async def is_ours(self, ack: PubAck, subject: str, payload: bytes) -> bool:
        """Whether that message says what ours says; False where it cannot be read.

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
        return stored.data == payload or _said(stored.data) == _said(payload)


def _said(letter: bytes) -> tuple[dict[str, Any], bytes] | None:
    """What a letter says of its failure, with the body as it is spelt."""
    head, _, body = letter.partition(_BODY)
    try:
        fields = json.loads(head + b"}" if body else head)
        return {key: fields[key] for key in fields if key not in _OF_THE_WRITER}, body
    except (ValueError, TypeError, RecursionError):
        return None
