"""Secured servers: every part of the platform connects as docs/connecting.md says."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.transport import TcpTransport

from sahool_dlq.alerts.observe import look
from sahool_dlq.bridge.run import Bridge, bridging
from sahool_dlq.demo.certificates import Authority
from sahool_dlq.embedded import NatsServer
from sahool_dlq.embedded.server import HOST
from sahool_dlq.errors import DLQError, ServerUnavailableError, SettingsError
from sahool_dlq.events import NATSConfig, NATSPublisher
from sahool_dlq.events.monitor.consumer import start_dlq_consumer
from sahool_dlq.events.monitor.dlq_event import DLQEvent
from sahool_dlq.events.monitor.triage import DLQAction
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.connection import connect_service, connected, disconnect
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.watch import monitor_config
from sahool_dlq.settings import Settings
from support import servers
from support.consumer_log import Calls, Log, new_prefix, running, seen, until
from support.jwts import Key, Operator, creds

NKEY_USER = "authorization {{ users: [ {{ nkey: {} }} ] }}"


class Secured:
    """The configuration of a secured server, and the files of a client."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.home, self.known = home, Authority(home)
        (home / "stranger").mkdir()
        self.stranger = Authority(home / "stranger", "Stranger")
        self.operator, self.user = Operator(), Key("user")

    def tls(self, more: str = "") -> str:
        return f"tls {{ {self.known.issue('server', HOST)}{more} }}"

    @property
    def mutual(self) -> str:
        return self.tls(f', ca_file: "{self.known.file}", verify: true')

    def certificate(self, name: str, by: Authority | None = None, **days: int) -> dict[str, str]:
        (by or self.known).issue(name, "client", **days)
        folder = self.home / "stranger" if by else self.home
        return {"cert": str(folder / f"{name}.pem"), "key": str(folder / f"{name}.key")}

    def file(self, name: str, text: str) -> str:
        (self.home / name).write_text(text)
        return str(self.home / name)

    def way(self, name: str) -> tuple[str, dict[str, Any]]:
        """A server's configuration, and the keys of a context that fit it."""
        seed, jwt = self.user.seed, self.operator.user(self.user, "drain")
        ca = {"ca": str(self.known.file)}
        by_password = "authorization { user: u, password: secret }\n"
        ways: dict[str, tuple[str, dict[str, Any]]] = {
            "user": (by_password, {"user": "u", "password": "secret"}),
            "token": ("authorization { token: secret }", {"token": "secret"}),
            "nkey": (
                NKEY_USER.format(self.user.public),
                {"nkey": self.file("user.nk", f"{seed}\n")},
            ),
            "creds": (
                self.operator.config(),
                {"creds": self.file("user.creds", creds(jwt, seed))},
            ),
            "user_jwt": (self.operator.config(), {"user_jwt": jwt, "user_seed": seed}),
            "ca": (by_password + self.tls(), ca | {"user": "u", "password": "secret"}),
            "cert": (self.mutual, ca | self.certificate("client")),
            "tls_first": (self.tls(", handshake_first: true"), ca | {"tls_first": True}),
            "nkey and cert": (
                f"{NKEY_USER.format(self.user.public)}\n{self.mutual}",
                ca | self.certificate("client") | {"nkey": self.file("user.nk", seed)},
            ),
        }
        return ways[name]


@pytest.fixture
def secured(tmp_path: Path) -> Secured:
    return Secured(tmp_path / "secured")


def access_by(url: str, said: dict[str, Any]) -> Access:
    fields = {{"creds": "user_credentials"}.get(key, key): value for key, value in said.items()}
    return Access(servers=[url], **fields)


WAYS = ("user", "token", "nkey", "creds", "user_jwt", "ca", "cert", "tls_first")


