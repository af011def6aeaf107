"""The batches that `dlq serve` runs: one after the other, in a thread of their own."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import copy_context

from sahool_dlq.errors import BusyError, DLQError
from sahool_dlq.jobs.batches import pause, show_batch
from sahool_dlq.jobs.redrive import run_redrive
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.audit import CHANNEL

__all__ = ["Runs"]

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 5.0  # until the redrive of another process is looked for again


class Runs:
    """Runs batches until it is closed; then it pauses the one that runs, as Ctrl-C does."""

    def __init__(self, settings: Settings, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._settings = settings
        self._patience = patience_seconds
        self._problems: dict[str, str] = {}
        self._running: set[str] = set()  # and those that wait for their turn
        self._waiting: asyncio.Queue[str] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Callable[[], object] = lambda: None
        self._is_ready = threading.Event()
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._main,), name="dlq-runs"
        )

    def __enter__(self) -> "Runs":
        self._thread.start()
        self._is_ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    def start(self, batch_id: str) -> None:
        """Run a batch that was approved or resumed, once those before it have ended."""
        assert self._loop is not None
        self._problems.pop(batch_id, None)
        self._running.add(batch_id)
        self._loop.call_soon_threadsafe(self._waiting.put_nowait, batch_id)

    def is_running(self, batch_id: str) -> bool:
        """Whether a batch runs here, or waits for its turn; after that its outcomes are stored."""
        return batch_id in self._running

    def problem(self, batch_id: str) -> str | None:
        """Why the last run of a batch here ended without an end of the batch; None if it did not,
        or waits.
        """
        return self._problems.get(batch_id)

    def _main(self) -> None:
        CHANNEL.set("http")
        asyncio.run(self._work())

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        working = asyncio.ensure_future(self._each())
        self._stop = working.cancel
        self._is_ready.set()
        await asyncio.wait([working])

    async def _each(self) -> None:
        while True:
            batch_id = await self._waiting.get()
            try:
                await self._run(batch_id)
            except asyncio.CancelledError:
                self._pause(batch_id)
                while not self._waiting.empty():
                    self._pause(self._waiting.get_nowait())
                raise
            except DLQError as error:
                logger.warning("The batch %s: %s", batch_id, error)
                self._problems[batch_id] = str(error)
            except Exception:
                logger.exception("The batch %s was not run to its end", batch_id)
                self._problems[batch_id] = (
                    "This is a fault of ours: the log of `dlq serve` has its traceback. Resume the"
                    " batch to try it again."
                )
            self._running.discard(batch_id)

    async def _run(self, batch_id: str) -> None:
        while True:
            try:
                await run_redrive(self._settings, batch_id)
            except BusyError as error:
                self._problems[batch_id] = f"It waits: {error}"
                await asyncio.sleep(self._patience)
            else:
                self._problems.pop(batch_id, None)
                return

    def _pause(self, batch_id: str) -> None:
        """Leave nothing behind that a schedule would take up."""
        try:
            if show_batch(self._settings, batch_id).state == "running":
                pause(self._settings, batch_id, by="dlq serve", reason="dlq serve was stopped")
        except DLQError as error:
            logger.warning("The batch %s could not be paused: %s", batch_id, error)
