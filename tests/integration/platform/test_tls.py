"""TLS on real servers: nothing is sent in clear, and each fault has its own error message."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from test_dlq_monitor import monitor

from sahool_dlq.demo.certificates import Authority
from sahool_dlq.embedded import NatsServer
from sahool_dlq.embedded.server import HOST, free_port
from sahool_dlq.errors import ServerUnavailableError
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.connection import connect_service, connected, disconnect
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.settings import Settings
from support import servers
from support.consumer_log import until
from support.platform_log import failures, letter, publish

USERS = "authorization { users: [ { user: u, password: secret } ] }"
UNKNOWN = "presents a certificate of an unknown authority"
NO_TLS = "offers no TLS, but its address says tls://, so nothing was sent to it"
WANTS = "requires a client certificate, and this client has none"


class Certified:
    """Servers on one port and one folder, with any certificate."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port("NATS")
        (home / "stranger").mkdir(parents=True)
        self.known, self.stranger = Authority(home), Authority(home / "stranger", "Stranger")

    def server(self, kind: str) -> NatsServer:
        return servers.nats(self.home / "server", f"{USERS}\n{self.tls(kind)}", port=self.port)

    def handshakes_failed(self) -> int:
        return (self.home / "server/nats.log").read_text().count("TLS handshake error")

    def tls(self, kind: str) -> str:
        if kind == "none":
            return ""
        verify = f', ca_file: "{self.known.file}", verify: true'
        of_kind = {
            "good": self.known.issue("good", HOST),
            "optional": self.known.issue("optional", HOST),
            "unknown": self.stranger.issue("unknown", HOST),
            "expired": self.known.issue("expired", HOST, days=-1),
            "early": self.known.issue("early", HOST, days=90, from_days=30),
            "name": self.known.issue("name", "nats.example", "192.0.2.7"),
            "wants": self.known.issue("wants", HOST) + verify,
        }
        block = f"tls {{ {of_kind[kind]} }}"
        return f"{block}\nallow_non_tls: true" if kind == "optional" else block


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certified:
    made = Certified(tmp_path / "tls")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.known.file))
    return made


class Wire:
    """The bytes that clients send through a relay to a server."""

    def __init__(self, port: int) -> None:
        self._port, self.sent, self.url = port, b"", ""
        self._relays = set[asyncio.Task[None] | None]()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relays.add(asyncio.current_task())
        try:
            to_server = await asyncio.open_connection(HOST, self._port)
            both = [self._pump(reader, to_server[1], True), self._pump(to_server[0], writer, False)]
            await asyncio.gather(*both)
        except OSError:
            writer.close()

    async def end(self) -> None:
        """Close everything that is still open, so that the garbage collector finds nothing."""
        relays = [each for each in self._relays if each is not None]
        for each in relays:
            each.cancel()
        await asyncio.gather(*relays, return_exceptions=True)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_sent: bool
    ) -> None:
        try:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    self.sent += data if is_sent else b""
                    sink.write(data)
                    await sink.drain()
        finally:
            sink.close()


@contextlib.asynccontextmanager
async def wire(port: int) -> AsyncIterator[Wire]:
    tapped = Wire(port)
    listener = await asyncio.start_server(tapped.relay, HOST, 0)
    tapped.url = f"tls://u:secret@{HOST}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield tapped
    finally:
        listener.close()
        await tapped.end()


async def service(url: str, seconds: float) -> None:
    client = await connect_service(
        Access(servers=[url]), name="t", timeout_seconds=seconds, reconnect_time_wait=0.1
    )
    await disconnect(client)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("none", NO_TLS),
        (
            "unknown",
            f"{UNKNOWN}: give the file with the authority's certificate as ca",
        ),
        ("expired", "presents a certificate that has expired"),
        ("early", "presents a certificate that is not valid yet"),
        ("name", "presents a certificate for other names"),
        ("wants", WANTS),
    ],
)
async def test_each_fault_is_one_sentence_soon_and_no_password_is_sent(
    certified: Certified, kind: str, words: str
) -> None:
    with certified.server(kind):
        async with wire(certified.port) as tapped, asyncio.timeout(30):
            with pytest.raises(ServerUnavailableError) as refused:
                async with connected(tapped.url):
                    pass
            two = f"{tapped.url},{tapped.url}"  # where another server might do, it is tried
            with pytest.raises(ServerUnavailableError) as refused_by_two:
                async with connected(two):
                    pass
            with pytest.raises(ServerUnavailableError) as refused_service:
                await service(tapped.url, 1)
    for each in (refused, refused_by_two, refused_service):
        assert words in str(each.value)
        assert "\n" not in str(each.value)
    assert b"CONNECT" not in tapped.sent
    assert b"secret" not in tapped.sent


@pytest.mark.parametrize("kind", ["good", "optional"])
async def test_tls_is_used_where_the_server_only_offers_it(certified: Certified, kind: str) -> None:
    with certified.server(kind):
        async with wire(certified.port) as tapped, asyncio.timeout(30):
            async with connected(tapped.url) as client:
                assert (await client.jetstream().account_info()).streams == 0
            await service(tapped.url, 10)
    assert tapped.sent
    assert b"CONNECT" not in tapped.sent
    assert b"secret" not in tapped.sent


@pytest.mark.parametrize("kind", ["none", "unknown", "wants"])
async def test_a_service_says_why_it_is_away_and_comes_back_with_the_certificate(
    certified: Certified, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = {"none": NO_TLS, "unknown": UNKNOWN, "wants": WANTS}[kind]
    async with wire(certified.port) as tapped, asyncio.timeout(60):
        with certified.server("good"):
            client = await connect_service(
                Access(servers=[tapped.url]),
                name="t",
                timeout_seconds=10,
                reconnect_time_wait=0.1,
            )
        tapped.sent = b""
        with certified.server(kind):
            await until(lambda: _is(words in caplog.text), 20)
            assert b"CONNECT" not in tapped.sent
        with certified.server("good"):
            await until(lambda: _is(client.is_connected), 20)
            assert (await client.jetstream().account_info()).streams == 0
        await disconnect(client)
    said = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len([each for each in said if words in each.message]) == 1
    assert [each.message for each in said if each.name == "asyncio"] == []


async def _is(value: bool) -> bool:
    return value


async def test_a_monitor_bears_a_wrong_certificate_drains_again_and_ends(
    certified: Certified, settings: Settings
) -> None:
    url = f"tls://u:secret@{HOST}:{certified.port}"
    settings = settings.model_copy(update={"nats_url": SecretStr(url)})
    trusted = {"SSL_CERT_FILE": str(certified.known.file)}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(certified.server("good"))
        async with connected(url) as client:
            await ensure_streams(client.jetstream(), settings.stream_names)
            await publish(client, settings, [letter(1)])
        async with monitor(settings, **trusted) as running:
            await running.shown("dead_letter", 1)
            server.stop()
            with certified.server("unknown"):
                await until(lambda: _is(certified.handshakes_failed() >= 6), 60)
            stack.enter_context(certified.server("good"))
            async with connected(url) as client:
                await publish(client, settings, [letter(2)])

            async def is_stored() -> bool:
                return len(failures(settings)) == 2

            await until(is_stored, 120)
            async with asyncio.timeout(30):
                status, errors = await running.end(signal.SIGTERM)
    assert status == 0
    assert UNKNOWN in errors
    assert "Traceback" not in errors
