"""A full disk: a clear error, nothing half written, and the next run continues."""

import asyncio
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from sahool_dlq.embedded import NatsServer, PostgresServer
from sahool_dlq.errors import LakeError, ServerUnavailableError
from sahool_dlq.events import ConsumerContext, ProcessingResult
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from support.consumer_log import opened, running
from support.platform_log import (
    check_exact,
    failures,
    in_lake,
    letter,
    publish,
    query,
)

KIB = 1024


class SmallDisk:
    """A file system of a few megabytes, with a file on it that uses up space."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def leave(self, free_bytes: int) -> None:
        """Fill the disk up to so many bytes."""
        free = shutil.disk_usage(self.folder).free
        with self._ballast.open("ab") as file:
            file.write(bytes(free - free_bytes))

    def make_room(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """A disk of 8 MB that any user may write to; needs the right to mount one."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=1777", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("only root may mount a small disk")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sahool_dlq.drain.run._PAUSES_SECONDS", (0.1,))


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Limit the size of files of this process: its writes then fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- the lake


async def test_a_full_disk_below_the_lake_is_reported_and_leaves_nothing_half_written(
    settings: Settings, client: Client, disk: SmallDisk
) -> None:
    """With too little space for the table, for a data file, or only for its log entry."""
    platform = settings.model_copy(update={"lake_uri": str(disk.folder / "lake")})
    stored: dict[int, bytes] = {}
    refused: list[int] = []
    named: list[str] = []
    for number, free in enumerate((0, 12, 24, 32, 48, 400)):
        stored |= await publish(client, settings, map(letter, range(50 * number, 50 * number + 50)))
        disk.leave(free * KIB)
        held = in_lake(platform).height if number else 0
        (error,) = await asyncio.gather(drain_log(platform), return_exceptions=True)
        if isinstance(error, BaseException):
            refused.append(free)
            assert isinstance(error, LakeError)
            named += [Path(word).name for word in str(error).split() if "small-disk" in word]
            assert "No space left" in str(error)
            assert str(error).isprintable()
            assert not number or in_lake(platform).height in (held, len(stored))
        disk.make_room()
        assert (await drain_log(platform)).last_sequence == len(stored)
        check_exact(platform, stored)
    assert refused[0] == 0
    assert 400 not in refused
    assert {"dead_letters", "views.sql"} <= set(named)  # it became full at different points
    assert (await verify_stores(platform)).findings == ()


async def test_a_lake_that_may_not_grow_is_reported_and_nothing_is_lost(
    settings: Settings, client: Client
) -> None:
    stored = await publish(client, settings, map(letter, range(10)))
    await drain_log(settings)
    stored |= await publish(client, settings, map(letter, range(10, 800)))
    with largest_file(6 * KIB), pytest.raises(LakeError, match=r"was not written: .*too large"):
        await drain_log(settings)
    assert in_lake(settings).height == 10
    await drain_log(settings)
    check_exact(settings, stored)


# -- Postgres


async def test_a_full_disk_below_postgres_is_reported_and_nothing_is_lost(
    settings: Settings, client: Client, disk: SmallDisk, postgres_server: PostgresServer
) -> None:
    space = disk.folder / "space"
    space.mkdir(mode=0o700)
    owner = postgres_server.data.stat()
    os.chown(space, owner.st_uid, owner.st_gid)
    dsn, name = settings.postgres_dsn.get_secret_value(), f"small_{settings.subject_prefix}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE {name} LOCATION '{space}'")
        connection.execute(f"ALTER TABLE failed_events SET TABLESPACE {name}")
        disk.leave(400 * KIB)
        stored = await publish(client, settings, map(letter, range(1_000)))
        with pytest.raises(ServerUnavailableError, match=r"The disk of PostgreSQL .* is full"):
            await drain_log(settings)
        (checkpoint,) = query(settings, "SELECT last_sequence FROM drain_checkpoints")
        assert len(failures(settings)) == checkpoint["last_sequence"] < 1_000
        assert in_lake(settings).height == 1_000  # that sink continues
        connection.execute("ALTER TABLE failed_events SET TABLESPACE pg_default")
        connection.execute(f"DROP TABLESPACE {name}")
    assert (await drain_log(settings)).last_sequence == 1_000
    check_exact(settings, stored)


# -- NATS


async def test_a_full_disk_below_nats_loses_no_dead_letter(
    settings: Settings, nats_server_factory: Callable[..., NatsServer], disk: SmallDisk
) -> None:
    server = nats_server_factory(disk.folder / "nats")
    may_fail = asyncio.Event()

    async def fails(context: ConsumerContext) -> ProcessingResult:
        await may_fail.wait()
        raise ValueError(f"cause {context.sequence}")

    async with opened(server.url) as log:
        names = {"dlq_stream": log.names.dead_letters, "events_stream": log.names.events}
        platform = settings.model_copy(
            update={"nats_url": SecretStr(server.url), "subject_prefix": log.prefix, **names}
        )
        async with running(log.config(ack_wait_seconds=1), fails):
            for number in range(60):
                await log.publish({"n": number, "text": "x" * 1_000})
            disk.leave(40 * KIB)
            may_fail.set()
            held, before = 0, -1
            while not 0 < held == before:  # until no message is accepted any more
                await asyncio.sleep(1.5)
                before = held
                held = (await log.js.stream_info(log.names.dead_letters)).state.last_seq
            assert held < 60
            assert (await drain_log(platform)).drained == held
            disk.make_room()
            await asyncio.to_thread(server.stop)  # JetStream is off after a failed write
            await asyncio.to_thread(server.start)
            await log.settled()
    await drain_log(platform)
    rows = in_lake(platform)
    assert set(rows["original_sequence"]) == set(range(1, 61))
    assert sorted(row["original_sequence"] for row in failures(platform)) == list(range(1, 61))
    # Acknowledgements were lost with the disk: a second handling is a repeat, not a case.
    assert sum(row["seen_count"] for row in failures(platform)) == len(rows)
