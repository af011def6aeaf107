"""Runs the monitor beside a continuous drain: a failure is stored and reported within seconds."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sahool_dlq.alerts.channels import Channel, open_channels
from sahool_dlq.alerts.message import Message
from sahool_dlq.alerts.notifier import OutageNotifier
from sahool_dlq.alerts.routes import Routes
from sahool_dlq.alerts.rules import alert_rules
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
from sahool_dlq.stores.postgres.group_care import muted_groups, owned_groups

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


@dataclass(slots=True)
class _Care:
    """Which groups are muted, and who owns which: as of the last drain."""

    is_with_owners: bool  # whether owners are of use
    muted: set[str] = field(default_factory=set)
    owners: dict[str, str] = field(default_factory=dict)


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
    rules, redactor = settings.rules, settings.redactor(settings.rules)
    channels = open_channels([url.get_secret_value() for url in settings.alert_urls])
    routes, owners = Routes(alert_rules(settings), channels), settings.owners(rules)
    care = _Care(routes.needs_owner)
    screen.drained(await _drain(settings, care))
    arrived = asyncio.Event()

    async def handle(event: DLQEvent) -> DLQAction:
        action = default_action(event, config)
        screen.dead_letter(event, action)
        arrived.set()
        return action

    def route(event: DLQEvent, group_id: str) -> Sequence[Channel] | None:
        service = redactor.redact_label(event.service)
        owner = care.owners.get(group_id)
        if owner is None and care.is_with_owners:  # it is not drained yet
            trace = redactor.redact_text(event.stack_trace) if event.stack_trace else None
            owner = owners.of(service, redactor.redact_label(event.error_type), trace).owner
        return routes.of(service, event.tenant_id, owner)

    async with OutageNotifier(
        channels,
        redactor,
        rules.grouping,
        cooldown_seconds=settings.alert_cooldown_seconds,
        on_message=screen.alert,
        is_muted=lambda group_id: group_id in care.muted,
        route=route,
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
            drains = asyncio.create_task(_drain_again(settings, screen, care, arrived, closing))
            await stop.wait()
        finally:
            await consumer.close()
        closing.set()
        arrived.set()
        await drains


async def _drain_again(
    settings: Settings,
    screen: Screen,
    care: _Care,
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
            screen.drained(await _drain(settings, care))
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


async def _drain(settings: Settings, care: _Care) -> DrainReport:
    """A drain in a separate thread, because its disk work would delay heartbeats.

    `care` is then what is stored of the groups.
    """

    def work() -> DrainReport:
        report = asyncio.run(drain_log(settings))
        with open_postgres(settings) as connection:
            care.muted = muted_groups(connection)
            if care.is_with_owners:
                care.owners = owned_groups(connection)
        return report

    return await asyncio.to_thread(work)
