"""Creates tables and streams, drains the log, and shows what redaction would mask in it."""

import nats.errors
from nats.js.errors import Error as JetStreamError

from sahool_dlq.connections import open_nats
from sahool_dlq.drain.redaction_preview import Masking, masking_in_stream
from sahool_dlq.drain.run import DrainReport, drain
from sahool_dlq.drain.run import Progress as DrainProgress
from sahool_dlq.errors import StreamError
from sahool_dlq.jetstream.streams import (
    ensure_advisory_stream,
    ensure_body_store,
    ensure_streams,
)
from sahool_dlq.jobs.lake_views import write_views
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate


async def migrate_all(settings: Settings) -> tuple[list[str], dict[str, str]]:
    """Create missing tables and streams; returns new migrations, and streams by role."""
    done = migrate(settings.postgres_dsn.get_secret_value())
    async with open_nats(settings, "dlq migrate") as client:
        js, names = client.jetstream(), settings.stream_names
        try:
            streams = await ensure_streams(js, names)
            streams["advisories"] = await ensure_advisory_stream(js, names)
            await ensure_body_store(js)  # services need no right to make it
            return done, streams
        except (JetStreamError, nats.errors.Error) as error:
            raise StreamError(f"The streams could not be created: {error}.") from error


async def drain_log(
    settings: Settings, progress: DrainProgress | None = None, *, is_lake_adopted: bool = False
) -> DrainReport:
    """Drain the log into every sink, then write the lake's current files to `views.sql`."""
    report = await drain(settings, progress, is_lake_adopted=is_lake_adopted)
    write_views(settings)
    return report


async def masking_in_log(settings: Settings, limit: int) -> Masking:
    """What redaction masks in the last `limit` messages of the log; changes nothing."""
    async with open_nats(settings, "dlq redact") as client:
        return await masking_in_stream(client, settings, limit)
