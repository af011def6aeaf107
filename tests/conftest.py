"""Real servers for tests: one NATS and one PostgreSQL per session, others on demand."""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings

from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.sqlfiles import read_sql
from sahool_dlq.stores.postgres.database import migrate
from support import servers
from support.lasting import close_failed_connections
from support.seed import IS_FIXED

for name in [name for name in os.environ if name.startswith("NATS_")]:
    del os.environ[name]  # the tests must not use a person's `nats` contexts

close_failed_connections()

settings.register_profile("tests", derandomize=IS_FIXED, deadline=None, print_blob=True)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The session's NATS with JetStream. Tests share it: use your own subjects and streams."""
    with servers.nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def nats_url(nats_server: NatsServer) -> str:
    return nats_server.url


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The session's PostgreSQL. Tests take their own `database_dsn` from it."""
    with servers.postgres(tmp_path_factory.mktemp("postgres")) as server:
        try:
            yield server
        finally:
            server.remove()  # as root the data may be outside the temporary folder


@pytest.fixture
def database_dsn(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty database, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database that stays unused: others are cloned from it."""
    name = "template_migrated"
    migrate(postgres_server.create_database(name))
    with psycopg.connect(postgres_server.dsn_of("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    return name


@pytest.fixture
def migrated_dsn(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A fresh database as `dlq migrate` leaves it, dropped afterwards."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.dsn_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    dsn = postgres_server.dsn_of(name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        # The settings of a database are not cloned: set them, and change nothing else.
        connection.execute(read_sql("postgres/migrations/0000_schema.sql"))
    yield dsn
    postgres_server.drop_database(name)


@pytest.fixture
def nats_server_factory(tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Starts NATS servers that a test may kill; one home per server, unless `home` is given."""
    with ExitStack() as running:

        def start(home: Path | None = None, **options: object) -> NatsServer:
            home = home or tmp_path / f"nats-{uuid.uuid4().hex[:6]}"
            return running.enter_context(servers.nats(home, **options))

        yield start


@pytest.fixture
def postgres_server_factory(tmp_path: Path) -> Iterator[Callable[..., PostgresServer]]:
    """Starts PostgreSQL servers that a test may kill; see `nats_server_factory`."""
    with ExitStack() as running:

        def start(home: Path | None = None, **options: object) -> PostgresServer:
            server = servers.postgres(
                home or tmp_path / f"postgres-{uuid.uuid4().hex[:6]}", **options
            )
            running.callback(server.remove)
            return running.enter_context(server)

        yield start
