"""A platform in which every part has its own login: for tests of rights."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
from nats.aio.client import Client

from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.events import (
    ConsumerContext,
    NATSConsumer,
    NATSConsumerConfig,
    NATSPublisher,
    ProcessingResult,
)
from sahool_dlq.events.publishing.publisher import NATSConfig
from sahool_dlq.jetstream.connection import connected
from sahool_dlq.jobs.drain import drain_log, migrate_all
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.settings import Settings
from support import servers

LOGINS = {
    "drain": "dlq_drain",
    "redriver": "dlq_redriver",
    "alerts": "dlq_alerts",
    "analyst": "dlq_analyst",
    "auditor": "dlq_auditor",
    "maintenance": "dlq_maintenance",
    "reader": "dlq_analyst, dlq_payloads",
}
LARGE = 7_999_000  # bytes: with its dead letter around it more than a message may have


class Roles:
    """A platform, and its settings for each user."""

    def __init__(self, home: Path, nats_server: NatsServer, postgres: PostgresServer) -> None:
        self.home, self._nats, self._postgres = home, nats_server, postgres
        self.database = "roles"

    def nats_url(self, user: str) -> str:
        return f"nats://{user}:secret@127.0.0.1:{self._nats.port}"

    def dsn(self, login: str) -> str:
        return f"postgresql://{login}@127.0.0.1:{self._postgres.port}/{self.database}"

    def settings(self, user: str, login: str, **changes: Any) -> Settings:
        return Settings(
            home=self.home,
            nats_url=self.nats_url(user),
            postgres_dsn=self.dsn(login),
            lake_uri=str(self.home / "lake"),
            **{"keep_payloads": True, "redrive_floor_per_second": 1_000.0, **changes},
        )

    def rows(self, login: str, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn(login), autocommit=True) as connection:
            return connection.execute(statement).fetchall()

    @contextlib.asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Client]:
        async with connected(self.nats_url(user), name="test") as client:
            yield client


@contextlib.contextmanager
def opened(home: Path, postgres_server: PostgresServer) -> Iterator[Roles]:
    """NATS with the users of deploy/nats.conf, a database with a login in each role, two failures.

    The logins belong to the whole server, so there can be one such platform at a time.
    """
    with servers.nats(home, servers.shipped_users()) as server:
        found = Roles(home, server, postgres_server)
        postgres_server.create_database(found.database)
        asyncio.run(_fill(found))
        yield found
        postgres_server.drop_database(found.database)
        with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
            for login in LOGINS:
                connection.execute(f"DROP ROLE {login}")


async def _fill(roles: Roles) -> None:
    """Tables, streams, and two drained failures of the service: a small event and a large one.

    With the rights of services and of the drain.
    """
    await migrate_all(roles.settings("operator", "postgres"))
    async with roles.client("operator") as client:
        await client.jetstream().add_consumer(
            "SAHOOL_EVENTS", durable_name="quiet", filter_subject="sahool.actions.quiet"
        )
    with psycopg.connect(roles.dsn("postgres"), autocommit=True) as connection:
        for login, group in LOGINS.items():
            connection.execute(f"CREATE ROLE {login} LOGIN IN ROLE {group}")
    publisher = NATSPublisher(NATSConfig(servers=[roles.nats_url("service")]))
    assert await publisher.connect()
    for number, size in enumerate((10, LARGE)):
        event = json.dumps({"event_id": f"e{number}", "x": "y" * size}).encode()
        assert await publisher.publish("sahool.analysis.ndvi", event)
    await publisher.close()
    async with service(roles, TimeoutError("slow tile")):
        await logged(roles, 2)
    drain = roles.settings("drain", "drain")
    assert (await drain_log(drain)).drained == 2
    assert build_all_marts(drain).is_rebuilt


@contextlib.asynccontextmanager
async def service(roles: Roles, error: Exception | None = None) -> AsyncIterator[list[str]]:
    """The service, with the rights of services; the events that it received."""
    seen: list[str] = []

    async def handle(context: ConsumerContext) -> ProcessingResult:
        seen.append(context.subject)
        if error is not None:
            raise type(error)(*error.args)
        return ProcessingResult.SUCCESS

    config = NATSConsumerConfig(servers=[roles.nats_url("service")], name="ndvi", max_retries=0)
    consumer = NATSConsumer(config)
    assert await consumer.connect()
    await consumer.subscribe(handle)
    consumer.start_in_background()
    try:
        yield seen
    finally:
        await consumer.close()


async def logged(roles: Roles, count: int) -> None:
    """Wait until the log has this number of messages."""
    async with roles.client("operator") as client, asyncio.timeout(20):
        while (await client.jetstream().stream_info("SAHOOL_DLQ")).state.messages < count:
            await asyncio.sleep(0.05)
