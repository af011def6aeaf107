"""PgBouncer before a test's database, where it is installed (Debian has it as `pgbouncer`)."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sahool_dlq.embedded.server import HOST, free_port

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(
    PGBOUNCER is None, reason="pgbouncer is not installed (Debian has it as a package)"
)


@contextmanager
def pooled(
    dsn: str, folder: Path, mode: str = "transaction", size: int = 3, query_wait_timeout: int = 120
) -> Iterator[str]:
    """The DSN of a PgBouncer with so many sessions, and mostly default settings."""
    assert PGBOUNCER is not None
    server, port = conninfo_to_dict(dsn), free_port("PgBouncer")
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{server['dbname']} = host={server['host']} port={server['port']}"
        f" user={server['user']}\n"
        f"[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n"
        f"query_wait_timeout = {query_wait_timeout}\n"
    )
    with config.open() as read, (folder / "pgbouncer.log").open("w") as log:
        # It refuses to run as root, and as somebody else it may not reach the folder.
        as_other = ["-u", "nobody"] if os.geteuid() == 0 else []
        process = subprocess.Popen(
            [PGBOUNCER, *as_other, f"/dev/fd/{read.fileno()}"],
            pass_fds=[read.fileno()],
            stdout=log,
            stderr=log,
        )
    try:
        pooled_dsn = make_conninfo(dsn, host=HOST, port=str(port))
        _wait_for(pooled_dsn, process, folder / "pgbouncer.log")
        yield pooled_dsn
    finally:
        process.send_signal(signal.SIGTERM)  # at once
        process.wait(30)


def _wait_for(dsn: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(log.read_text()) from error
            time.sleep(0.05)