@pytest.mark.parametrize("way", WAYS)
async def test_a_secured_server_accepts_jobs_and_services_only_with_credentials(
    way: str, secured: Secured, tmp_path: Path
) -> None:
    config, said = secured.way(way)
    with Unasked(tmp_path / "server", config) as server:
        access = access_by(server.url, said)
        async with asyncio.timeout(60):
            async with connected(access) as client:
                assert (await client.jetstream().account_info()).streams == 0
            service = await connect_service(access, name="t", timeout_seconds=20)
            await service.force_reconnect()
            assert (await service.jetstream().account_info()).streams == 0
            await disconnect(service)
            with pytest.raises(DLQError):
                async with connected(server.url):
                    pass


class Unasked(NatsServer):
    """A server that is ready once it listens: with handshake_first it sends nothing first."""

    def __init__(self, home: Path, config: str) -> None:
        super().__init__(
            home,
            config=f"{config}\n{servers.NATS_CONFIG}",
            bin_dir=servers.NATS_BIN,
            has_login=False,
        )

    def _is_ready(self) -> bool:
        log = self.home / "nats.log"
        return log.is_file() and "Server is ready" in log.read_text()


def platform(database_dsn: str, **nats: Any) -> Settings:
    prefix = new_prefix()
    return Settings(
        postgres_dsn=database_dsn,
        subject_prefix=prefix,
        events_stream=f"EVENTS_{prefix}",
        dlq_stream=f"DLQ_{prefix}",
        totals_stream=f"TOTALS_{prefix}",
        attempts_stream=f"ATTEMPTS_{prefix}",
        advisory_stream=f"ADV_{prefix}",
        **nats,
    )


async def test_consumer_publisher_monitor_bridge_and_exporter_connect_by_one_context(
    secured: Secured,
    nats_server_factory: Callable[..., NatsServer],
    monkeypatch: pytest.MonkeyPatch,
    database_dsn: str,
    tmp_path: Path,
) -> None:
    config, said = secured.way("nkey and cert")
    server = nats_server_factory(config=config)
    folder = tmp_path / "config/nats/context"
    folder.mkdir(parents=True)
    (folder / "plant.json").write_text(json.dumps({"url": server.url, **said}))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NATS_CONTEXT", "plant")
    settings = platform(database_dsn)
    prefix = settings.subject_prefix
    async with asyncio.timeout(120), connected(settings.access) as client:
        assert client.new_inbox().startswith(f"_INBOX.{secured.user.public}.")
        log = Log(server.url, client, prefix)
        await ensure_streams(log.js, log.names)
        publisher = NATSPublisher(NATSConfig())
        assert await publisher.connect()
        assert await publisher.publish(f"{prefix}.analysis.ndvi", b"{}")
        await publisher.close()
        async with running(log.config(), Calls(ValueError("no"))):
            await log.letters(1)
        shown: list[DLQEvent] = []

        async def handle(event: DLQEvent) -> DLQAction:
            shown.append(event)
            return DLQAction.STORE

        monitor = await start_dlq_consumer(handle, monitor_config(settings))
        await seen(shown, 1)
        await monitor.close()
        bridge = Bridge(settings)
        await bridge.open()
        await bridge.close()
        streams = (await look(settings)).streams  # by the exporter and the alerts
        assert [(each.role, each.problem) for each in streams[:1]] == [("log", None)]


FAULTS = {
    "no certificate": "requires a client certificate, and this client has none: give it",
    "unknown certificate": "refuses the client certificate .*/theirs.pem",
    "expired certificate": "refuses the client certificate .*/old.pem",
    "unknown ca": "presents a certificate of an unknown authority",
    "not first": "sends nothing when a client connects: if its tls block has handshake_first",
    "first": "does not begin with the TLS handshake: remove tls_first",
    "no tls": "offers no TLS, but a CA or certificate is given, so nothing was sent",
    "unknown nkey": "refuses the login by NKey U[A-Z2-7]{55}: add this key",
    "expired jwt": "refuses the login of .*/old.creds for user drain: the JWT has expired at",
    "other seed": "refuses the login by user_jwt for user drain: the seed does not belong",
    "wrong password": "refuses the login of user u: check the user and the password",
    "wrong token": "refuses the login by token",
    "no login": "refuses the login because none was given: give",
}


