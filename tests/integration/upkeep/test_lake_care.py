"""Maintenance of the lake: few sorted files, same watermarks and rows, drains not disturbed."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from nats.aio.client import Client

from sahool_dlq.errors import FencedError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query as sql
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.upkeep import maintain_lake, regroup_history, verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.delta import TableLayout
from sahool_dlq.stores.lake.lake import LAYOUTS, Lake
from sahool_dlq.stores.lake.table import LakeTable
from support.platform_log import check_exact, in_lake, letter, publish, query


async def small_files(settings: Settings, client: Client, count: int = 8) -> dict[int, bytes]:
    """A lake with many files, as many drains leave it."""
    stored = await publish(client, settings, map(letter, range(10 * count)))
    await drain_log(settings.model_copy(update={"drain_batch_messages": 10}))
    return stored


def live(settings: Settings, table: str = "dead_letters") -> list[Path]:
    lake_table = Lake(settings.lake).table(table)
    return [Path(lake_table.path) / file.path for file in lake_table.files]


def epoch(settings: Settings) -> str:
    (row,) = query(settings, "SELECT epoch FROM drain_checkpoints")
    return str(row["epoch"])


def test_opening_a_table_replays_few_commits(settings: Settings) -> None:
    table = Lake(settings.lake).table("case_events")
    for sequence in range(1, 25):
        table.append(table.empty_frame(), "log#0", sequence)
    assert len(list(Path(table.path, "_delta_log").glob("*.checkpoint.parquet"))) == 1
    assert Lake(settings.lake).watermark("case_events", "log#0") == 24


async def test_compaction_keeps_rows_and_watermarks_in_one_sorted_file(
    settings: Settings, client: Client
) -> None:
    stored = await small_files(settings, client)
    before, marks = (
        in_lake(settings),
        Lake(settings.lake).watermark("dead_letters", epoch(settings)),
    )
    assert len(live(settings)) == 8
    report = maintain_lake(settings)
    assert {(t.table, t.files_before, t.files_after) for t in report.tables} >= {
        ("dead_letters", 8, 1)
    }
    (file,) = live(settings)
    rows = pq.read_table(file, partitioning=None)["dlq_sequence"].to_pylist()
    assert rows == sorted(rows)
    assert in_lake(settings).equals(before)
    assert Lake(settings.lake).watermark("dead_letters", epoch(settings)) == marks == 80
    check_exact(settings, stored)
    assert (await verify_stores(settings)).findings == ()
    assert (await drain_log(settings)).drained == 0
    assert {t.files_before - t.files_after for t in maintain_lake(settings).tables} == {0}


async def test_statistics_prune_the_files_that_a_query_does_not_need(
    settings: Settings, client: Client
) -> None:
    await small_files(settings, client)
    first, last = live(settings)[0], live(settings)[-1]
    metadata = pq.ParquetFile(first).metadata.row_group(0)
    columns = {
        metadata.column(i).path_in_schema: metadata.column(i) for i in range(metadata.num_columns)
    }
    assert columns["dlq_sequence"].compression == "ZSTD"
    assert columns["dlq_sequence"].statistics.max == 10
    assert columns["published_at"].has_offset_index
    assert columns["error_message"].statistics is None  # it would outlive an erasure
    last.write_bytes(b"not read")
    rows = pl.scan_delta(f"{settings.lake}/dead_letters").filter(pl.col("dlq_sequence") <= 30)
    assert rows.select("dlq_sequence").collect().height == 30


async def test_drains_go_on_while_the_lake_is_compacted(settings: Settings, client: Client) -> None:
    stored = await small_files(settings, client, 4)
    eager = settings.model_copy(update={"drain_batch_messages": 10})
    is_done = asyncio.Event()
    runs = 0

    async def maintain() -> None:
        nonlocal runs
        while not is_done.is_set():
            await asyncio.to_thread(maintain_lake, settings)
            runs += 1

    maintaining = asyncio.create_task(maintain())
    for number in range(6):
        stored |= await publish(
            client, settings, map(letter, range(1000 + 50 * number, 1050 + 50 * number))
        )
        report = await drain_log(eager)
        assert report.drained == 50
    is_done.set()
    await maintaining
    assert runs >= 2
    check_exact(settings, stored)
    maintain_lake(settings)
    assert len(live(settings)) == 1
    check_exact(settings, stored)
    assert (await verify_stores(settings)).findings == ()


async def test_an_append_from_an_older_snapshot_and_a_compaction_let_each_other_pass(
    settings: Settings, client: Client
) -> None:
    await small_files(settings, client)
    drain, compaction = (Lake(settings.lake).table("dead_letters") for _ in range(2))
    rows = in_lake(settings)[:1].with_columns(dlq_sequence=pl.lit(81, pl.Int64))
    drain.append(rows, epoch(settings), 81)
    files = compaction.files
    merged = pl.concat(compaction.read(file) for file in files)
    compaction.replace(files, [merged], datetime.now(UTC), is_data_change=False)
    drain.append(rows.with_columns(dlq_sequence=pl.lit(82, pl.Int64)), epoch(settings), 82)
    assert in_lake(settings)["dlq_sequence"].to_list() == list(range(1, 83))


async def test_of_two_rewrites_of_the_same_files_the_later_is_refused(
    settings: Settings, client: Client
) -> None:
    await small_files(settings, client)
    one, two = (Lake(settings.lake).table("dead_letters") for _ in range(2))
    for table in (one, two):
        merged = pl.concat(table.read(file) for file in table.files)
        if table is one:
            table.replace(table.files, [merged], datetime.now(UTC), is_data_change=False)
        else:
            with pytest.raises(FencedError):
                table.replace(table.files, [merged], datetime.now(UTC), is_data_change=False)
    assert in_lake(settings).height == 80


async def test_vacuum_deletes_what_left_the_log_7_days_ago_and_nothing_younger(
    settings: Settings, client: Client
) -> None:
    await small_files(settings, client)
    maintain_lake(settings)
    folder = live(settings)[0].parent
    left = set(folder.glob("*.parquet")) - set(live(settings))
    assert len(left) == 8
    orphan = folder / "part-of-a-killed-drain.parquet"
    orphan.write_bytes(b"half")
    old = time.time() - 8 * 24 * 3600
    os.utime(orphan, (old, old))
    maintain_lake(settings)
    assert not orphan.exists()
    assert all(file.exists() for file in left)


async def test_the_retention_forgets_whole_days_and_nothing_brings_them_back(
    settings: Settings, client: Client
) -> None:
    await small_files(settings, client)
    table = Lake(settings.lake).table("dead_letters")
    ago = datetime.now(UTC) - timedelta(days=40)
    old = [file for file in table.files if (file.last_sequence or 0) <= 30]
    aged = [
        table.read(file).with_columns(published_at=pl.lit(ago), dlq_date=pl.lit(ago.date()))
        for file in old
    ]
    table.replace(old, aged, datetime.now(UTC), is_data_change=True)
    with_retention = settings.model_copy(update={"lake_retention_days": 30})
    query_ = "UPDATE failed_events SET published_at = %s WHERE dlq_sequence <= 30 RETURNING id"
    query(settings, query_, ago)
    report = maintain_lake(with_retention)
    assert sum(care.expired_rows for care in report.tables) == 30
    assert in_lake(settings)["dlq_sequence"].to_list() == list(range(31, 81))
    assert (await drain_log(with_retention)).drained == 0
    assert (await verify_stores(with_retention)).findings == ()
    assert maintain_lake(settings).tables[0].expired_rows == 0


async def test_a_column_that_an_older_version_lacked_reads_as_null_in_its_files(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = LAYOUTS["dead_letters"]
    older = {name: dtype for name, dtype in layout.schema.items() if name != "traceparent"}
    stored = await publish(client, settings, map(letter, range(20)))
    append = LakeTable.append

    def as_before(self: Any, frame: pl.DataFrame, *arguments: Any) -> None:
        append(
            self, frame.select(name for name in frame.columns if name != "traceparent"), *arguments
        )

    with monkeypatch.context() as patched:
        patched.setitem(LAYOUTS, "dead_letters", TableLayout(older, statistics=layout.statistics))
        patched.setattr(LakeTable, "append", as_before)
        await drain_log(settings)
        assert "traceparent" not in in_lake(settings).columns
    only_old = sql(settings, "SELECT count(*) AS n, count(traceparent) AS m FROM dead_letters")
    assert only_old.rows() == [(20, 0)]
    stored |= await publish(client, settings, [letter(20, traceparent="00-ab")])
    await drain_log(settings)
    rows = in_lake(settings)
    assert rows["traceparent"].to_list() == [None] * 20 + ["00-ab"]
    maintain_lake(settings)
    assert in_lake(settings).equals(rows)
    check_exact(settings, stored)
    build_all_marts(settings)
    both = sql(settings, "SELECT count(*) AS n, count(traceparent) AS m FROM dead_letters")
    assert both.rows() == [(21, 1)]


def test_a_commit_is_safe_on_the_disk_with_its_file_and_both_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = set(), os.fsync

    def noting(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    table, now = Lake(str(tmp_path)).table("case_events"), datetime.now(UTC)
    row = pl.DataFrame({"epoch": ["e#0"], "dlq_sequence": [1]}).with_columns(
        published_at=pl.lit(now), dlq_date=pl.lit(now.date())
    )
    table.append(pl.concat([table.empty_frame(), row], how="diagonal_relaxed"), "e#0", 1)
    (file,) = live(Settings(home=tmp_path, lake_uri=str(tmp_path)), "case_events")
    log = file.parents[1] / "_delta_log"
    wanted = (file, file.parent, log / f"{1:020}.json", log)
    assert {str(path) for path in wanted} <= synced


async def test_a_lake_below_a_folder_whose_name_a_uri_would_escape(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"lake_uri": str(tmp_path / "my lake é#")})
    stored = await small_files(settings, client, 2)
    stored |= await publish(client, settings, map(letter, range(20, 25)))
    await drain_log(settings)
    maintain_lake(settings)
    regroup_history(settings)
    build_all_marts(settings)
    assert sql(settings, "SELECT COUNT(*) FROM failures").item() == 25
    assert sql(settings, "SELECT SUM(failure_count) FROM mart_failures_by_type").item() == 25
    assert (await verify_stores(settings)).is_well
    check_exact(settings, stored)
