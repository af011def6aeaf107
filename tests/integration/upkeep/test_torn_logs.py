"""Delta logs that lost bytes or files are detected, reported and rebuilt without losing a row."""

import asyncio
import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.errors import FencedError, LakeError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.upkeep import erase_tenant, maintain_lake, verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.copy import copy_lake
from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.torn_log import begin_anew, read_log
from support.platform_log import (
    DLQ,
    ROOT,
    check_exact,
    environment,
    in_lake,
    last_sequence,
    letter,
    publish,
    query,
)
from support.seed import SEED

_NOW = datetime(2026, 2, 3, tzinfo=UTC)
_LAST = 27  # entry of dead_letters: made, given an owner, 25 batches, a watermark


async def drained(settings: Settings, client: Client) -> dict[int, bytes]:
    """A platform with a checkpoint and entries after it; the last messages are case events."""
    stored = await publish(client, settings, map(letter, range(250)))
    await drain_log(settings.model_copy(update={"drain_batch_messages": 10}))
    name = str(in_lake(settings)["failure_id"][0])
    bodies = [encode_case_event(failure_id=name, at=_NOW, actor="ann", reason=f"{n}") for n in "ab"]
    await publish(client, settings, bodies, "triage.parked")
    await drain_log(settings)
    return stored


async def lose_stream(client: Client, settings: Settings) -> None:
    """Let the stream forget all but its last message."""
    js = client.jetstream(timeout=60)
    last = await last_sequence(client, settings)
    for first in range(1, last, 50):
        some = range(first, min(first + 50, last))
        await asyncio.gather(*(js.delete_msg(settings.dlq_stream, number) for number in some))


def log_of(settings: Settings, table: str = "dead_letters") -> Path:
    return Path(settings.lake) / table / "_delta_log"


def entry(version: int) -> str:
    return f"{version:020}.json"


def checkpoint(version: int) -> str:
    return f"{version:020}.checkpoint.parquet"


def cut(file: Path, share: float = 0.6) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def without_lines(file: Path, kind: bytes) -> None:
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join(line for line in lines if not line.startswith(b'{"%b"' % kind)))


def stale_pointer(log: Path) -> None:
    (log / "_last_checkpoint").write_text('{"version": 99999, "size": 3}')


def no_history(log: Path) -> None:
    for file in [*log.glob("*.checkpoint.parquet"), log / "_last_checkpoint", log / entry(3)]:
        file.unlink()