def faulty(secured: Secured, fault: str) -> tuple[str, dict[str, Any]]:
    mutual, trusted = secured.mutual, {"ca": str(secured.known.file)}
    by_password, by_token = secured.way("user")[0], secured.way("token")[0]
    old = secured.operator.user(secured.user, "drain", -60)
    jwt = secured.operator.user(secured.user, "drain")
    cases: dict[str, tuple[str, dict[str, Any]]] = {
        "no certificate": (mutual, trusted),
        "unknown certificate": (
            mutual,
            trusted | secured.certificate("theirs", secured.stranger),
        ),
        "expired certificate": (mutual, trusted | secured.certificate("old", days=-1)),
        "unknown ca": (secured.tls(), {"ca": str(secured.stranger.file)}),
        "not first": (secured.tls(", handshake_first: true"), trusted),
        "first": (secured.tls(), trusted | {"tls_first": True}),
        "no tls": ("", trusted),
        "unknown nkey": (
            NKEY_USER.format(Key("user").public),
            {"nkey": secured.file("user.nk", secured.user.seed)},
        ),
        "expired jwt": (
            secured.operator.config(),
            {"creds": secured.file("old.creds", creds(old, secured.user.seed))},
        ),
        "other seed": (
            secured.operator.config(),
            {"user_jwt": jwt, "user_seed": Key("user").seed},
        ),
        "wrong password": (by_password, {"user": "u", "password": "wrong"}),
        "wrong token": (by_token, {"token": "wrong"}),
        "no login": (by_password, {}),
    }
    return cases[fault]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_sentence_says_which_of_it_is_wrong(
    fault: str, secured: Secured, tmp_path: Path
) -> None:
    config, said = faulty(secured, fault)
    with Unasked(tmp_path / "server", config) as server:
        access = access_by(server.url, said)
        async with asyncio.timeout(60):
            with pytest.raises(DLQError, match=FAULTS[fault]) as by_job:
                async with connected(access):
                    pass
            with pytest.raises(ServerUnavailableError, match=FAULTS[fault]) as by_service:
                await connect_service(access, name="t", timeout_seconds=5, reconnect_time_wait=0.2)
    for refused in (by_job, by_service):
        assert "\n" not in str(refused.value)
        assert secured.user.seed not in str(refused.value)
        assert "wrong " not in str(refused.value)


async def test_tls_first_is_named_even_if_the_server_spoke_before_the_handshake_began(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake succeeds then, and nothing follows, because INFO has been sent."""
    encrypt = TcpTransport.connect_tls

    async def late(transport: Any, *handshake: Any) -> None:
        async with asyncio.timeout(20):
            while not transport._bare_io_reader._buffer:
                await asyncio.sleep(0.01)
        await encrypt(transport, *handshake)

    monkeypatch.setattr(TcpTransport, "connect_tls", late)
    config, said = faulty(secured, "first")
    with Unasked(tmp_path / "server", config) as server:
        access = access_by(server.url, said)
        with pytest.raises(ServerUnavailableError, match=FAULTS["first"]):
            async with connected(access):
                pass
        with pytest.raises(ServerUnavailableError, match=FAULTS["first"]):
            await connect_service(access, name="t", timeout_seconds=5, reconnect_time_wait=0.2)


async def test_a_refused_certificate_is_named_even_if_the_connection_ended_before_the_login(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With TLS 1.3 the client's handshake is over before the server looks at its certificate."""
    encrypt = TcpTransport.connect_tls

    async def ended(transport: Any, *handshake: Any) -> None:
        await encrypt(transport, *handshake)
        async with asyncio.timeout(20):
            while transport._io_writer.transport.get_protocol() is not None:
                await asyncio.sleep(0.01)

    monkeypatch.setattr(TcpTransport, "connect_tls", ended)
    config, said = faulty(secured, "expired certificate")
    with Unasked(tmp_path / "server", config) as server:
        access = access_by(server.url, said)
        with pytest.raises(ServerUnavailableError, match=FAULTS["expired certificate"]):
            async with connected(access):
                pass
        with pytest.raises(ServerUnavailableError, match=FAULTS["expired certificate"]):
            await connect_service(access, name="t", timeout_seconds=5, reconnect_time_wait=0.2)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca": "none"}, "none cannot be read .*: give a readable file as ca"),
        ({"ca": "text"}, "text contains no CA certificate"),
        ({"cert": "none", "key": "text"}, "none cannot be read .* as cert"),
        ({"cert": "text", "key": "text"}, "cannot be used as client certificate and key"),
        ({"cert": "client.pem", "key": "other.key"}, "is not that of the certificate"),
    ],
)
async def test_a_file_that_is_no_good_is_reported_before_anything_is_sent(
    files: dict[str, str], words: str, secured: Secured
) -> None:
    secured.certificate("client")
    secured.certificate("other")
    secured.file("text", "no PEM")
    access = Access(**{name: str(secured.home / file) for name, file in files.items()})
    with pytest.raises(SettingsError, match=words):
        async with connected(access):
            pass


