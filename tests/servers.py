"""The servers that tests run on, of the versions that the environment asks for.

`DLQ_TEST_NATS_BIN` and `DLQ_TEST_POSTGRES_BIN` name the bin folders of others than the wheels';
`DLQ_TEST_NATS_CONFIG` is added to the configuration of every NATS.
"""

import os
from pathlib import Path
from typing import Any

from pipelines.embedded import NatsServer, PostgresServer


def _bin_dir(name: str) -> Path | None:
    named = os.environ.get(name)
    return Path(named) if named else None


NATS_BIN = _bin_dir("DLQ_TEST_NATS_BIN")
NATS_CONFIG = os.environ.get("DLQ_TEST_NATS_CONFIG", "")
POSTGRES_BIN = _bin_dir("DLQ_TEST_POSTGRES_BIN")


def nats(home: Path, config: str = "", **options: Any) -> NatsServer:
    """A NATS for tests."""
    return NatsServer(home, config=f"{config}\n{NATS_CONFIG}", bin_dir=NATS_BIN, **options)


def postgres(home: Path, **options: Any) -> PostgresServer:
    """A PostgreSQL for tests: not durable."""
    return PostgresServer(home, **{"durable": False, "bin_dir": POSTGRES_BIN, **options})
