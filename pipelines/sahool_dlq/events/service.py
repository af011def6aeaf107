"""The common part of every long-running service of this library: connect, stay connected, end in
order.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

import nats.errors
from nats.aio.client import Client

from sahool_dlq.errors import ServerUnavailableError, SettingsError
from sahool_dlq.events.closing import CUT_SECONDS, GRACE_SECONDS, Closing, end
from sahool_dlq.events.intake import Intake
from sahool_dlq.events.signals import end_process, set_by_signal
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.bounded import within
from sahool_dlq.jetstream.connection import connect_service, disconnect

logger = logging.getLogger(__name__)

_FAREWELL_SECONDS = 2.5  # to flush and close, if the server is slow or down


class ConnectionSettings(Protocol):
    """The settings that a connection needs besides `Access`."""

    @property
    def name(self) -> str: ...
    @property
    def connect_timeout_seconds(self) -> float: ...
    @property
    def reconnect_time_wait(self) -> float: ...
    @property
    def max_reconnect_attempts(self) -> int: ...
    @property
    def shutdown_seconds(self) -> float: ...


class Service:
    """A connection, and the intakes that use it until `close`."""

    def __init__(self, access: Access, settings: ConnectionSettings) -> None:
        self._access = access
        self._settings = settings
        self._connection: Client | None = None
        self._intakes: list[Intake] = []
        self._closing = Closing(settings.shutdown_seconds)
        self._background: asyncio.Task[None] | None = None
        self._is_started = False

    @property
    def is_connected(self) -> bool:
        """Whether the connection to NATS is up."""
        return self._connection is not None and self._connection.is_connected

    async def connect(self) -> bool:
        """Connect to NATS; False, with the reason logged, if no server answers.

        An existing connection is kept: it reconnects by itself.
        """
        if self._connection is not None and not self._connection.is_closed:
            return self._connection.is_connected
        try:
            await self._open()
        except ServerUnavailableError as error:
            logger.error("%s", error)
            return False
        return True

    async def _open(self) -> Client:
        settings = self._settings
        self._connection = connection = await connect_service(
            self._access,
            name=settings.name,
            timeout_seconds=settings.connect_timeout_seconds,
            reconnect_time_wait=settings.reconnect_time_wait,
            max_reconnect_attempts=settings.max_reconnect_attempts,
        )
        return connection

    async def start(self) -> None:
        """Work until `close` is called or the task is cancelled.

        Raises the error that stopped an intake, also SystemExit if a handler called sys.exit.
        """
        if not self._intakes:
            raise RuntimeError("Nothing to consume: await subscribe(handler) first.")
        if self._is_started:
            raise RuntimeError("It was started already: create a new consumer to start again.")
        self._is_started = True
        runs = [asyncio.create_task(intake.run()) for intake in self._intakes]
        others = [asyncio.create_task(work) for work in (self._stay_connected(), *self._chores())]
        work: list[asyncio.Future[Any]] = [asyncio.gather(*runs), *others]
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()  # a chore only ends by an error
        finally:
            self._closing.set()
            for run in runs:
                if not run.cancelling():  # a second time would interrupt its last steps
                    run.cancel()
            await asyncio.wait(runs)
            await end(others, self._closing.last_seconds(CUT_SECONDS))
        for intake in self._intakes:
            if intake.error is not None:
                if not isinstance(intake.error, Exception):
                    await self._disconnect()  # it ends the loop, and everything in it
                raise intake.error

    async def run(self) -> None:
        """Work until the process is told to end (SIGTERM, Ctrl-C), then close in order.

        For the main program of a service: the event loop must run in the main thread. At a second
        signal the process ends at once. It also ends soon after `shutdown_seconds` if a handler, or
        a thread of one, does not end.
        """
        last_resort: threading.Timer | None = None

        def on_signal(number: int) -> None:
            nonlocal last_resort
            self._closing.begin()
            last_resort = threading.Timer(
                self._closing.shutdown_seconds + GRACE_SECONDS + 0.5, _end_without, [number]
            )
            last_resort.daemon = True
            last_resort.start()

        with set_by_signal(self._closing, on_signal):
            try:
                await self.start()
            finally:
                await self.close()
                if last_resort is not None and not self._closing.has_cut_off:
                    last_resort.cancel()

    def start_in_background(self) -> None:
        """Run `start` as a task of the running loop, until `close`."""
        self._background = asyncio.create_task(self.start())
        self._background.add_done_callback(_log_failure)

    async def close(self) -> None:
        """Take no more messages, let running handlers finish, then disconnect.

        It takes at most `shutdown_seconds` and a few seconds more.
        """
        self._closing.set()
        if self._background is not None:
            await asyncio.wait({self._background})
        await asyncio.gather(*(intake.stopped.wait() for intake in self._intakes))
        await self._disconnect()

    async def _disconnect(self) -> None:
        connection = self._connection
        if connection is None or connection.is_closed:
            return
        with contextlib.suppress(nats.errors.Error, OSError):
            seconds = self._closing.last_seconds(_FAREWELL_SECONDS)
            await within(seconds, self._part(connection))
        await disconnect(connection)

    async def _part(self, connection: Client) -> None:
        """Make sure that the server has every acknowledgement, then close the connection."""
        while not connection.is_connected:  # noqa: ASYNC110  (nats-py has no event for it)
            await asyncio.sleep(0.1)
        await connection.flush()
        await self._say_goodbye()

    def _to_subscribe(self) -> Client:
        """The connection, if a subscription can still be added."""
        if self._connection is None:
            raise RuntimeError("Not connected: await consumer.connect() first.")
        if self._is_started or self._background is not None or self._closing.is_set():
            raise RuntimeError(
                "It was started or closed already, so this subscription would never run:"
                " subscribe before start(), or create another consumer."
            )
        return self._connection

    def _chores(self) -> Iterable[Coroutine[Any, Any, None]]:
        """Background work, for ever, while the intakes work."""
        return ()

    async def _say_goodbye(self) -> None:
        """The last work before the connection ends."""

    async def _stay_connected(self) -> None:
        """Connect again when nats-py gave up: it does so on most errors from a server."""
        while True:
            await asyncio.sleep(self._settings.reconnect_time_wait or 0.1)
            if self._connection is not None and self._connection.is_closed:
                logger.error(
                    "The connection was ended (%s): connecting", self._connection.last_error
                )
                try:
                    is_connected = await self.connect()
                except SettingsError as error:  # a credentials file that is just being written
                    logger.error("%s", error)
                    continue
                if is_connected:
                    for intake in self._intakes:
                        intake.connection = self._connection


def _end_without(number: int) -> None:
    logger.error("A handler or its thread does not end: the process ends without waiting for it")
    end_process(number)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and isinstance(error := task.exception(), Exception):
        logger.error("The consumer stopped with an error", exc_info=error)
