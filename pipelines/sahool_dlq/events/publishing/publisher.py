"""Publishing events through JetStream: True once the server has them."""

import asyncio
import contextlib
import logging
from typing import Any

from nats.aio.client import Client
from nats.errors import MaxPayloadError
from nats.js.errors import APIError, NoStreamResponseError
from pydantic import Field

from sahool_dlq.deadletter.headers import Headers
from sahool_dlq.deadletter.subjects import Subjects, subject_token
from sahool_dlq.errors import ServerUnavailableError, SettingsError, StreamError
from sahool_dlq.events.outbox import PUBLISH_ERRORS
from sahool_dlq.events.publishing.analysis_event import AnalysisEvent
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.connection import connect_service, disconnect, wire_size
from sahool_dlq.jetstream.refusals import IN_PROCESS
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.jetstream.streams import ensure_event_stream

logger = logging.getLogger(__name__)

_LONGEST_SUBJECT = 1_000  # bytes; the server ends a connection that sends thousands
_PAUSES = 0.1, 0.5, 2.0  # seconds, while a cluster is storing the same id


class NATSConfig(Access):
    """How a `NATSPublisher` connects; see `Access`."""

    name: str = "sahool-publisher"
    stream_name: str = "SAHOOL_EVENTS"
    subject_prefix: str = "sahool"
    timeout_seconds: float = Field(default=5, gt=0)  # for one publish
    connect_timeout_seconds: float = Field(default=10, gt=0)  # for `connect` as a whole
    reconnect_time_wait: float = Field(default=2, ge=0)
    max_reconnect_attempts: int = -1  # for ever


class NATSPublisher:
    """Publishes events; creates the event stream if no stream captures the subject."""

    def __init__(self, config: NATSConfig | None = None) -> None:
        self.config = config or NATSConfig()
        self._connection: Client | None = None
        self._connecting = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        """Whether the connection to NATS is up."""
        return self._connection is not None and self._connection.is_connected

    async def connect(self) -> bool:
        """Connect to NATS; False, with the reason logged, if no server answers.

        An existing connection is kept: it reconnects by itself.
        """
        async with self._connecting:
            if self._connection is not None and not self._connection.is_closed:
                return self._connection.is_connected
            return await self._connect()

    async def _connect(self) -> bool:
        config = self.config
        try:
            self._connection = await connect_service(
                config,
                name=config.name,
                timeout_seconds=config.connect_timeout_seconds,
                reconnect_time_wait=config.reconnect_time_wait,
                max_reconnect_attempts=config.max_reconnect_attempts,
            )
        except ServerUnavailableError as error:
            logger.error("%s", error)
            return False
        return True

    async def publish(self, subject: str, data: bytes, headers: Headers | None = None) -> bool:
        """Publish one event; False, with the reason logged, if the server did not accept it.

        A header with a list of values is sent once per value.
        """
        if self._connection is not None:
            with contextlib.suppress(SettingsError):  # a file that is being written
                await self.connect()  # nats-py gives it up on most errors that a server sends
        if (connection := self._connection) is None:
            logger.error("Not connected: await publisher.connect() first.")
            return False
        try:
            await self._until_known(connection, subject, data, dict(headers or {}) or None)
        except (*PUBLISH_ERRORS, StreamError) as error:
            logger.error(
                "Event on %s was not published: %s",
                subject[:100],
                str(error) or type(error).__name__,
            )
            return False
        return True

    async def publish_analysis_event(self, event: AnalysisEvent) -> bool:
        """Publish a finished analysis: `ndvi.computed` goes to `sahool.analysis.ndvi_computed`."""
        subject = f"{self.config.subject_prefix}.analysis.{subject_token(event.event_type)}"
        return await self.publish(subject, event.to_json().encode())

    async def publish_action_event(
        self,
        action_type: str,
        field_id: str,
        action_template: dict[str, Any],
        source_service: str,
        farmer_id: str | None = None,
        tenant_id: str | None = None,
    ) -> bool:
        """Publish a recommended action on `sahool.actions.{action_type}`."""
        event = AnalysisEvent(
            event_type=f"action.{action_type}",
            source_service=source_service,
            field_id=field_id,
            farmer_id=farmer_id,
            tenant_id=tenant_id,
            action_template=action_template,
            notification_priority=action_template.get("urgency", "medium"),
            notification_channels=["push", "in_app"],
        )
        where = ".".join(map(subject_token, action_type.split(".")))
        subject = f"{self.config.subject_prefix}.actions.{where}"
        return await self.publish(subject, event.to_json().encode())

    async def _until_known(
        self, connection: Client, subject: str, data: bytes, headers: dict[str, Any] | None
    ) -> None:
        """Publish; if an earlier try with the same id is still being stored, it ends as a
        duplicate.
        """
        for pause in (*_PAUSES, None):
            try:
                await self._publish(connection, subject, data, headers)
            except APIError as error:
                if pause is None or error.err_code != IN_PROCESS:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def _publish(
        self, connection: Client, subject: str, data: bytes, headers: dict[str, Any] | None
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
            await ensure_event_stream(js, names, subject)
            await js.publish(subject, data, headers=headers, timeout=seconds)

    async def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await disconnect(connection)
