"""The first minutes of `dlq up`: drains, groups and redrives the first failures without waiting.

The schedules would do the same, within a quarter of an hour.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg

from sahool_dlq.connections import open_postgres
from sahool_dlq.errors import DLQError
from sahool_dlq.settings import Settings

__all__ = ["Opening"]

_FIRST_DRAIN_SECONDS = 15.0  # until some services have given up events
_POLL_SECONDS = 1.0
_AGAIN_SECONDS = 120.0  # before a run without result is started again

_FAILED = "SELECT count(*) FROM failed_events WHERE published_at > %s"
_GROUPED = "SELECT count(*) FROM mart_failure_groups WHERE last_seen_at > %s"
_CURED = """
SELECT count(*) FROM redrives r JOIN redrive_batches b ON b.id = r.batch_id
WHERE r.state = 'succeeded' AND b.trigger = 'automatic' AND r.ended_at > %s
"""


class Opening:
    """Starts the runs up to the first successful redrive, and reports their results."""

    def __init__(
        self, settings: Settings, say: Callable[[str], None], start_run: Callable[[str], None]
    ) -> None:
        self.is_healed = asyncio.Event()  # what was broken works again
        self._settings = settings
        self._say = say
        self._start_run = start_run
        self._since = datetime.now(UTC)

    async def play(self) -> None:
        """Ends with the first successful redrive."""
        await asyncio.sleep(_FIRST_DRAIN_SECONDS)
        count = await self._run_until("drain-dlq", _FAILED)
        self._say(f"The first {count:,} failures are in the lake and in PostgreSQL")
        drained_at = asyncio.get_running_loop().time()
        count = await self._run_until(None, _GROUPED)
        self._say(f"They are {count:,} groups")
        await self.is_healed.wait()
        rested_at = drained_at + self._settings.redrive_delay_seconds
        await asyncio.sleep(max(rested_at - asyncio.get_running_loop().time(), 0))
        count = await self._run_until("redrive-transient", _CURED)
        self._say(f"The first {count:,} failures are cured, by a redrive that nobody asked for")

    async def _run_until(self, deployment: str | None, query: str) -> int:
        """Start a run, and repeat it without result, until the query counts something."""
        seconds = 0.0
        while not (count := await asyncio.to_thread(self._count, query)):
            if deployment is not None and seconds % _AGAIN_SECONDS == 0:
                with contextlib.suppress(DLQError):  # Prefect's watcher reports this
                    await asyncio.to_thread(self._start_run, deployment)
            await asyncio.sleep(_POLL_SECONDS)
            seconds += _POLL_SECONDS
        return count

    def _count(self, query: str) -> int:
        # If it is down, its watcher reports this; and there are no marts before the first build.
        with (
            contextlib.suppress(DLQError, psycopg.Error),
            open_postgres(self._settings) as connection,
        ):
            row = connection.execute(query, [self._since]).fetchone()
            return int(row[0]) if row else 0
        return 0
