"""A Prefect server with the deployments of prefect.yaml, once for these tests."""

import os
from collections.abc import Iterator

import pytest

from pipelines.embedded import NatsServer, PostgresServer, PrefectServer
from pipelines.embedded.worker import deploy
from pipelines.settings import Settings, environment_of


@pytest.fixture(scope="session")
def prefect_platform(
    nats_server: NatsServer,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Settings, PrefectServer, dict[str, str]]]:
    """Settings, server, and the environment of a worker; everything is deployed."""
    home = tmp_path_factory.mktemp("prefect")
    settings = Settings(
        home=home,
        nats_url=nats_server.url,
        postgres_dsn=postgres_server.create_database("flows"),
        lake_uri=str(home / "lake"),
    )
    dsn = postgres_server.create_database("prefect")
    with PrefectServer(home, database_dsn=dsn) as server:
        environment = os.environ | environment_of(settings) | server.environment
        deploy(environment)
        yield settings, server, environment
