"""Whether the dead letter that the server holds under our id is the one that we write."""

import json
import logging
from datetime import datetime

from nats.aio.client import Client
from nats.js.api import PubAck

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.stored import stored_message

__all__ = ["SameLetters"]

logger = logging.getLogger(__name__)


class SameLetters:
    """Looks at duplicates; an advisory always makes the same dead letter, to the byte.

    One without an advisory says when somebody looked, so it is compared but for that time.
    """

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
        return stored.data == payload or stored.data == _said_at_its_time(payload, stored.data)


def _said_at_its_time(payload: bytes, stored: bytes) -> bytes | None:
    """Our dead letter as it would be if we had looked when the stored one says."""
    ours = json.loads(payload)
    if ours["last_attempt_at"] == ours["first_attempt_at"]:
        return None
    try:
        theirs = json.loads(stored)["dlq_timestamp"]
        datetime.fromisoformat(theirs)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return payload.replace(ours["dlq_timestamp"].encode(), theirs.encode())
