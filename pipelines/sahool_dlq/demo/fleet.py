"""The fleet in a guarded process, so that it never outlives the demo."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from sahool_dlq.demo.services import CREATE_TABLES
from sahool_dlq.demo.upstreams import Upstreams
from sahool_dlq.demo.working_copy import check_out
from sahool_dlq.embedded.private import write_private
from sahool_dlq.embedded.process import GuardedProcess
from sahool_dlq.jetstream.address import Server, revealed

FLEET_LOG = "fleet.log"


@contextmanager
def fleet(
    home: Path, nats_url: Server, farm_dsn: str, upstreams: Upstreams
) -> Iterator[GuardedProcess]:
    """Run the services against these upstreams; `farm_dsn` is the billing service's database."""
    with psycopg.connect(farm_dsn, autocommit=True) as connection:
        connection.execute(CREATE_TABLES)
    config = home / "fleet.json"
    write_private(
        config,
        json.dumps(
            {
                "nats_url": revealed(nats_url),
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
