"""A PostgreSQL with TLS: the one that the tests are given, or an installed one.

The one of the wheel has no TLS.
"""

import os
import shutil
import time
from pathlib import Path

import psycopg
import pytest

from sahool_dlq.demo.certificates import Authority
from sahool_dlq.embedded import PostgresServer
from support.servers import POSTGRES_BIN

_INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))  # as Debian has them
TLS_BIN = POSTGRES_BIN or (_INSTALLED[-1].parent if _INSTALLED else None)
needs_tls = pytest.mark.skipif(
    TLS_BIN is None, reason="no PostgreSQL with TLS is installed (Debian has it as a package)"
)


def show_certificate(server: PostgresServer, authority: Authority, home: Path, *hosts: str) -> None:
    """Let a running server offer TLS, with a certificate for these hosts."""
    authority.issue("postgres", *hosts)
    cluster = server._cluster
    owner = cluster.stat()
    for end in ("pem", "key"):
        file = cluster / f"server.{end}"
        shutil.copy(home / f"postgres.{end}", file)
        os.chown(file, owner.st_uid, owner.st_gid)
        file.chmod(0o600)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET ssl_cert_file = 'server.pem'")
        connection.execute("ALTER SYSTEM SET ssl_key_file = 'server.key'")
        connection.execute("ALTER SYSTEM SET ssl = on")
        connection.execute("SELECT pg_reload_conf()")
    until = time.monotonic() + 30
    while not has_tls(server.dsn):
        assert time.monotonic() < until, "PostgreSQL offers no TLS"
        time.sleep(0.05)


def has_tls(dsn: str) -> bool:
    """Whether a new connection is encrypted."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchone()
    return row == (True,)
