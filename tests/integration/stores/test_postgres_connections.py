"""PostgreSQL connections by string, service, variables, password file, and with TLS."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from psycopg.conninfo import conninfo_to_dict

from sahool_dlq.demo.certificates import Authority
from sahool_dlq.embedded import PostgresServer
from sahool_dlq.errors import DLQError
from sahool_dlq.settings import load_settings
from sahool_dlq.stores.postgres.database import database, migrate
from sahool_dlq.stores.postgres.refusals import where
from support import servers
from support.postgres_tls import TLS_BIN, needs_tls, show_certificate

pytestmark = [needs_tls, pytest.mark.xdist_group("postgres_tls")]


class Secured(NamedTuple):
    """A PostgreSQL that requires a password and has a certificate for localhost."""

    port: int
    password: str
    home: Path

    @property
    def ca(self) -> str:
        return str(self.home / "ca.pem")

    @property
    def verified(self) -> dict[str, str]:
        """The parameters of libpq besides host and login."""
        return {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": self.ca}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    home = tmp_path_factory.mktemp("secured")
    server: PostgresServer
    with servers.postgres(home / "server", bin_dir=TLS_BIN, has_login=True) as server:
        show_certificate(server, Authority(home), home, "localhost")
        password = str(conninfo_to_dict(server.dsn)["password"])
        file = home / "pgpass"
        file.write_text(f"localhost:{server.port}:dlq:postgres:{password}\n")
        file.chmod(0o600)
        (home / "pg_service.conf").write_text(
            f"[plant]\nhost=localhost\nport={server.port}\nuser=postgres\ndbname=dlq\n"
            f"sslmode=verify-full\nsslrootcert={home / 'ca.pem'}\n"
        )
        yield Secured(server.port or 0, password, home)
        server.stop()
        server.remove()


def by_string(it: Secured) -> dict[str, str]:
    login = f"postgres:{it.password}@localhost:{it.port}"
    query = f"sslmode=verify-full&sslrootcert={it.ca}"
    return {"DLQ_POSTGRES_DSN": f"postgresql://{login}/dlq?{query}"}


def by_service(it: Secured) -> dict[str, str]:
    return {"DLQ_POSTGRES_DSN": "service=plant", **files(it)}


def by_service_variable(it: Secured) -> dict[str, str]:
    return {"PGSERVICE": "plant", **files(it)}


def by_variables(it: Secured) -> dict[str, str]:
    named = {"PGHOST": "localhost", "PGPORT": str(it.port), "PGUSER": "postgres"}
    return {**named, "PGDATABASE": "dlq", "PGPASSWORD": it.password, **it.verified}


def by_password_file(it: Secured) -> dict[str, str]:
    dsn = f"postgresql://postgres@localhost:{it.port}/dlq?sslmode=verify-full"
    return {"DLQ_POSTGRES_DSN": dsn, "PGSSLROOTCERT": it.ca, "PGPASSFILE": str(it.home / "pgpass")}


def files(it: Secured) -> dict[str, str]:
    home = it.home
    return {"PGSERVICEFILE": str(home / "pg_service.conf"), "PGPASSFILE": str(home / "pgpass")}


@pytest.mark.parametrize(
    "ways", [by_string, by_service, by_service_variable, by_variables, by_password_file]
)
def test_jobs_connect_by_tls_that_is_verified(
    ways: Callable[[Secured], dict[str, str]],
    secured: Secured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ways(secured).items():
        monkeypatch.setenv(name, value)
    dsn = load_settings(home=tmp_path).postgres_dsn.get_secret_value()
    migrate(dsn)
    with database(dsn) as connection:
        asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.execute(asked).fetchone() == (True,)


WRONG = {
    "another name": ("127.0.0.1", "sslmode=verify-full", r"does not match host name .* sslmode"),
    "an unknown authority": ("localhost", "sslmode=verify-full other", r"certificate .* sslroot"),
    "no authority": ("localhost", "sslmode=verify-full none", r"certificate .* sslrootcert"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_tls_is_reported(wrong: str, secured: Secured, tmp_path: Path) -> None:
    host, how, sentence = WRONG[wrong]
    mode, _, authority = how.partition(" ")
    (tmp_path / "other").mkdir()
    ca = {
        "": secured.ca,
        "none": str(tmp_path / "none.pem"),
        "other": str(Authority(tmp_path / "other", "Another").file),
    }[authority]
    dsn = f"postgresql://postgres:{secured.password}@{host}:{secured.port}/dlq?{mode}"
    with pytest.raises(DLQError, match=sentence) as refused, database(f"{dsn}&sslrootcert={ca}"):
        pass
    assert secured.password not in str(refused.value)


def test_a_service_that_there_is_not_is_reported(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in files(secured).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DLQError, match="of the service nowhere is in no service file"):
        migrate("service=nowhere")
    monkeypatch.setenv("PGSERVICE", "plant")
    assert where("") == f"PostgreSQL at localhost:{secured.port}/dlq"
