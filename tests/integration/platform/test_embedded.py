"""The embedded servers: data survive, no process is left, errors are one sentence."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest

from sahool_dlq.embedded import NatsServer, PostgresServer, PrefectServer, account
from sahool_dlq.embedded.process import Account, GuardedProcess
from sahool_dlq.errors import DLQError, NotPermittedError, ServerUnavailableError
from sahool_dlq.jetstream.connection import connected
from support import ROOT
from support.servers import POSTGRES_BIN

Factory = Callable[..., NatsServer]
PostgresFactory = Callable[..., PostgresServer]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals, /proc")

# Starts servers in an owner of their own, prints their pids and waits to be killed.
OWNER = """
import os, sys, time
from pathlib import Path
from sahool_dlq.embedded import NatsServer, PostgresServer
home = Path(sys.argv[1])
bin_dir = os.environ.get("DLQ_TEST_POSTGRES_BIN")
with (
    NatsServer(home) as nats,
    PostgresServer(home, durable=False, bin_dir=bin_dir and Path(bin_dir)) as postgres,
):
    print(nats.pid, postgres.pid, postgres.data, flush=True)
    time.sleep(600)
"""


# -- start, stop, kill


async def test_nats_keeps_a_stream_over_kill_and_start(nats_server_factory: Factory) -> None:
    server = nats_server_factory()
    url, pid = server.url, server.pid
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="KEPT", subjects=["kept.>"])
    await client.jetstream().publish("kept.one", b"still here")
    await client.close()

    server.kill()
    assert not is_running(pid)
    server.start()

    assert server.url == url
    client = await nats.connect(url)
    assert (await client.jetstream().get_msg("KEPT", 1)).data == b"still here"
    await client.close()


def test_postgres_keeps_rows_over_kill_and_start(
    postgres_server_factory: PostgresFactory,
) -> None:
    server = postgres_server_factory()
    dsn, pid = server.dsn, server.pid
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    children = descendants(pid)

    server.kill()
    assert not any(map(is_running, [pid, *children]))
    server.start()

    assert server.dsn == dsn
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)


def test_data_and_port_survive_a_new_object(postgres_server_factory: PostgresFactory) -> None:
    first = postgres_server_factory()
    with psycopg.connect(first.dsn) as connection:
        connection.execute("CREATE TABLE kept ()")
    first.stop()
    assert not first.is_running

    second = postgres_server_factory(home=first.home)

    assert second.port == first.port
    with psycopg.connect(second.dsn) as connection:
        connection.execute("SELECT FROM kept")


def test_postgres_is_utf8_and_on_loopback_only(postgres_server: PostgresServer) -> None:
    with psycopg.connect(postgres_server.dsn) as connection:
        query = (
            "SELECT pg_encoding_to_char(encoding), current_setting('listen_addresses'),"
            " current_setting('unix_socket_directories'), upper('é')"
            " FROM pg_database WHERE datname = current_database()"
        )
        assert connection.execute(query).fetchone() == ("UTF8", "127.0.0.1", "", "É")


@pytest.mark.parametrize("durable", [True, False])
def test_durable_decides_about_fsync(
    postgres_server_factory: PostgresFactory, durable: bool
) -> None:
    server = postgres_server_factory(durable=durable)
    with psycopg.connect(server.dsn) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on" if durable else "off",)


async def test_nats_takes_a_payload_limit_and_more_config(nats_server_factory: Factory) -> None:
    server = nats_server_factory(max_payload=2048, config="server_tags: [spare]")
    client = await nats.connect(server.url)
    assert client.max_payload == 2048
    await client.close()


def test_several_nats_servers_run_at_once(nats_server_factory: Factory) -> None:
    servers = [nats_server_factory() for _ in range(3)]
    assert len({server.port for server in servers}) == 3


def test_databases_are_created_once_and_dropped(postgres_server: PostgresServer) -> None:
    dsn = postgres_server.create_database("Odd name")
    assert dsn == postgres_server.create_database("Odd name")
    with psycopg.connect(
        host="127.0.0.1", port=postgres_server.port, user="postgres", dbname="Odd name"
    ):
        postgres_server.drop_database("Odd name")
    postgres_server.drop_database("Odd name")


def test_prefect_serves_its_own_database_and_the_right_ui(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    dsn = postgres_server.create_database("prefect")
    with PrefectServer(tmp_path, database_dsn=dsn, has_login=False) as prefect:
        children = [prefect.pid, *descendants(prefect.pid)]
        assert get(f"{prefect.ui_url}/ui-settings")["api_url"] == prefect.api_url
        assert prefect.environment["PREFECT_API_URL"] == prefect.api_url
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT FROM flow_run")
    assert not any(map(is_running, children))
    postgres_server.drop_database("prefect")


async def test_no_server_accepts_a_login_without_password_and_nothing_shows_it(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    options: dict[str, Any] = {"durable": False, "bin_dir": POSTGRES_BIN}
    with NatsServer(home) as queue, PostgresServer(home, **options) as rows:
        async with connected(queue.url):
            pass
        with psycopg.connect(rows.dsn) as connection:
            connection.execute("SELECT 1")
        for login in ("", "dlq:wrong@"):
            with pytest.raises(NotPermittedError, match="refuses the login"):
                async with connected(f"nats://{login}127.0.0.1:{queue.port}"):
                    pass
        for password in ("", ":wrong"):
            for user in ("postgres", "nobody"):
                with pytest.raises(psycopg.OperationalError, match="password"):
                    psycopg.connect(f"postgresql://{user}{password}@127.0.0.1:{rows.port}/dlq")
        passwords = [server.password_file.read_text().strip() for server in (queue, rows)]
        shown = await asyncio.to_thread(
            subprocess.check_output, ["ps", "axww", "-o", "args"], text=True
        )
        assert queue.folder in shown
        assert not [word for word in passwords if word in shown]
        held = [file for file in home.rglob("*") if file.is_file() and file.suffix != ".lock"]
        leaks = [f for f in held if any(word.encode() in f.read_bytes() for word in passwords)]
        assert {file.stat().st_mode & 0o777 for file in leaks} == {0o600}
        assert home.stat().st_mode & 0o777 == 0o700
        dsn, url = rows.dsn, queue.url
    with NatsServer(home) as queue, PostgresServer(home, **options) as rows:
        assert (rows.dsn, queue.url) == (dsn, url)
        rows.password_file.unlink()
        rows.stop()
        rows.start()
        with psycopg.connect(rows.dsn) as connection:  # with a new one
            connection.execute("SELECT 1")
    assert len(set(passwords)) == 2
    rows.remove()


def test_a_cluster_that_an_older_version_made_wants_a_login_from_now_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"durable": False, "bin_dir": POSTGRES_BIN}
    with PostgresServer(tmp_path, has_login=False, **options) as rows:
        with psycopg.connect(rows.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS a")
        open_dsn = rows.dsn
    with PostgresServer(tmp_path, **options) as rows:
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(open_dsn)
        with psycopg.connect(rows.dsn) as connection:
            assert connection.execute("SELECT a FROM kept").fetchall() == [(1,)]
    rows.remove()


# -- nothing is left behind


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_owner_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    assert owner.stdout is not None
    nats_pid, postgres_pid, data = owner.stdout.readline().split(maxsplit=2)
    everything = [owner.pid, *descendants(owner.pid)]
    assert {int(nats_pid), int(postgres_pid)} < set(everything)
    assert len(everything) > 8  # two guards, two servers, PostgreSQL's own children

    os.killpg(owner.pid, how)  # as a terminal's Ctrl-C does
    owner.wait()
    owner.stdout.close()

    assert wait_until_gone(everything) == []
    assert "shut down" in (tmp_path / "postgres.log").read_text()
    shutil.rmtree(data.strip())


def test_servers_started_by_a_thread_outlive_the_thread(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    time.sleep(1)
    assert server.is_running
    server.stop()


@needs_linux
def test_a_killed_guard_takes_its_server_along(nats_server_factory: Factory) -> None:
    server = nats_server_factory()
    pid = server.pid
    os.kill(parent(pid), signal.SIGKILL)
    assert wait_until_gone([pid]) == []
    server.start()
    assert server.is_running


def test_a_server_that_ignores_signals_is_killed_after_its_time(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(60)"
    log = tmp_path / "log"
    process = GuardedProcess(
        [sys.executable, "-uc", stubborn],
        log=log,
        env=os.environ,
        cwd=tmp_path,
        stop_signal=signal.SIGTERM,
        grace_seconds=0.2,
    )
    while not log.read_text():
        time.sleep(0.01)
    process.stop()
    assert not is_running(process.pid)


# -- failures


@pytest.mark.parametrize("kind", [NatsServer, PostgresServer])
def test_a_taken_port_is_one_clear_sentence(
    tmp_path: Path, kind: type[NatsServer | PostgresServer]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerUnavailableError, match=f"cannot listen on .*:{port}, stop"):
            kind(tmp_path, port).start()


def test_a_remembered_port_that_is_taken_gives_way(nats_server_factory: Factory) -> None:
    first = nats_server_factory()
    first.stop()
    with socket.create_server(("127.0.0.1", first.port)):
        assert nats_server_factory(home=first.home).port != first.port


def test_a_second_start_on_a_home_names_the_running_process(nats_server_factory: Factory) -> None:
    running = nats_server_factory()
    with pytest.raises(ServerUnavailableError, match=f"already runs .* process {os.getpid()}"):
        NatsServer(running.home).start()
    assert running.is_running


def test_a_home_is_free_again_once_a_killed_owners_server_is_gone(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert owner.stdout is not None
    data = owner.stdout.readline().split(maxsplit=2)[2].decode().strip()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    with NatsServer(tmp_path) as server:
        assert server.is_running
    with PostgresServer(tmp_path, durable=False, bin_dir=POSTGRES_BIN) as postgres:
        assert postgres.is_running
        assert str(postgres.data) == data
    postgres.remove()


def test_a_server_that_refuses_its_config_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailableError, match=r"(?s)nats\.log.*no_such_thing") as raised:
        NatsServer(tmp_path, config="no_such_thing: 1").start()
    assert isinstance(raised.value, DLQError)


def test_a_bin_dir_without_postgres_is_reported(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, bin_dir=tmp_path / "none")
    with pytest.raises(ServerUnavailableError, match=f"{tmp_path}/none"):
        server.start()
    server.remove()


# -- root


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter (pytest's own folders are private)."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@needs_root
def test_binaries_that_the_user_nobody_cannot_reach_are_copied_once(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "private" / "site-packages"
    package = account.installed_binaries().parents[1]
    for source in (package, package.with_name(f"{account.PACKAGE}.libs")):
        if source.exists():
            shutil.copytree(source, site / source.name)
    site.parent.chmod(0o700)
    binaries = site / package.name / "pginstall" / "bin"
    monkeypatch.setattr(account, "installed_binaries", lambda: binaries)
    monkeypatch.setattr(account, "PRIVATE_FOLDERS", [open_folder / "kept"])

    for _ in range(2):
        with PostgresServer(open_folder / "home", durable=False, has_login=False) as server:
            assert server.data == open_folder / "home" / "postgres"
            assert owner_of(server.pid) == Account.nobody().uid

    (copy,) = (open_folder / "kept").iterdir()
    assert all(
        path.lstat().st_uid == 0 and not path.lstat().st_mode & stat.S_IWOTH
        for path in copy.rglob("*")
        if not path.is_symlink()
    )


@needs_root
def test_data_that_the_user_nobody_could_not_reach_are_elsewhere_and_stay_there(
    open_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "PRIVATE_FOLDERS", [open_folder / "kept"])
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    places = []
    for _ in range(2):
        with PostgresServer(private, durable=False, bin_dir=POSTGRES_BIN) as server:
            places.append(server.data)
    assert places[0] == places[1]
    assert places[0].parent == open_folder / "kept"


@needs_root
def test_a_planted_folder_is_not_used(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = Account.nobody()
    foreign, writable, link = (open_folder / name for name in ("foreign", "writable", "link"))
    foreign.mkdir()
    os.chown(foreign, nobody.uid, nobody.gid)
    writable.mkdir()
    writable.chmod(0o777)
    link.symlink_to("/usr")
    monkeypatch.setattr(account, "PRIVATE_FOLDERS", [foreign, writable, link])
    with pytest.raises(ServerUnavailableError, match="ordinary user"):
        account.trusted_folder(nobody)
    monkeypatch.setattr(account, "PRIVATE_FOLDERS", [foreign, open_folder / "ours"])
    assert account.trusted_folder(nobody) == open_folder / "ours"


# -- helpers


def get(url: str) -> dict[str, object]:
    with urllib.request.urlopen(url) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def processes() -> dict[int, tuple[int, str, int]]:
    """Parent, state and user id of each process."""
    listing = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,stat=,uid="], text=True)
    rows = [line.split() for line in listing.splitlines()]
    return {int(pid): (int(ppid), state, int(uid)) for pid, ppid, state, uid in rows}


def parent(pid: int) -> int:
    return processes()[pid][0]


def owner_of(pid: int) -> int:
    return processes()[pid][2]


def is_running(pid: int) -> bool:
    return not processes().get(pid, (0, "Z", 0))[1].startswith("Z")


def descendants(pid: int) -> list[int]:
    table = processes()
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = [child for child, row in table.items() if row[0] == waiting[0]]
        found += children
        waiting = waiting[1:] + children
    return found


def wait_until_gone(pids: list[int]) -> list[int]:
    """Those of these processes that still run after twenty seconds."""
    deadline = time.monotonic() + 20
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
