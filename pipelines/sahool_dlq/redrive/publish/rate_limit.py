"""The rate of redrives: a limit for all, and one for each service."""

import asyncio
import contextlib
from collections.abc import Mapping

__all__ = ["Budget"]


class Budget:
    """A token bucket for all redrives, and one for each service."""

    def __init__(self, per_second: float, floor: float, services: Mapping[str, float]) -> None:
        self._interval = 1 / per_second
        self._floor = floor  # redrives per second of an unknown service
        self._services = services
        self._next = 0.0
        self._next_of: dict[str, float] = {}

    async def turn(self, service: str, stop: asyncio.Event) -> bool:
        """Wait until a redrive to this service is allowed; False if `stop` came first."""
        if stop.is_set():
            return False
        now = asyncio.get_running_loop().time()
        start = max(self._next, self._next_of.get(service, 0.0), now)
        self._next = max(self._next, now) + self._interval
        self._next_of[service] = start + 1 / self._services.get(service, self._floor)
        if start > now:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), start - now)
        return not stop.is_set()
