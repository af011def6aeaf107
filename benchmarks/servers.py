"""What every benchmark stands on: servers of its own with real fsync, streams, tables, a full log.

with servers() as platform:
    asyncio.run(fill(platform, letters(100_000)))
    ...
    reset(platform)  # both sinks empty again, the log still full
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import psycopg

from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate

_FOLDER = Path(__file__).parents[1] / ".dlq"
_PUBLISHES_IN_FLIGHT = 1_000
_BYTES_IN_FLIGHT = 16 << 20


@dataclass(frozen=True)
class Platform:
    """One NATS and one PostgreSQL, both durable, and the settings that lead to them."""

    nats: NatsServer
    postgres: PostgresServer
    settings: Settings

    @property
    def dsn(self) -> str:
        """The database's connection string."""
        return self.settings.postgres_dsn.get_secret_value()


@contextlib.contextmanager
def servers(folder: Path = _FOLDER) -> Iterator[Platform]:
    """Start both servers below `folder`, and delete their files at the end.

    The folder must be on a disk: on a RAM disk an fsync costs nothing, and the ratios would be
    wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
    try:
        with (
            NatsServer(home, has_login=False) as nats_server,
            PostgresServer(home, has_login=False) as postgres,
        ):
            settings = Settings(
                home=home,
                nats_url=nats_server.url,
                postgres_dsn=postgres.dsn,
                lake_uri=str(home / "lake"),
            )
            migrate(postgres.dsn)
            try:
                yield Platform(nats_server, postgres, settings)
            finally:
                postgres.stop()
                postgres.remove()  # as root its data are elsewhere
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def fill(platform: Platform, dead_letters: Iterable[tuple[str, bytes]]) -> None:
    """Publish dead letters (event type and body) to the log, each acknowledged."""
    settings = platform.settings
    async with await nats.connect(settings.nats_url.get_secret_value()) as client:
        js = client.jetstream()
        await ensure_streams(js, settings.stream_names)
        prefix = settings.subject_prefix
        window: list[asyncio.Future[object]] = []
        size = 0
        for event_type, body in dead_letters:
            window.append(asyncio.ensure_future(js.publish(f"{prefix}.dlq.{event_type}", body)))
            size += len(body)
            if len(window) == _PUBLISHES_IN_FLIGHT or size > _BYTES_IN_FLIGHT:
                await asyncio.gather(*window)
                window.clear()
                size = 0
        await asyncio.gather(*window)


def reset(platform: Platform, *, lake_only: bool = False) -> None:
    """Empty both sinks, and let the servers finish their pending writes."""
    shutil.rmtree(platform.settings.lake, ignore_errors=True)
    with psycopg.connect(platform.dsn, autocommit=True) as connection:
        if not lake_only:
            connection.execute(
                "TRUNCATE failed_events, failed_payloads, drain_checkpoints, drain_epochs,"
                " drain_anchors"
            )
        connection.execute("CHECKPOINT")
