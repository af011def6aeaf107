"""`dlq verify` reports what is damaged, missing or doubled, and repairs it."""

import asyncio
import json
import random
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.upkeep.verify import VerifyReport
from support.platform_log import (
    DLQ,
    ROOT,
    check_exact,
    environment,
    execute,
    failures,
    in_lake,
    letter,
    publish,
    query,
    state_of,
)
from support.seed import SEED

_NOW = datetime(2026, 2, 3, tzinfo=UTC)


async def drained(settings: Settings, client: Client, count: int = 60) -> dict[int, bytes]:
    """A drained platform: three files of dead letters, one of case events."""
    stored = await publish(client, settings, map(letter, range(count)))
    body = encode_case_event(failure_id=str(uuid.uuid4()), at=_NOW, actor="ann")
    await publish(client, settings, [body], "triage.parked")
    await drain_log(settings.model_copy(update={"drain_batch_messages": 20}))
    return stored


def files(settings: Settings, table: str = "dead_letters") -> list[Path]:
    """The live files of a table, by their first sequence."""
    lake_table = Lake(settings.lake).table(table)
    return [Path(lake_table.path) / file.path for file in lake_table.files]


def kinds(report: VerifyReport) -> list[tuple[str, int, bool]]:
    return [(found.kind, found.count, found.is_repaired) for found in report.findings]


async def lose_stream(client: Client, settings: Settings, up_to: int) -> None:
    """Let the stream forget its oldest messages."""
    for sequence in range(1, up_to + 1):
        await client.jetstream().delete_msg(settings.dlq_stream, sequence)


