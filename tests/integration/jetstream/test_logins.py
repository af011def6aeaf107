"""Passwords and tokens with any characters work in every address, and appear in no output."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from sahool_dlq.bridge.run import Bridge
from sahool_dlq.cli import _command
from sahool_dlq.embedded import NatsServer
from sahool_dlq.embedded.server import HOST, free_port
from sahool_dlq.errors import DLQError
from sahool_dlq.events import (
    DLQAction,
    DLQConsumerConfig,
    DLQEvent,
    NATSConfig,
    NATSConsumerConfig,
    NATSPublisher,
    start_consumer,
    start_dlq_consumer,
)
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.connection import connect_service, connected
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.watch import monitor_config
from sahool_dlq.settings import Settings
from support import servers
from support.consumer_log import SUCCESS, Calls, Log, new_prefix, running, seen, until

PASSWORDS = ["a/b%c", "p#w?d[1]", "s@fe:one,two", "50%25 %2F", "Pässword://€"]


def users(**passwords: str) -> str:
    """The configuration of a server with these users."""
    known = (
        f"{{ user: {name}, password: {json.dumps(password, ensure_ascii=False)} }}"
        for name, password in passwords.items()
    )
    return f"authorization {{ users = [ {', '.join(known)} ] }}"


def address(server: NatsServer, password: str, user: str = "u") -> str:
    return f"nats://{user}:{quote(password, safe='')}@{HOST}:{server.port}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One user for each password: u0, u1, …"""
    config = users(**{f"u{n}": password for n, password in enumerate(PASSWORDS)})
    with servers.nats(tmp_path_factory.mktemp("logins"), config) as server:
        yield server


@pytest.mark.parametrize("number", range(len(PASSWORDS)))
async def test_a_password_works_encoded_and_where_it_is_clear_as_it_is(
    server: NatsServer, number: int
) -> None:
    password = PASSWORDS[number]
    encoded = address(server, password, f"u{number}")
    raw = f"nats://u{number}:{password}@{HOST}:{server.port}"
    async with connected(encoded) as client:
        assert (await client.jetstream().account_info()).streams == 0
    for url in (encoded, *([] if "%2" in password else [raw])):
        service = await connect_service(Access(servers=[url]), name="t", timeout_seconds=10)
        assert (await service.jetstream().account_info()).streams == 0
        assert service.new_inbox().startswith(f"_INBOX.u{number}.")
        await service.close()


async def test_jobs_services_monitor_and_bridge_take_it_alike(
    nats_server_factory: Callable[..., NatsServer],
    monkeypatch: pytest.MonkeyPatch,
    database_dsn: str,
) -> None:
    password = PASSWORDS[2]
    server = nats_server_factory(config=users(u=password))
    url = address(server, password)
    async with connected(url) as client:
        log = Log(url, client, new_prefix())
        await ensure_streams(log.js, log.names)
        monkeypatch.setenv("NATS_URL", f"{url},{url}")
        publisher = NATSPublisher()
        assert await publisher.connect()
        assert await publisher.publish(f"{log.prefix}.analysis.ndvi", b"{}")
        await publisher.close()
        async with running(log.config(), Calls(ValueError("no"))):
            await log.letters(1)
        shown: list[DLQEvent] = []

        async def handle(event: DLQEvent) -> DLQAction:
            shown.append(event)
            return DLQAction.STORE

        settings = Settings(
            nats_url=url,
            postgres_dsn=database_dsn,
            subject_prefix=log.prefix,
            dlq_stream=log.names.dead_letters,
            advisory_stream=f"ADV_{log.prefix}",
        )
        monitor = await start_dlq_consumer(handle, monitor_config(settings))
        await seen(shown, 1)
        await monitor.close()
        bridge = Bridge(settings)
        await bridge.open()
        await bridge.close()


