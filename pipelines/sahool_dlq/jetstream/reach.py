"""Whether an event gets to a consumer: checks the consumer's state on the server."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError

from sahool_dlq.deadletter.subjects import matches
from sahool_dlq.errors import NotPermittedError
from sahool_dlq.jetstream.api import ask
from sahool_dlq.jetstream.consumers import parts_of

__all__ = ["Lookout", "Reach", "Stopped", "Wanted"]

_LATELY = timedelta(minutes=15)
_BETWEEN_PULLS_SECONDS = 3.0  # within this time a consumer that pulls constantly is seen pulling
_LOOK_SECONDS = 0.25
_FRESH_SECONDS = 2.0  # validity of a check
_AT_ONCE = 8


class Reach(NamedTuple):
    """What is known about an event's way to its consumer; both empty if it gets there."""

    problem: str | None = None  # why it does not
    doubt: str | None = None  # why it is unknown


class Stopped(NamedTuple):
    """An existing consumer that nobody pulls from."""

    reason: str
    waiting_count: int  # events that it has not been given, or has not answered


@dataclass(frozen=True, slots=True)
class _Sight:
    """A consumer at the time of the check."""

    address: str  # <stream>/<durable>
    reach: Reach  # of whatever its filter lets through
    filters: tuple[str, ...] = (">",)
    stream_subjects: tuple[str, ...] | None = None  # None: others feed the stream, or rename
    waiting_count: int | None = None  # None: it is not there, or nobody can tell
    is_pulled: bool = False  # just now
    at: float = field(default_factory=time.monotonic)

    def of(self, subject: str) -> Reach:
        """Whether an event on a subject gets there."""
        if self.reach.problem or self.stream_subjects is None:
            return self.reach
        stream = self.address.partition("/")[0]
        if not any(matches(each, subject) for each in self.stream_subjects):
            return Reach(f"{stream} does not capture {subject}")
        if not any(matches(each, subject) for each in self.filters):
            return Reach(f"{self.address} does not get {subject}, only {', '.join(self.filters)}")
        return self.reach


Wanted = tuple[str | None, str, bool]
"""A consumer `<stream>/<durable>`, the subject of an event for it, and `is_patient`."""


class Lookout:
    """Checks consumers: each only once in a while, however often it is asked."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._seen: dict[tuple[str, bool], asyncio.Future[_Sight]] = {}

    async def reach(self, address: str | None, subject: str, *, is_patient: bool) -> Reach:
        """Whether an event on `subject` gets to the consumer `<stream>/<durable>`.

        With `is_patient`, a consumer that was active in the last quarter of an hour counts as
        pulled from, because it probably fetches again. Otherwise it must have an open request now,
        or events in progress: our consumers always do.
        """
        if address is None:
            return Reach(doubt="their dead letters do not say which consumer failed")
        return (await self._sight(address, is_patient=is_patient)).of(subject)

    async def stopped(self, address: str, *, is_silent: bool) -> Stopped | Reach:
        """Whether one of our consumers exists and nobody pulls from it; else a Reach.

        `is_silent`: its service publishes no totals any more, so its events in progress do not
        count.
        """
        sight = await self._sight(address, is_patient=False)
        problem, count = sight.reach.problem, sight.waiting_count
        if problem is None and is_silent and not sight.is_pulled:
            problem = f"nobody pulls from {address}, and its service no longer publishes totals"
        return sight.reach if problem is None or count is None else Stopped(problem, count)

    async def _sight(self, address: str, *, is_patient: bool) -> _Sight:
        key = address, is_patient
        look = self._seen.get(key)
        if look is None or (look.done() and time.monotonic() > look.result().at + _FRESH_SECONDS):
            look = self._seen[key] = asyncio.ensure_future(self._look(*key))
        return await asyncio.shield(look)

    async def reaches(self, wanted: Iterable[Wanted]) -> dict[Wanted, Reach]:
        """The same for many."""
        keys = list(dict.fromkeys(wanted))
        found = await asyncio.gather(
            *(
                self.reach(address, subject, is_patient=patient)
                for address, subject, patient in keys
            )
        )
        return dict(zip(keys, found, strict=True))

    async def _look(self, address: str, is_patient: bool) -> _Sight:
        parts = parts_of(address)
        if parts is None:
            return _Sight(address, Reach(f"this is not a valid consumer name: {address}"))
        stream, durable = parts
        missing = f"there is no stream {stream}"
        try:
            async with self._turns:
                config = (await self._js.stream_info(stream)).config
            missing = f"there is no consumer {address}"
            info = await self._info(stream, durable, is_patient=is_patient)
        except NotFoundError:
            return _Sight(address, Reach(missing))
        except NotPermittedError as error:
            return _Sight(address, Reach(doubt=str(error)))
        except (nats.errors.Error, APIError) as error:
            return _Sight(
                address, Reach(doubt=f"NATS does not report the state of {address}: {error!r}")
            )
        return _seen(address, info, config, is_patient=is_patient)

    async def _info(self, stream: str, durable: str, *, is_patient: bool) -> dict[str, Any]:
        """The state of a consumer; one that may be between two pulls is checked again."""
        deadline = time.monotonic() + _BETWEEN_PULLS_SECONDS
        while True:
            async with self._turns:
                info = await ask(self._js, f"CONSUMER.INFO.{stream}.{durable}")
            is_over = info.get("paused") or time.monotonic() >= deadline
            if is_over or not _is_idle(info, is_patient=is_patient):
                return info
            await asyncio.sleep(_LOOK_SECONDS)


def _seen(address: str, info: dict[str, Any], config: StreamConfig, *, is_patient: bool) -> _Sight:
    wanted = info["config"]
    filters = wanted.get("filter_subjects") or [wanted.get("filter_subject") or ">"]
    is_plain = not (config.sources or config.mirror or config.subject_transform)
    problem = _why_idle(address, info, is_patient=is_patient)
    subjects = tuple(config.subjects or []) if is_plain else None
    waiting = int(info.get("num_pending") or 0) + int(info.get("num_ack_pending") or 0)
    return _Sight(
        address, Reach(problem), tuple(filters), subjects, waiting, bool(info.get("num_waiting"))
    )


def _why_idle(address: str, info: dict[str, Any], *, is_patient: bool) -> str | None:
    if info.get("paused"):
        until = str(info["config"].get("pause_until", ""))[:16].replace("T", " ")
        return f"{address} is paused until {until} UTC" if until else f"{address} is paused"
    if not _is_idle(info, is_patient=is_patient):
        return None
    if info["config"].get("deliver_subject"):
        return f"nobody receives the events of {address}, a push consumer"
    last = _last_active(info)
    since = f", the last time at {last:%Y-%m-%d %H:%M} UTC" if last else ""
    return f"nobody pulls from {address}{since}"


def _is_idle(info: dict[str, Any], *, is_patient: bool) -> bool:
    if info["config"].get("deliver_subject"):
        return not info.get("push_bound")
    if info.get("num_waiting"):
        return False
    if not is_patient and not info.get("num_ack_pending"):
        return True
    last, now = _last_active(info), _time(info.get("ts")) or datetime.now(UTC)
    return last is None or now - last > _LATELY


def _last_active(info: dict[str, Any]) -> datetime | None:
    """When it last got or acknowledged an event, by the server's clock."""
    told = (_time(info.get(name, {}).get("last_active")) for name in ("delivered", "ack_floor"))
    return max(filter(None, told), default=None)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
