"""Runs the monitor beside a continuous drain: a failure is stored and reported within seconds."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sahool_dlq.alerts.channels import open_channels
from sahool_dlq.alerts.message import Message
from sahool_dlq.alerts.notifier import GroupNotifier
from sahool_dlq.connections import open_postgres
from sahool_dlq.drain.run import DrainReport
from sahool_dlq.errors import DLQError, ServerUnavailableError
from sahool_dlq.events.monitor.consumer import DLQConsumer
from sahool_dlq.events.monitor.dlq_event import DLQEvent
from sahool_dlq.events.monitor.triage import DLQAction, DLQConsumerConfig, default_action
from sahool_dlq.jetstream.access import COMPLETE
from sahool_dlq.jetstream.address import shown
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.group_care import muted_groups

logger = logging.getLogger(__name__)

_TIMER_SECONDS = 3.0  # between drains without dead letters, for outcomes and decisions
_SETTLE_SECONDS = 0.3  # after a dead letter, so that later ones are drained together
_LONGEST_PAUSE = 30.0  # seconds, before a drain that failed is tried again


@dataclass(frozen=True, slots=True)
class Screen:
    """Where to show events."""

    dead_letter: Callable[[DLQEvent, DLQAction], None]
    alert: Callable[[Message], None]
    drained: Callable[[DrainReport], None]


def monitor_config(settings: Settings, **changes: object) -> DLQConsumerConfig:
    """The monitor's configuration from these settings."""
    return DLQConsumerConfig.model_validate(
        {
            **dict(settings.access),
            "name": "dlq-monitor",
            "dlq_subject": settings.subjects.dead_letters,
            "dlq_stream_name": settings.dlq_stream,
            **changes,
        },
        context=COMPLETE,
    )


async def watch(
    settings: Settings, config: DLQConsumerConfig, screen: Screen, stop: asyncio.Event
) -> None:
    """Monitor and drain until `stop`; then let handlers, drain and alerts finish, in this order.

    Raises the errors of the first drain (no server, no tables, …), and SettingsError for an invalid
    channel; a later drain that fails is tried again.
    """
    rules = settings.rules
    channels = open_channels([url.get_secret_value() for url in settings.alert_urls])
    muted: set[str] = set()
    screen.drained(await _drain(settings, muted))
    arrived = asyncio.Event()

    async def handle(event: DLQEvent) -> DLQAction:
        action = default_action(event, config)
        screen.dead_letter(event, action)
        arrived.set()
        return action

    async with GroupNotifier(
        channels,
        settings.redactor(rules),
        rules.grouping,
        cooldown_seconds=settings.alert_cooldown_seconds,
        on_message=screen.alert,
        is_muted=muted.__contains__,
    ) as notifier:
        consumer = DLQConsumer(config, notifier=notifier)
        if not await consumer.connect():
            raise ServerUnavailableError(
                f"No NATS server answers at {shown(config.servers)}: start one, run `dlq up`, or"
                " set DLQ_NATS_URL."
            )
        closing = asyncio.Event()
        try:
            await consumer.subscribe(handle)
            consumer.start_in_background()
            drains = asyncio.create_task(_drain_again(settings, screen, muted, arrived, closing))
            await stop.wait()
        finally:
            await consumer.close()
        closing.set()
        arrived.set()
        await drains


async def _drain_again(
    settings: Settings,
    screen: Screen,
    muted: set[str],
    arrived: asyncio.Event,
    closing: asyncio.Event,
) -> None:
    """Drain whenever a dead letter has arrived, and regularly; once more when closing."""
    pause = 1.0
    is_last = False
    while not is_last:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TIMER_SECONDS):
                await arrived.wait()
        is_last = closing.is_set()
        if not is_last:
            await asyncio.sleep(_SETTLE_SECONDS)
        arrived.clear()
        try:
            screen.drained(await _drain(settings, muted))
            pause = 1.0
        except DLQError as error:
            logger.warning("The drain failed: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await closing.wait()
            pause = min(pause * 2, _LONGEST_PAUSE)
            if is_last or closing.is_set():
                logger.warning("What is not drained yet, the next drain takes.")
                return


async def _drain(settings: Settings, muted: set[str]) -> DrainReport:
    """A drain in a separate thread, because its disk work would delay heartbeats.

    `muted` is then the groups whose mute holds.
    """

    def work() -> DrainReport:
        report = asyncio.run(drain_log(settings))
        with open_postgres(settings) as connection:
            now = muted_groups(connection)
        muted.intersection_update(now)
        muted.update(now)
        return report

    return await asyncio.to_thread(work)
