"""Events that the server stops to deliver, by its advisories, if the consumer cannot be read."""

import json
import logging
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.aio.msg import Msg

from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.permissions import check_heard
from sahool_dlq.jetstream.streams import GIVEN_UP

__all__ = ["Exhausted"]

logger = logging.getLogger(__name__)


class Exhausted:
    """Receives the server's advisories about one durable consumer."""

    def __init__(
        self, stream: str, consumer: str, tell: Callable[[int, int], Awaitable[None]]
    ) -> None:
        self._subject = f"{GIVEN_UP}.{stream}.{consumer}"
        self._tell = tell  # the event's sequence, and its number of deliveries
        self._client: Client | None = None  # the connection of the subscription

    async def listen(self, client: Client) -> None:
        """Subscribe, if not done yet. Raises the errors of a request in an outage."""
        if self._client is not None and not self._client.is_closed:
            return
        await client.subscribe(self._subject, cb=self._heard)
        self._client = client
        try:
            await check_heard(client, self._subject)
        except NotPermittedError as error:
            logger.warning(
                "Events that the server gives up cannot be heard of (%s): an event beyond the"
                " consumer's max_deliver would be lost to it. Grant that, or reading the consumer,"
                " or set its max_deliver to -1.",
                error,
            )

    async def _heard(self, msg: Msg) -> None:
        said = json.loads(msg.data)
        await self._tell(int(said["stream_seq"]), int(said["deliveries"]))
