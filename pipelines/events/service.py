"""What every long-running service of this library does: connect, stay connected, end in order."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

import nats.errors
from nats.aio.client import Client

from pipelines.errors import ServerUnavailableError
from pipelines.events.intake import Intake
from pipelines.jetstream.connection import connect_service, disconnect

logger = logging.getLogger(__name__)


class ConnectionSettings(Protocol):
    """The settings that a connection needs, whatever else is configured with them."""

    @property
    def servers(self) -> Sequence[str]: ...
    @property
    def name(self) -> str: ...
    @property
    def user_credentials(self) -> str | None: ...
    @property
    def connect_timeout_seconds(self) -> float: ...
    @property
    def reconnect_time_wait(self) -> float: ...
    @property
    def max_reconnect_attempts(self) -> int: ...


class Service:
    """A connection, and the intakes that work on it until `close`."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._connection: Client | None = None
        self._intakes: list[Intake] = []
        self._closing = asyncio.Event()
        self._background: asyncio.Task[None] | None = None
        self._is_started = False

    @property
    def is_connected(self) -> bool:
        """Whether the connection to NATS is up."""
        return self._connection is not None and self._connection.is_connected

    async def connect(self) -> bool:
        """Connect to NATS; False, with the reason logged, where no server answers.

        A connection that there is already is kept: it comes back by itself.
        """
        if self._connection is not None and not self._connection.is_closed:
            return self._connection.is_connected
        settings = self._settings
        try:
            self._connection = await connect_service(
                settings.servers,
                name=settings.name,
                user_credentials=settings.user_credentials,
                timeout_seconds=settings.connect_timeout_seconds,
                reconnect_time_wait=settings.reconnect_time_wait,
                max_reconnect_attempts=settings.max_reconnect_attempts,
            )
        except ServerUnavailableError as error:
            logger.error("%s", error)
            return False
        return True

    async def start(self) -> None:
        """Work until `close` is called or the task is cancelled.

        Raises what made an intake stop by itself.
        """
        if not self._intakes:
            raise RuntimeError("Nothing to consume: await subscribe(handler) first.")
        if self._is_started:
            raise RuntimeError("It was started already: make another for another start.")
        self._is_started = True
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(intake.run()) for intake in self._intakes]
            others = [group.create_task(work) for work in (self._stay_connected(), *self._chores())]
            await asyncio.wait(runs)
            for task in others:
                task.cancel()
        for intake in self._intakes:
            if intake.error is not None:
                raise intake.error

    async def run(self) -> None:
        """Work until the process is told to end (SIGTERM, Ctrl-C), then close in order.

        For the main program of a service: the event loop must run in the main thread.
        """
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for each in signals:
            loop.add_signal_handler(each, self._closing.set)
        try:
            await self.start()
        finally:
            await self.close()
            for each in signals:
                loop.remove_signal_handler(each)

    def start_in_background(self) -> None:
        """Run `start` as a task of the running loop, until `close`."""
        self._background = asyncio.create_task(self.start())
        self._background.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Take nothing more, let running handlers finish, then disconnect."""
        self._closing.set()
        if self._background is not None:
            await asyncio.wait({self._background})
        await asyncio.gather(*(intake.stopped.wait() for intake in self._intakes))
        connection = self._connection
        if connection is None or connection.is_closed:
            return
        await self._say_goodbye()
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await connection.drain()
        await disconnect(connection)

    def _to_subscribe(self) -> Client:
        """The connection, where a subscription would still be worked on."""
        if self._connection is None:
            raise RuntimeError("Not connected: await consumer.connect() first.")
        if self._is_started or self._background is not None or self._closing.is_set():
            raise RuntimeError(
                "It was started or closed already, and nobody would see to this subscription:"
                " subscribe before start(), or make another consumer."
            )
        return self._connection

    def _chores(self) -> Iterable[Coroutine[Any, Any, None]]:
        """What else goes on, for ever, while the intakes work."""
        return ()

    async def _say_goodbye(self) -> None:
        """What is left to do before the connection ends."""

    async def _stay_connected(self) -> None:
        """Connect anew where nats-py gave up: it does on most errors that a server sends."""
        while True:
            await asyncio.sleep(self._settings.reconnect_time_wait or 0.1)
            if self._connection is not None and self._connection.is_closed:
                logger.error(
                    "The connection was ended (%s): connecting", self._connection.last_error
                )
                if await self.connect():
                    for intake in self._intakes:
                        intake.connection = self._connection


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("The consumer stopped by an error", exc_info=error)
