"""Publishing events through JetStream: True once the server has them."""

import logging
from collections.abc import Mapping

from nats.aio.client import Client
from nats.errors import MaxPayloadError
from nats.js.errors import NoStreamResponseError
from pydantic import BaseModel, ConfigDict, Field

from pipelines.deadletter.subjects import Subjects
from pipelines.errors import ServerUnavailableError, StreamError
from pipelines.events.outbox import PUBLISH_ERRORS
from pipelines.jetstream.connection import connect_service, wire_size
from pipelines.jetstream.streams import StreamNames, ensure_event_stream

logger = logging.getLogger(__name__)

_LONGEST_SUBJECT = 1_000  # bytes; the server ends a connection that sends thousands


class NATSConfig(BaseModel):
    """How a `NATSPublisher` connects."""

    model_config = ConfigDict(frozen=True)

    servers: list[str] = Field(default_factory=lambda: ["nats://localhost:4222"])
    name: str = "sahool-publisher"
    user_credentials: str | None = None
    stream_name: str = "SAHOOL_EVENTS"
    subject_prefix: str = "sahool"
    timeout_seconds: float = Field(5, gt=0)  # for one publish
    connect_timeout_seconds: float = Field(10, gt=0)  # for `connect` as a whole


class NATSPublisher:
    """Publishes events; makes the event stream where none captures the subject."""

    def __init__(self, config: NATSConfig | None = None) -> None:
        self.config = config or NATSConfig()
        self._connection: Client | None = None

    async def connect(self) -> bool:
        """Connect to NATS; False, with the reason logged, where no server answers."""
        config = self.config
        try:
            self._connection = await connect_service(
                config.servers,
                name=config.name,
                user_credentials=config.user_credentials,
                timeout_seconds=config.connect_timeout_seconds,
            )
        except ServerUnavailableError as error:
            logger.error("%s", error)
            return False
        return True

    async def publish(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Publish one event; False, with the reason logged, where the server did not take it."""
        if self._connection is None:
            logger.error("Not connected: await publisher.connect() first.")
            return False
        try:
            await self._publish(self._connection, subject, data, dict(headers or {}) or None)
        except (*PUBLISH_ERRORS, StreamError) as error:
            logger.error(
                "Event on %s was not published: %s",
                subject[:100],
                str(error) or type(error).__name__,
            )
            return False
        return True

    async def _publish(
        self, connection: Client, subject: str, data: bytes, headers: dict[str, str] | None
    ) -> None:
        if len(subject.encode()) > _LONGEST_SUBJECT or (
            wire_size(data, headers) > connection.max_payload
        ):
            raise MaxPayloadError
        js, seconds = connection.jetstream(), self.config.timeout_seconds
        try:
            await js.publish(subject, data, headers=headers, timeout=seconds)
        except NoStreamResponseError:
            names = StreamNames(
                events=self.config.stream_name, subjects=Subjects(self.config.subject_prefix)
            )
            await ensure_event_stream(js, names)
            await js.publish(subject, data, headers=headers, timeout=seconds)

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None and not self._connection.is_closed:
            await self._connection.close()
