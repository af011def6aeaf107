"""The demo's servers as in production: TLS by a CA of its own, and each part with its own login.

NATS has the users of `dlq nats-permissions`: the platform's roles, and one for each service.
PostgreSQL has logins in the roles of `dlq migrate`, and separate owners of its databases.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from sahool_dlq.demo.certificates import Authority
from sahool_dlq.demo.fleet import make_tables
from sahool_dlq.demo.platform import (
    FARM,
    PLATFORM,
    PREFECT,
    Platform,
    open_postgres_server,
    settings_of,
)
from sahool_dlq.demo.services import SERVICES
from sahool_dlq.demo.traffic import GATEWAY
from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.embedded.server import HOST
from sahool_dlq.jetstream.grants import (
    Consumption,
    Grants,
    as_block,
    grants_of_role,
    grants_of_service,
)
from sahool_dlq.jetstream.stream_names import StreamNames
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate

OPERATOR, REDRIVER, READER, DRAIN = "operator", "redriver", "reader", "drain"
"""Users of NATS, one for each role of the platform that the demo needs."""
OWNER, WORKER, OBSERVER = "owner", "worker", "observer"
"""Logins of PostgreSQL, besides the reader."""
_OWNERS = {PLATFORM: OWNER, PREFECT: "prefect", FARM: "farmer"}
_MEMBERS = {
    WORKER: ("dlq_redriver", "dlq_alerts"),
    READER: ("dlq_analyst", "dlq_payloads"),
    OBSERVER: ("dlq_analyst",),
}
_BILLING = "billing"
# Those that a killed demo has left: PostgreSQL's data may be elsewhere than in the home.
_DROP_LOGINS = """
DO $$
DECLARE
    names CONSTANT TEXT := (
        SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles
        WHERE rolname <> current_user AND NOT starts_with(rolname, 'pg_'));
BEGIN
    IF names IS NOT NULL THEN
        EXECUTE 'DROP ROLE ' || names;
    END IF;
END $$
"""


@contextmanager
def open_secured_servers(home: Path) -> Iterator[Platform]:
    """Servers in `home`; every connection to NATS is encrypted and every part has its own login.

    The PostgreSQL of the wheel has no TLS: it listens on loopback and takes passwords by SCRAM.
    """
    authority = Authority(home)
    users = _users()
    words = {user.user: secrets.token_urlsafe(24) for user in users}
    config = _nats_config(users, words, authority.issue("nats", HOST))
    with (
        NatsServer(home, config=config, has_login=False) as nats,
        open_postgres_server(home) as postgres,
    ):
        dsns = _Logins(postgres).dsns

        def nats_url(user: str) -> str:
            return f"tls://{user}:{words[user]}@{HOST}:{nats.port}"

        def settings(user: str, login: str) -> Settings:
            return settings_of(home, nats_url(user), dsns[login], nats_ca=authority.file)

        yield Platform(
            operator=settings(OPERATOR, OWNER),
            worker=settings(REDRIVER, WORKER),
            reader=settings(READER, READER),
            observer=settings(DRAIN, OBSERVER),
            services={
                name: {"servers": [nats_url(name)], "ca": str(authority.file)}
                for name in (*SERVICES, GATEWAY)
            },
            farm_dsn=dsns[_BILLING],
            prefect_dsn=dsns[_OWNERS[PREFECT]],
            authority=authority.file,
        )


def _users() -> list[Grants]:
    names = StreamNames()
    prefix = names.subjects.prefix
    subjects = {service: f"{prefix}.{subject}" for service, subject in SERVICES.items()}
    return [
        *(grants_of_role(names, role) for role in (OPERATOR, REDRIVER, READER, DRAIN)),
        *(
            grants_of_service(names, service, [Consumption(names.events, service, subject)])
            for service, subject in subjects.items()
        ),
        grants_of_service(names, GATEWAY, [], publishes=subjects.values()),
    ]


def _nats_config(users: Sequence[Grants], words: Mapping[str, str], certificate: str) -> str:
    """The users with their passwords, and TLS for every client."""
    variables = [f'{user.password_variable}: "{words[user.user]}"' for user in users]
    blocks = [as_block(user) for user in users]
    return "\n".join(
        [*variables, f"tls {{ {certificate} }}", "authorization { users: [", *blocks, "] }"]
    )


class _Logins:
    """The logins of a PostgreSQL that has none yet; `dsns` has a connection string for each."""

    def __init__(self, postgres: PostgresServer) -> None:
        self._postgres = postgres
        self.dsns: dict[str, str] = {}
        self._do("postgres", _DROP_LOGINS)
        for database, owner in _OWNERS.items():
            postgres.create_database(database)
            self._add(owner, database, "CREATEROLE" if owner == OWNER else "")
            self._do(
                database,
                f"ALTER DATABASE {database} OWNER TO {owner};"
                f" REVOKE CONNECT ON DATABASE {database} FROM PUBLIC",
            )
        migrate(self.dsns[OWNER])  # it creates the group roles
        for login, roles in _MEMBERS.items():
            self._add(login, PLATFORM, f"IN ROLE {', '.join(roles)}")
        make_tables(self.dsns[_OWNERS[FARM]])
        self._add(_BILLING, FARM)
        self._do(FARM, f"GRANT INSERT ON invoices TO {_BILLING}")

    def _add(self, login: str, database: str, how: str = "") -> None:
        word = secrets.token_urlsafe(24)
        self._do("postgres", f"CREATE ROLE {login} LOGIN PASSWORD '{word}' {how}")
        self._do("postgres", f"GRANT CONNECT ON DATABASE {database} TO {login}")
        self.dsns[login] = f"postgresql://{login}:{word}@{HOST}:{self._postgres.port}/{database}"

    def _do(self, database: str, statements: str) -> None:
        """Run statements as the superuser."""
        with psycopg.connect(self._postgres.dsn_of(database), autocommit=True) as connection:
            connection.execute(statements.encode())
