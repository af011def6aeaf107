"""One publisher for a whole service, for code that cannot keep its own."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec
from weakref import WeakKeyDictionary

from sahool_dlq.events.publishing.analysis_event import AnalysisEvent
from sahool_dlq.events.publishing.publisher import NATSPublisher

P = ParamSpec("P")

# By event loop: a connection belongs to the loop that opened it.
_publishers: WeakKeyDictionary[asyncio.AbstractEventLoop, NATSPublisher] = WeakKeyDictionary()
_scheduled: set[asyncio.Task[bool]] = set()


async def get_publisher() -> NATSPublisher:
    """The running loop's publisher, with the default `NATSConfig`; connected if a server answers.

    If none did, the next call tries again. Its `close` ends it for all users.
    """
    publisher = _publishers.setdefault(asyncio.get_running_loop(), NATSPublisher())
    await publisher.connect()
    return publisher


async def publish_analysis_completed(
    event_type: str,
    source_service: str,
    field_id: str,
    data: dict[str, Any],
    action_template: dict[str, Any] | None = None,
    priority: str = "medium",
    farmer_id: str | None = None,
    tenant_id: str | None = None,
) -> bool:
    """Publish the result of an analysis; False, with the reason logged, if that failed."""
    publisher = await get_publisher()
    event = AnalysisEvent(
        event_type=event_type,
        source_service=source_service,
        field_id=field_id,
        farmer_id=farmer_id,
        tenant_id=tenant_id,
        data=data,
        action_template=action_template,
        notification_priority=priority,
    )
    return await publisher.publish_analysis_event(event)


def _blocking(function: Callable[P, Coroutine[Any, Any, bool]]) -> Callable[P, bool]:
    """`function` for code that is not async; inside a running loop it is only scheduled."""

    async def call_once(*args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            return await function(*args, **kwargs)
        finally:
            publisher = _publishers.pop(asyncio.get_running_loop(), None)
            if publisher is not None:
                await publisher.close()

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(call_once(*args, **kwargs))
        task = loop.create_task(function(*args, **kwargs))
        _scheduled.add(task)  # the loop itself would let it be collected
        task.add_done_callback(_scheduled.discard)
        return True

    return call


publish_analysis_completed_sync = _blocking(publish_analysis_completed)
"""`publish_analysis_completed` for code that is not async: connects, publishes, disconnects.

In a running event loop it cannot wait: True only means that publishing was scheduled.
"""
