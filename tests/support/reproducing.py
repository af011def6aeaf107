"""Shared by tests of original events: failures whose events are known."""

from nats.aio.client import Client

from sahool_dlq.deadletter.headers import MutableHeaders
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.platform_log import query
from support.redriving import Service, dead_letters


async def fail_on(
    settings: Settings, client: Client, bodies: list[bytes], headers: MutableHeaders
) -> list[str]:
    """Publish events on which a real consumer fails, and drain; their failures' ids in order."""
    async with connected(settings.access) as publisher:
        for body in bodies:
            await publisher.jetstream().publish(
                f"{settings.subject_prefix}.analysis.ndvi",
                body,
                headers=dict(headers),  # type: ignore[arg-type]  # repeated ones
            )
    async with Service(settings, TimeoutError("slow tile")).running():
        await dead_letters(client, settings, len(bodies))
    await drain_log(settings)
    rows = query(settings, "SELECT id::text FROM failed_events ORDER BY original_sequence")
    return [row["id"] for row in rows]
