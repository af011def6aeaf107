"""The demo's NATS and PostgreSQL, and how each of its parts connects to them.

`open_servers` is one administrator for all parts; `open_secured_servers` in `secured.py` gives each
part its own login.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sahool_dlq.demo.fleet import make_tables
from sahool_dlq.demo.services import SERVICES
from sahool_dlq.demo.traffic import GATEWAY
from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.settings import Settings, load_settings

PLATFORM, PREFECT, FARM = DATABASES = ("dlq", "prefect", "farm")
"""The platform's database, Prefect's, and that of the billing service."""


@dataclass(frozen=True, slots=True)
class Platform:
    """How each part of the demo connects."""

    operator: Settings  # creates tables and streams
    worker: Settings  # runs the flows
    reader: Settings  # reads raw events for `dlq try`
    observer: Settings  # waits, checks and writes the report
    services: Mapping[str, Mapping[str, Any]]  # service or gateway: fields of `Access`
    farm_dsn: str  # of the billing service
    prefect_dsn: str
    authority: Path | None = None  # file of the CA, where the parts have logins of their own


@contextmanager
def open_servers(home: Path) -> Iterator[Platform]:
    """Servers in `home` with one login, which every part uses."""
    with NatsServer(home) as nats, open_postgres_server(home) as postgres:
        dsns = {name: postgres.create_database(name) for name in DATABASES}
        make_tables(dsns[FARM])
        settings = settings_of(home, nats.url, dsns[PLATFORM])
        access = {"servers": [nats.url]}
        yield Platform(
            operator=settings,
            worker=settings,
            reader=settings,
            observer=settings,
            services=dict.fromkeys((*SERVICES, GATEWAY), access),
            farm_dsn=dsns[FARM],
            prefect_dsn=dsns[PREFECT],
        )


@contextmanager
def open_postgres_server(home: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL without the demo's databases, whatever a killed demo has left."""
    with PostgresServer(home) as postgres:
        try:
            for name in DATABASES:
                postgres.drop_database(name)
            yield postgres
        finally:
            # Below a private home root's data are elsewhere, so emptying home does not reach them.
            postgres.remove()


def settings_of(home: Path, nats_url: str, postgres_dsn: str, **more: Any) -> Settings:
    """The settings of one part, which redrives without long waits."""
    return load_settings(
        home=home,
        nats_url=nats_url,
        postgres_dsn=postgres_dsn,
        lake_uri=str(home / "lake"),
        redrive_timeout_seconds=20,
        redrive_floor_per_second=50,
        redrive_delay_seconds=0,
        **more,
    )
