"""Publishing events through JetStream: True once the server has them."""

import logging
from collections.abc import Mapping

import nats
import nats.errors
from nats.aio.client import Client
from nats.js.errors import NoStreamResponseError
from pydantic import BaseModel, ConfigDict, Field

from pipelines.deadletter.subjects import Subjects
from pipelines.events.outbox import PUBLISH_ERRORS
from pipelines.jetstream.streams import StreamNames, ensure_streams

logger = logging.getLogger(__name__)


class NATSConfig(BaseModel):
    """How a `NATSPublisher` connects."""

    model_config = ConfigDict(frozen=True)

    servers: list[str] = Field(default_factory=lambda: ["nats://localhost:4222"])
    name: str = "sahool-publisher"
    user_credentials: str | None = None
    stream_name: str = "SAHOOL_EVENTS"
    subject_prefix: str = "sahool"
    timeout_seconds: float = Field(5, gt=0)


class NATSPublisher:
    """Publishes events; makes the event stream where none captures the subject."""

    def __init__(self, config: NATSConfig | None = None) -> None:
        self.config = config or NATSConfig()
        self._connection: Client | None = None

    async def connect(self) -> bool:
        """Connect to NATS; False, with the reason logged, where no server answers."""
        config = self.config
        try:
            self._connection = await nats.connect(
                config.servers,
                name=config.name,
                user_credentials=config.user_credentials,
                max_reconnect_attempts=-1,
            )
        except (nats.errors.Error, OSError, ValueError) as error:
            logger.error("No NATS server answers at %s: %s", ", ".join(config.servers), error)
            return False
        return True

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Publish one event; False, with the reason logged, where the server did not take it."""
        if self._connection is None:
            logger.error("Not connected: await publisher.connect() first.")
            return False
        js = self._connection.jetstream()
        sent = dict(headers) if headers else None
        try:
            try:
                await js.publish(subject, data, headers=sent, timeout=self.config.timeout_seconds)
            except NoStreamResponseError:
                subjects = Subjects(self.config.subject_prefix)
                names = StreamNames(events=self.config.stream_name, subjects=subjects)
                await ensure_streams(js, names)
                await js.publish(subject, data, headers=sent, timeout=self.config.timeout_seconds)
        except PUBLISH_ERRORS as error:
            logger.error(
                "Event on %s was not published: %s", subject, str(error) or type(error).__name__
            )
            return False
        return True

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None and not self._connection.is_closed:
            await self._connection.close()