async def test_a_sound_platform_has_no_findings_and_is_left_as_it_is(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    before = state_of(settings)
    report = await verify_stores(settings)
    assert (report.findings, report.is_well, report.unchecked_files) == ((), True, 0)
    assert report.files == 4
    sizes = [
        file.stat().st_size
        for name in ("dead_letters", "case_events")
        for file in files(settings, name)
    ]
    assert report.read_bytes == sum(sizes)
    (epoch,) = report.epochs
    assert {k: v for k, v in epoch.items() if k != "epoch"} == {
        "first_sequence": 1,
        "last_sequence": 61,
        "stream": 61,
        "lake_dead_letters": 60,
        "lake_case_events": 1,
        "postgres": 60,
    }
    assert state_of(settings) == before


async def test_an_answer_that_a_request_had_delivered_into_the_log_is_none_of_its_messages(
    settings: Settings, client: Client
) -> None:
    js, event = client.jetstream(), f"{settings.subject_prefix}.analysis.x"
    durable = f"d{uuid.uuid4().hex[:6]}"
    await js.pull_subscribe(event, durable, stream=settings.events_stream)
    await publish(client, settings, map(letter, range(3)))
    await js.publish(event, b"an event")
    request = f"$JS.API.CONSUMER.MSG.NEXT.{settings.events_stream}.{durable}"
    await client.publish(request, b"1", reply=f"{settings.subject_prefix}.dlq.x")
    async with asyncio.timeout(10):
        while (await js.stream_info(settings.dlq_stream)).state.last_seq < 4:
            await asyncio.sleep(0.01)
    assert (await js.get_msg(settings.dlq_stream, 4)).subject == event
    await publish(client, settings, map(letter, range(3, 6)))
    report = await drain_log(settings)
    assert (report.gaps, report.last_sequence) == (0, 7)
    assert (await verify_stores(settings)).findings == ()
    assert (await verify_stores(settings, is_repair=True)).findings == ()


async def test_each_verification_is_kept_with_what_it_found(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    await verify_stores(settings)
    files(settings)[0].unlink()
    await verify_stores(settings)
    await verify_stores(settings, is_repair=True)
    kept = query(settings, "SELECT * FROM verifications ORDER BY id")
    assert [(row["wrong_count"], row["repaired_count"]) for row in kept] == [(0, 0), (2, 0), (0, 2)]
    assert [finding["kind"] for finding in kept[1]["findings"]] == [
        "damaged_file",
        "missing_in_lake",
    ]
    assert {row["files"] for row in kept} == {4}
    assert all(row["read_bytes"] > 0 and row["seconds"] > 0 for row in kept)


async def test_the_lake_is_read_no_faster_than_the_limit(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    report = await verify_stores(settings)
    started = time.monotonic()
    slow = await verify_stores(settings, bytes_per_second=report.read_bytes / 3)
    assert time.monotonic() - started >= 3
    assert slow.seconds >= 3
    assert (slow.findings, slow.read_bytes) == ((), report.read_bytes)


async def test_a_file_that_leaves_the_lake_while_it_is_read_is_not_missed(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure deletes files at once, and reading everything may take hours."""
    stored = await drained(settings, client)
    check, left = FileStore.check, list[Path]()

    def leaving(self: FileStore, *arguments: Any) -> str | None:
        if not left:
            table = Lake(settings.lake).table("dead_letters")
            left.extend(Path(table.path) / file.path for file in table.files)
            rows = pl.concat(table.read(file) for file in table.files)
            table.replace(table.files, [rows], _NOW, is_data_change=False)
            for file in left:
                file.unlink()
        return check(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(FileStore, "check", leaving)
        report = await verify_stores(settings)
    assert (len(left), report.findings, report.files) == (3, (), 2)
    check_exact(settings, stored)


async def test_any_flipped_bit_is_found(settings: Settings, client: Client) -> None:
    await drained(settings, client)
    (file, *_) = files(settings)
    whole = file.read_bytes()
    print(f"DLQ_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    table = Lake(settings.lake).table("dead_letters")
    (damaged, *_) = table.files
    for _ in range(80):
        flipped = bytearray(whole)
        flipped[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        file.write_bytes(flipped)
        assert table.store.check(damaged)
    file.write_bytes(whole)
    assert table.store.check(damaged) is None


async def test_a_flipped_bit_of_a_page_is_refused_by_its_checksum(
    settings: Settings, client: Client
) -> None:
    """A reader that uses the checksums of Parquet detects it too."""
    await drained(settings, client)
    (file, *_) = files(settings)
    whole = file.read_bytes()
    with pq.ParquetFile(file) as parquet:
        column = parquet.metadata.row_group(0).column(4)
    end = column.data_page_offset + column.total_compressed_size - 20
    file.write_bytes(whole[:end] + bytes([whole[end] ^ 1]) + whole[end + 1 :])
    table = Lake(settings.lake).table("dead_letters")
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        table.store.read(table.files[0])


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "empty"])
async def test_a_damaged_file_is_named_and_rebuilt_from_the_stream(
    settings: Settings, client: Client, damage: str
) -> None:
    stored = await drained(settings, client)
    before = in_lake(settings)
    file = files(settings)[1]
    whole = file.read_bytes()
    if damage == "flipped":
        middle = len(whole) // 4
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    report = await verify_stores(settings)
    assert not report.is_well
    assert kinds(report) == [("damaged_file", 20, False), ("missing_in_lake", 20, False)]
    assert file.name in report.findings[0].what
    assert "sequences 21–40" in report.findings[1].what
    report = await verify_stores(settings, is_repair=True)
    assert report.is_well
    assert kinds(report) == [("damaged_file", 20, True), ("missing_in_lake", 20, True)]
    assert in_lake(settings).equals(before)
    check_exact(settings, stored)
    assert (await verify_stores(settings)).findings == ()
    assert (await drain_log(settings)).drained == 0


async def test_what_the_stream_has_no_more_is_rebuilt_from_postgres(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    before = in_lake(settings)
    await lose_stream(client, settings, 30)
    files(settings)[1].unlink()
    report = await verify_stores(settings, is_repair=True)
    assert report.is_well
    after = in_lake(settings)
    assert (
        after["envelope"].to_list() == ["canonical"] * 20 + ["restored"] * 10 + ["canonical"] * 30
    )
    same = ["dlq_sequence", "failure_id", "published_at", "error_message", "group_id", "template"]
    same += ["event_id", "dlq_timestamp", "service", "epoch", "dlq_date"]
    assert after.select(same).equals(before.select(same))
    datas = [json.loads(text) for text in after["original_data"]]
    assert datas == [json.loads(text) for text in before["original_data"]]


async def test_rows_that_nothing_else_has_are_told_as_lost_and_not_as_repaired(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    await lose_stream(client, settings, 61)
    files(settings, "case_events")[0].unlink()
    report = await verify_stores(settings, is_repair=True)
    assert not report.is_well
    assert kinds(report) == [("damaged_file", 1, True), ("lost_rows", 1, False)]
    (gap,) = query(settings, "SELECT * FROM stream_gaps")
    assert (gap["first_sequence"], gap["last_sequence"], gap["is_certain"]) == (61, 61, True)


@pytest.mark.parametrize("kept", [0, 0.6, "before its watermark"])
async def test_a_torn_last_log_entry_is_taken_out_and_its_rows_drained_again(
    settings: Settings, client: Client, kept: Any
) -> None:
    stored = await drained(settings, client)
    log = Path(settings.lake) / "dead_letters" / "_delta_log"
    last = sorted(log.glob("*.json"))[4]  # the third of dead letters
    for later in sorted(log.glob("*.json"))[5:]:
        later.unlink()
    text = last.read_bytes()
    if kept == "before its watermark":
        last.write_bytes(b"\n".join(line for line in text.splitlines() if b'"txn"' not in line))
    else:
        last.write_bytes(text[: int(len(text) * kept)])
    report = await verify_stores(settings)
    assert kinds(report) == [("torn_log", 1, False)]
    assert (await verify_stores(settings, is_repair=True)).is_well
    check_exact(settings, stored)
    assert (await verify_stores(settings)).findings == ()


async def test_rows_that_postgres_lost_come_back_with_their_status(
    settings: Settings, client: Client
) -> None:
    stored = await publish(client, settings, map(letter, range(50)))
    await drain_log(settings)
    names = [str(row["id"]) for row in failures(settings)]
    for name in names[:10]:
        body = encode_case_event(failure_id=name, at=_NOW, actor="ann", reason="a test")
        await publish(client, settings, [body], "triage.discarded")
    redrive = {"attempt": 1, "redrive_id": ids.redrive_id(names[20], 1)}
    again = letter(99, redrive_of=names[20], **{f"redrive_{k}": v for k, v in [("attempt", 1)]})
    again = json.dumps(json.loads(again) | {"redrive_id": redrive["redrive_id"]}).encode()
    body = encode_case_event(failure_id=names[20], at=_NOW, actor="ann", **redrive)
    await publish(client, settings, [body], "redrive.published")
    stored |= await publish(client, settings, [again])
    await drain_log(settings)
    columns = ["id", "status", "redrive_count", "discarded_at", "resolution_notes", "dlq_sequence"]

    def cases() -> list[dict[str, Any]]:
        return [{name: row[name] for name in columns} for row in failures(settings)]

    before = cases()
    assert {row["status"] for row in before} == {"pending", "discarded", "superseded"}
    assert before[20]["redrive_count"] == 1
    execute(settings, "DELETE FROM failed_events WHERE dlq_sequence IN (3, 4, 30, 62)")
    report = await verify_stores(settings)
    assert kinds(report) == [("missing_in_postgres", 4, False)]
    assert "sequences 3–4, 30, 62" in report.findings[0].what
    assert (await verify_stores(settings, is_repair=True)).is_well
    assert cases() == before


async def test_doubled_rows_of_the_lake_are_found_and_dropped(
    settings: Settings, client: Client
) -> None:
    stored = await drained(settings, client)
    table = Lake(settings.lake).table("dead_letters")
    rows = in_lake(settings)
    (epoch,) = rows["epoch"].unique()
    doubled = pl.concat([rows[5:8], rows[30:31]])
    table.append(doubled, epoch, 61)
    report = await verify_stores(settings)
    assert kinds(report) == [("doubled_in_lake", 4, False)]
    assert "sequences 6–8, 31" in report.findings[0].what
    assert (await verify_stores(settings, is_repair=True)).is_well
    check_exact(settings, stored)


async def test_the_verb_names_each_finding_on_a_line_and_exits_with_1(
    settings: Settings, client: Client
) -> None:
    await drained(settings, client)
    file = files(settings)[0]
    file.unlink()

    async def run(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *DLQ, "verify", *arguments, cwd=ROOT, env=environment(settings, COLUMNS="300"),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    status, output = await run()
    assert status == 1
    assert [line.split()[0] for line in output.splitlines() if "wrong" in line] == ["wrong"] * 2
    assert file.name in output
    status, output = await run("--json", "--repair")
    assert status == 0
    assert all(finding["is_repaired"] for finding in json.loads(output)["findings"])
    status, output = await run()
    assert (status, "are the same" in output) == (0, True)