async def test_a_token_and_servers_with_logins_of_their_own(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    first, second = (nats_server_factory(config=users(u=each)) for each in ("a/b", "c?d"))
    third = nats_server_factory(config='authorization { token: "t/k@n" }')
    servers = [
        address(first, "a/b"),
        address(second, "c?d"),
        f"nats://{quote('t/k@n', safe='')}@{HOST}:{third.port}",
    ]
    by_port = {each.port: each for each in (first, second, third)}
    client = await connect_service(
        Access(servers=servers), name="t", timeout_seconds=20, reconnect_time_wait=0.1
    )

    async def is_answered() -> bool:
        url = client.connected_url
        return url is not None and url.port in by_port

    for _ in range(3):
        await until(is_answered)
        await client.flush()
        by_port.pop(client.connected_url.port).kill()
    await client.close()
    assert not by_port


async def test_a_server_that_the_cluster_named_gets_the_login_too(
    nats_server_factory: Callable[..., NatsServer],
) -> None:
    ports = [free_port("NATS") for _ in range(2)]

    def start(port: int) -> NatsServer:
        routes = f'listen: "{HOST}:{port}", routes: ["nats://{HOST}:{ports[0]}"]'
        return nats_server_factory(config=f"{users(u='a/b')}\ncluster {{ name: c, {routes} }}")

    first, second = await asyncio.gather(*(asyncio.to_thread(start, port) for port in ports))
    client = await connect_service(
        Access(servers=[address(first, "a/b")]),
        name="t",
        timeout_seconds=20,
        reconnect_time_wait=0.1,
    )

    async def is_known() -> bool:
        return any(each.port == second.port for each in client.servers)

    await until(is_known)
    first.kill()

    async def is_there() -> bool:
        url = client.connected_url
        return client.is_connected and url is not None and url.port == second.port

    await until(is_there)
    await client.flush()
    await client.close()


SECRET = "s3cr/et:w@rd?#%"
ENCODED = quote(SECRET, safe="")
PARTS = (SECRET, ENCODED, "s3cr", "w@rd", "w%40rd")


@pytest.mark.parametrize("login", [f"nobody:{ENCODED}", f"nobody:{SECRET}", ENCODED])
@pytest.mark.parametrize("is_there", [True, False])
async def test_no_error_and_no_log_says_a_password_or_token(
    server: NatsServer, login: str, is_there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    where = f"{HOST}:{server.port if is_there else 1}"
    fast: dict[str, Any] = {
        "servers": [f"nats://{login}@{where}"],
        "connect_timeout_seconds": 0.5,
    }
    with pytest.raises(ConnectionError, match=f"answers at nats://{where}") as consumer:
        await start_consumer(Calls(SUCCESS), NATSConsumerConfig(**fast))
    with pytest.raises(ConnectionError, match=f"answers at nats://{where}") as monitor:
        await start_dlq_consumer(None, DLQConsumerConfig(**fast))
    assert not await NATSPublisher(NATSConfig(**fast)).connect()
    assert f"nats://{where}" in caplog.text
    texts = "\n".join([str(consumer.value), str(monitor.value), caplog.text])
    assert not [part for part in PARTS if part in texts]


async def test_no_job_says_one_either(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"nats://nobody:{SECRET}@{HOST}:1"
    with pytest.raises(DLQError, match=f"answers at nats://{HOST}:1 .*: start one") as bridge:
        await Bridge(Settings(nats_url=url, postgres_dsn=database_dsn)).open()
    done = {}
    for address_, words in ((url, "answers at"), (f"{url},b@c", "is ambiguous")):
        monkeypatch.setenv("DLQ_NATS_URL", address_)
        monkeypatch.setenv("DLQ_POSTGRES_DSN", database_dsn)
        done[words] = await asyncio.to_thread(CliRunner().invoke, _command(), ["migrate"])
        assert (done[words].exit_code, words in done[words].output) == (1, True)
    texts = "\n".join([str(bridge.value), caplog.text, *(each.output for each in done.values())])
    assert not [part for part in PARTS if part in texts]