async def is_up(client: Any) -> bool:
    return bool(client.is_connected)


async def test_all_come_back_with_the_renewed_jwt(
    secured: Secured,
    nats_server_factory: Callable[..., NatsServer],
    caplog: pytest.LogCaptureFixture,
    database_dsn: str,
) -> None:
    """The server closes the connection of a JWT that expires; nats-py alone would not reconnect."""
    server = nats_server_factory(config=secured.operator.config())

    def renew(seconds: float | None = None) -> str:
        jwt = secured.operator.user(secured.user, "drain", seconds)
        return secured.file("user.creds", creds(jwt, secured.user.seed))

    file = renew()
    settings = platform(database_dsn, nats_url=server.url, nats_creds=file)
    shown: list[DLQEvent] = []

    async def handle(event: DLQEvent) -> DLQAction:
        shown.append(event)
        return DLQAction.STORE

    async with asyncio.timeout(150):
        async with connected(settings.access) as client:
            log = Log(server.url, client, settings.subject_prefix)
            await ensure_streams(log.js, log.names)
        config = log.config().model_copy(update={"user_credentials": file})
        async with (
            running(config, Calls(ValueError("no"))) as consumer,
            bridging(settings) as bridge,
        ):
            monitor = await start_dlq_consumer(handle, monitor_config(settings))
            services = [each._connection for each in (consumer, bridge, monitor)]
            renew(8)
            for each in services:
                await each.force_reconnect()

            async def have_expired() -> bool:
                return caplog.text.lower().count("user authentication expired") >= len(services)

            await until(have_expired, 40)
            renew()
            for each in services:
                await until(lambda each=each: is_up(each), 30)
            assert services == [each._connection for each in (consumer, bridge, monitor)]
            async with connected(settings.access) as client:
                log.client = client
                await log.publish({})
                await log.letters(1)
            await seen(shown, 1)
            await monitor.close()
        assert (await look(settings)).streams[0].problem is None


async def test_a_service_comes_back_with_the_renewed_certificate(
    secured: Secured, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    access = Access(
        servers=["nats://placeholder"], ca=str(secured.known.file), **secured.certificate("client")
    )
    with Unasked(tmp_path / "server", secured.mutual) as server:
        access = access.model_copy(update={"servers": [server.url]})
        service = await connect_service(
            access, name="t", timeout_seconds=20, reconnect_time_wait=0.1
        )
        secured.certificate("client", days=-1)
        await service.force_reconnect()

        async def is_said() -> bool:
            return "refuses the client certificate" in caplog.text

        await until(is_said, 30)
        secured.certificate("client")
        await until(lambda: is_up(service), 30)
        assert (await service.jetstream().account_info()).streams == 0
        await disconnect(service)
