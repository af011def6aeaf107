"""The fleet in a guarded process, so that it never outlives the demo."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from sahool_dlq.demo.services import CREATE_TABLES, SERVICES
from sahool_dlq.demo.upstreams import Upstreams
from sahool_dlq.demo.working_copy import check_out
from sahool_dlq.embedded.private import write_private
from sahool_dlq.embedded.process import GuardedProcess

FLEET_LOG = "fleet.log"


def make_tables(farm_dsn: str) -> None:
    """Create the tables of the billing service if they are missing, as their owner."""
    with psycopg.connect(farm_dsn, autocommit=True) as connection:
        connection.execute(CREATE_TABLES)


@contextmanager
def fleet(
    home: Path, access: Mapping[str, Mapping[str, Any]], farm_dsn: str, upstreams: Upstreams
) -> Iterator[GuardedProcess]:
    """Run the services against these upstreams.

    `access` says how each connects to NATS; `farm_dsn` is the database of the billing service,
    with its tables.
    """
    config = home / "fleet.json"
    write_private(
        config,
        json.dumps(
            {
                "nats": {service: access[service] for service in SERVICES},
                "postgres_dsn": farm_dsn,
                "tiles": upstreams.tiles,
                "forecasts": upstreams.forecasts,
                "sensors": upstreams.sensors,
                "working_copy": str(check_out(home)),
            }
        ),
    )
    process = GuardedProcess(
        [sys.executable, "-m", "sahool_dlq.demo.services", str(config)],
        log=home / FLEET_LOG,
        env=os.environ,
        cwd=home,
        stop_signal=signal.SIGTERM,
        grace_seconds=15,
    )
    try:
        yield process
    finally:
        process.stop()