def only_the_last(log: Path) -> None:
    for file in list(log.iterdir()):
        if file.name != entry(_LAST):
            file.unlink()


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a pointer newer than the files": stale_pointer,
    "a pointer to a checkpoint that is gone": lambda log: (log / checkpoint(19)).unlink(),
    "a pointer that is not JSON": lambda log: (log / "_last_checkpoint").write_text('{"vers'),
    "a cut checkpoint": lambda log: cut(log / checkpoint(19)),
    "an empty checkpoint": lambda log: (log / checkpoint(19)).write_bytes(b""),
    "a cut entry in the middle": lambda log: cut(log / entry(22)),
    "a missing entry in the middle": lambda log: (log / entry(22)).unlink(),
    "an empty entry in the middle": lambda log: (log / entry(22)).write_bytes(b""),
    "zeros for an entry in the middle": lambda log: (log / entry(22)).write_bytes(bytes(800)),
    "an entry cut before its watermark": lambda log: without_lines(log / entry(22), b"txn"),
    "two entries": lambda log: [(log / entry(n)).unlink() for n in (21, 24)] and None,
    "no checkpoint, and a missing entry": no_history,
    "all but the last entry missing": only_the_last,
    "the whole log": shutil.rmtree,
}
SILENT = {  # readers notice nothing, and lack rows
    "a pointer that is not JSON",
    "an empty entry in the middle",
    "an entry cut before its watermark",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_torn_log_is_told_and_begun_anew_with_every_row(
    settings: Settings, client: Client, damage: str
) -> None:
    """Also if the stream does not have them any more."""
    stored = await drained(settings, client)
    before, events = in_lake(settings), in_lake(settings, "case_events")
    log = log_of(settings)
    assert sorted(file.name for file in log.iterdir())[-2:] == [entry(_LAST), "_last_checkpoint"]
    await lose_stream(client, settings)
    DAMAGE[damage](log)
    report = await verify_stores(settings)
    assert {finding.kind for finding in report.findings} == {"torn_log"}
    assert "dead_letters/_delta_log/" in report.findings[0].what
    if damage not in SILENT:
        with pytest.raises(LakeError, match="dlq verify --repair"):
            await drain_log(settings)
    report = await verify_stores(settings, is_repair=True)
    assert report.is_well, report.findings
    assert in_lake(settings).drop("dlq_date").equals(before.drop("dlq_date"))
    assert in_lake(settings, "case_events").equals(events)
    check_exact(settings, stored)
    assert query(settings, "SELECT * FROM stream_gaps") == []
    assert (await verify_stores(settings)).findings == ()
    assert (await drain_log(settings)).drained == 0
    stored |= await publish(client, settings, map(letter, range(300, 330)))
    await drain_log(settings.model_copy(update={"drain_batch_messages": 1}))
    check_exact(settings, stored)  # past the next checkpoint
    maintain_lake(settings)
    assert (await verify_stores(settings)).findings == ()
    check_exact(settings, stored)


async def test_case_events_that_only_the_lake_had_survive_their_log(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    events = in_lake(settings, "case_events")
    assert events.height == 2
    await lose_stream(client, settings)
    shutil.rmtree(log_of(settings, "case_events"))
    with pytest.raises(LakeError, match="has data files but no log"):
        await drain_log(settings)
    assert (await verify_stores(settings, is_repair=True)).is_well
    assert in_lake(settings, "case_events").equals(events)
    assert (await verify_stores(settings)).findings == ()


async def test_what_was_in_a_lost_entry_and_its_files_alone_is_told_as_lost(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    await lose_stream(client, settings)
    log = log_of(settings, "case_events")
    text = "\n".join(file.read_text() for file in log.glob("*.json"))
    lines = [json.loads(line) for line in text.splitlines() if line]
    (path,) = [line["add"]["path"] for line in lines if "add" in line]
    (log.parent / path).unlink()
    last = sorted(log.glob("*.json"))[-1]
    table = Lake(settings.lake).table("case_events")
    (epoch,) = in_lake(settings)["epoch"].unique()
    table.append(table.empty_frame(), epoch, 252)
    last.unlink()
    report = await verify_stores(settings, is_repair=True)
    assert not report.is_well
    (lost,) = [finding for finding in report.findings if finding.kind == "lost_rows"]
    assert (lost.count, "sequences 251;" in lost.what) == (1, True)  # the stream has the last one
    (gap,) = query(settings, "SELECT first_sequence, last_sequence, is_certain FROM stream_gaps")
    assert tuple(gap.values()) == (251, 251, True)


async def test_an_entry_of_a_compaction_that_is_lost_doubles_and_loses_nothing(
    settings: Settings, client: Client
) -> None:
    stored = await drained(settings, client)
    await lose_stream(client, settings)
    before = in_lake(settings)
    maintain_lake(settings)
    (log_of(settings) / entry(27)).unlink()
    (log_of(settings) / "_last_checkpoint").unlink()
    assert (await verify_stores(settings, is_repair=True)).is_well
    assert in_lake(settings).equals(before)
    check_exact(settings, stored)


async def test_what_was_erased_does_not_come_back_with_a_mended_log(
    settings: Settings, client: Client
) -> None:
    """Its file was in use when the tenant was erased, so it still exists."""
    await drained(settings, client)
    await publish(client, settings, [letter(7, tenant_id="acme")])
    await drain_log(settings)
    (file,) = [
        file
        for file in Lake(settings.lake).table("dead_letters").files
        if file.first_sequence == 253
    ]
    kept = (log_of(settings).parent / file.path).read_bytes()
    await erase_tenant(settings, "acme", actor="ann", reason="they left")
    (log_of(settings).parent / file.path).write_bytes(kept)
    before = in_lake(settings)
    cut(sorted(log_of(settings).glob("*.json"))[-2])
    assert (await verify_stores(settings, is_repair=True)).is_well
    assert in_lake(settings).equals(before)
    assert "acme" not in before["tenant_id"].to_list()


async def test_a_checkpoint_that_differs_from_the_entries_is_found(
    settings: Settings, client: Client
) -> None:
    """Each flipped bit of a checkpoint is detected, or changes nothing that is read."""
    stored = await drained(settings, client)
    file = log_of(settings) / checkpoint(19)
    whole, store = file.read_bytes(), FileStore(str(log_of(settings).parent), (), None)
    said = read_log(store).state
    print(f"DLQ_TEST_SEED={SEED}")
    chance, found = random.Random(SEED), 0
    for _ in range(150):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        file.write_bytes(flipped)
        log = read_log(store)
        assert log.state.says_the_same(said)
        found += bool(log.faults)
    assert found > 50
    file.write_bytes(whole)
    assert read_log(store).faults == {}
    check_exact(settings, stored)


async def test_a_torn_mart_is_deleted_and_computed_again(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    build_all_marts(settings)
    before = Lake(settings.lake).read("marts/failure_groups")
    for name in ("failure_groups", "cases_daily"):
        cut(sorted(log_of(settings, f"marts/{name}").glob("*.json"))[0])
    report = await verify_stores(settings)
    assert [finding.kind for finding in report.findings] == ["torn_log"] * 2
    assert (await verify_stores(settings, is_repair=True)).is_well
    build_all_marts(settings)
    assert Lake(settings.lake).read("marts/failure_groups").height == before.height


async def test_a_mart_that_stays_empty_is_not_torn(settings: Settings, client: Client) -> None:
    await drained(settings, client)
    for _ in range(2):
        build_all_marts(settings, is_rebuild=True)
    log = log_of(settings, "marts/poison_messages")
    [entry] = [json.loads(line) for line in max(log.glob("*.json")).read_text().splitlines()]
    assert set(entry) == {"commitInfo"}
    assert (await verify_stores(settings)).is_well
    entry["commitInfo"]["operationMetrics"]["num_added_files"] = 1
    max(log.glob("*.json")).write_text(json.dumps(entry))
    assert [finding.kind for finding in (await verify_stores(settings)).findings] == ["torn_log"]


@pytest.mark.parametrize("part", ["", "_delta_log"])
async def test_a_table_removed_while_a_drain_runs_ends_it_in_one_sentence(
    settings: Settings, client: Client, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await publish(client, settings, map(letter, range(60)))
    eager = settings.model_copy(update={"drain_batch_messages": 10})
    write, count = FileStore.write, 0

    def removing(self: FileStore, *arguments: object, **more: object) -> object:
        nonlocal count
        count += 1
        if count == 4:
            shutil.rmtree(log_of(settings).parent / part)
        return write(self, *arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "write", removing)
        with pytest.raises(LakeError) as told:
            await drain_log(eager)
    assert "\n" not in str(told.value)
    if part:  # the data is there
        with pytest.raises(LakeError, match="dlq verify --repair"):
            await drain_log(eager)
        assert (await verify_stores(settings, is_repair=True)).is_well
    else:
        assert "somebody removed it" in str(told.value)
        await drain_log(eager)
    check_exact(settings, stored)
    assert (await verify_stores(settings)).findings == ()


async def test_a_copy_made_while_drains_and_upkeep_go_on_is_whole(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    """With the command of docs/operations.md."""
    stored = await drained(settings, client)
    eager = settings.model_copy(update={"drain_batch_messages": 2})
    is_done = asyncio.Event()

    async def maintain() -> None:
        while not is_done.is_set():
            await asyncio.to_thread(maintain_lake, settings)

    async def drain() -> None:
        number = 1000
        while not is_done.is_set():
            more = await publish(client, settings, map(letter, range(number, number + 20)))
            stored.update(more)
            await drain_log(eager)
            number += 20

    work = [asyncio.create_task(maintain()), asyncio.create_task(drain())]
    copies = [tmp_path / f"copy-{number}" for number in range(3)]
    for place in copies:
        process = await asyncio.create_subprocess_exec(
            *DLQ, "copy", str(place), cwd=ROOT, env=environment(settings),
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await process.wait() == 0
    is_done.set()
    await asyncio.gather(*work)
    check_exact(settings, stored)
    with pytest.raises(LakeError, match="There is a lake at"):
        copy_lake(Lake(settings.lake), Lake(str(copies[0])), _NOW)
    for place in copies:
        copy = settings.model_copy(update={"lake_uri": str(place)})
        rows = in_lake(copy)
        assert (
            rows["dlq_sequence"].to_list()
            == in_lake(settings)["dlq_sequence"][: rows.height].to_list()
        )
        assert rows.height >= 250
        found = (await verify_stores(copy)).findings
        assert {finding.kind for finding in found} <= {"behind"}
    await drain_log(copy)
    check_exact(copy, stored)
    assert (await verify_stores(copy)).findings == ()


def files_below(folder: str) -> list[Path]:
    return [file for file in Path(folder).rglob("*") if file.is_file()]


async def test_a_copy_by_other_tools_with_a_newer_pointer_is_repaired(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    """The files were listed, drains wrote the next checkpoint, the listed files were copied."""
    stored = await drained(settings, client)
    listed = files_below(settings.lake)
    stored |= await publish(client, settings, map(letter, range(500, 540)))
    await drain_log(settings.model_copy(update={"drain_batch_messages": 1}))
    copy = settings.model_copy(update={"lake_uri": str(tmp_path / "copy")})
    for file in listed:
        target = Path(copy.lake) / file.relative_to(settings.lake)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    with pytest.raises(LakeError, match="dlq verify --repair"):
        Lake(copy.lake).table("dead_letters")
    assert (await verify_stores(copy, is_repair=True)).is_well
    check_exact(copy, stored)


def test_a_log_that_is_rebuilt_has_the_content_of_the_old_one(tmp_path: Path) -> None:
    table = Lake(str(tmp_path / "lake")).table("case_events")
    for sequence in range(1, 30):
        row = pl.DataFrame({"epoch": ["e#0"], "dlq_sequence": [sequence]}).with_columns(
            published_at=pl.lit(_NOW), dlq_date=pl.lit(_NOW.date())
        )
        row = pl.concat([table.empty_frame(), row], how="diagonal_relaxed")
        table.append(row, "e#0", sequence)
    said = read_log(table.store)
    said.state.version += 1
    begin_anew(table.store, said.state, _NOW)
    again = read_log(table.store)
    assert again.state.says_the_same(said.state)
    assert (again.faults, again.state.metadata) == ({}, said.state.metadata)
    with pytest.raises(FileExistsError):
        begin_anew(table.store, said.state, _NOW)
    with pytest.raises(FencedError):
        table.append(table.empty_frame(), "e#0", 30)  # who worked on what was there before
