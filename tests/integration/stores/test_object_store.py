"""The lake in an object store: everything works as in a folder, with conditional puts only.

The store is moto's S3 server. Nothing tells deltalake to rename unsafely or to lock elsewhere.
"""

import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter.envelope.encode import encode_case_event
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query, write_views
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.upkeep import erase_tenant, maintain_lake, verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.copy import copy_lake
from sahool_dlq.stores.lake.files import FileStore
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.torn_log import read_log
from support import ROOT
from support.platform_log import check_exact, letter, publish, run_drain

_NOW = datetime(2026, 2, 3, tzinfo=UTC)

# Appends the rest of 60 rows, ten at a time, while another process does the same.
_WRITER = """
import sys
from datetime import UTC, datetime
import polars as pl
from sahool_dlq.errors import FencedError
from sahool_dlq.stores.lake.lake import Lake

now = datetime.now(UTC)
done = 0
while done < 60:
    table = Lake(sys.argv[1]).table("dead_letters")
    done = table.watermark("race#0") or 0
    rows = pl.DataFrame({"epoch": "race#0", "dlq_sequence": range(done + 1, done + 11)})
    rows = rows.with_columns(published_at=pl.lit(now), dlq_date=pl.lit(now.date()))
    if done < 60:
        try:
            table.append(
                pl.concat([table.empty_frame(), rows], how="diagonal_relaxed"), "race#0", done + 10
            )
            print("committed", flush=True)
        except FencedError:
            print("fenced", flush=True)
"""


# 120 commits of one row each, while another process compacts the files all the time.
_DRAIN = """
import sys
from datetime import UTC, datetime
import polars as pl
from sahool_dlq.stores.lake.lake import Lake

now = datetime.now(UTC)
table = Lake(sys.argv[1]).table("dead_letters")
for sequence in range(1, 121):
    rows = pl.DataFrame({"epoch": ["race#0"], "dlq_sequence": [sequence]})
    rows = rows.with_columns(published_at=pl.lit(now), dlq_date=pl.lit(now.date()))
    rows = pl.concat([table.empty_frame(), rows], how="diagonal_relaxed")
    table.append(rows, "race#0", sequence)
    print("committed", flush=True)
"""
_UPKEEP = """
import sys
from datetime import UTC, datetime
from deltalake import DeltaTable
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.maintenance import care_for

lake = Lake(sys.argv[1])
while lake.watermark("dead_letters", "race#0") < 120:
    care_for(lake, datetime.now(UTC), None)
    print("compacted", flush=True)
    DeltaTable(lake.path("dead_letters")).create_checkpoint()
"""


@pytest.fixture(scope="module")
def s3_port() -> Iterator[int]:
    script = [sys.executable, str(ROOT / "tests" / "support" / "s3_server.py")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield int(server.stdout.readline())
        server.kill()


@pytest.fixture
def bucket(s3_port: int, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket, configured by the usual environment variables."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_port}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    location = {"LocationConstraint": "eu-central-1"}
    bucket = boto3.resource("s3").Bucket(settings.subject_prefix)
    bucket.create(CreateBucketConfiguration=location)
    return bucket


@pytest.fixture
def stored_there(bucket: Any, settings: Settings) -> Settings:
    """The platform with its lake in the bucket."""
    return settings.model_copy(
        update={"lake_uri": f"s3://{bucket.name}/dlq/lake", "drain_batch_messages": 20}
    )


def objects(bucket: Any) -> dict[str, str]:
    return {found.key: found.e_tag for found in bucket.objects.all()}


async def drained(settings: Settings, client: Client, count: int = 60) -> dict[int, bytes]:
    """Three files of dead letters, one of case events."""
    stored = await publish(client, settings, map(letter, range(count)))
    body = encode_case_event(failure_id=str(uuid.uuid4()), at=_NOW, actor="ann")
    await publish(client, settings, [body], "triage.parked")
    await drain_log(settings)
    return stored


async def test_a_drain_is_exact_and_a_rerun_changes_nothing(
    stored_there: Settings, client: Client, bucket: Any
) -> None:
    stored = await publish(client, stored_there, map(letter, range(60)))
    status, output, errors = await run_drain(stored_there, DLQ_DRAIN_BATCH_MESSAGES="20")
    assert (status, json.loads(output or "{}").get("drained")) == (0, 60), errors
    check_exact(stored_there, stored)
    before = objects(bucket)
    assert len([key for key in before if key.endswith(".parquet")]) == 3
    assert (await drain_log(stored_there)).drained == 0
    assert objects(bucket) == before
    stored |= await publish(client, stored_there, map(letter, range(60, 75)))
    assert (await drain_log(stored_there)).drained == 15
    check_exact(stored_there, stored)
    report = await verify_stores(stored_there)
    assert (report.findings, report.files, report.unchecked_files) == ((), 4, 0)


def test_of_two_puts_of_one_log_entry_the_second_is_fenced(bucket: Any) -> None:
    """Each time both have read the table before either writes."""
    lake = f"s3://{bucket.name}/race"
    Lake(lake).table("dead_letters")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, lake], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [writer.communicate(timeout=120)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    said = "".join(outputs).split()
    assert said.count("committed") == 6
    assert "fenced" in said
    rows = Lake(lake).read("dead_letters")
    assert sorted(rows["dlq_sequence"]) == list(range(1, 61))


def test_checkpoints_of_drains_and_upkeep_that_race_corrupt_nothing(bucket: Any) -> None:
    """Both write checkpoints and the pointer as often as they can."""
    lake = f"s3://{bucket.name}/beside"
    Lake(lake).table("dead_letters")
    drain, upkeep = (
        subprocess.Popen(
            [sys.executable, "-c", script, lake], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for script in (_DRAIN, _UPKEEP)
    )
    outputs = [process.communicate(timeout=300)[0].split() for process in (drain, upkeep)]
    assert [drain.returncode, upkeep.returncode] == [0, 0]
    assert outputs[0].count("committed") == 120
    assert outputs[1].count("compacted") >= 5
    store = FileStore(f"{lake}/dead_letters", (), None)
    log = read_log(store)
    assert (log.faults, log.state.marks["race#0"]) == ({}, 120)
    names = store.paths("_delta_log/")
    assert len([name for name in names if ".checkpoint" in name]) >= 6
    assert sorted(Lake(lake).read("dead_letters")["dlq_sequence"]) == list(range(1, 121))
    for name in names:  # whichever pointer won, and where it is the oldest of all
        if name.endswith(".checkpoint.parquet"):
            version = int(name.split("/")[1][:20])
            store.put("_delta_log/_last_checkpoint", b'{"version":%d,"size":1}' % version)
            assert read_log(store).faults == {}
            assert Lake(lake).watermark("dead_letters", "race#0") == 120


async def test_a_torn_log_of_a_bucket_is_repaired_too(
    stored_there: Settings, client: Client, bucket: Any
) -> None:
    stored = await drained(stored_there, client)
    log = "dlq/lake/dead_letters/_delta_log"
    for number in range(1, 61):
        await client.jetstream().delete_msg(stored_there.dlq_stream, number)
    bucket.Object(f"{log}/{3:020}.json").delete()
    bucket.Object(f"{log}/_last_checkpoint").put(Body=b'{"version": 99999, "size": 3}')
    found = (await verify_stores(stored_there)).findings
    assert {finding.where for finding in found} == {
        f"dead_letters/_delta_log/{3:020}.json",
        "dead_letters/_delta_log/_last_checkpoint",
    }
    report = await verify_stores(stored_there, is_repair=True)
    assert report.is_well, report.findings
    check_exact(stored_there, stored)
    copied = copy_lake(Lake(stored_there.lake), Lake(f"s3://{bucket.name}/copy"), _NOW)
    assert {table.table for table in copied} >= {"dead_letters", "case_events"}
    copy = stored_there.model_copy(update={"lake_uri": f"s3://{bucket.name}/copy"})
    check_exact(copy, stored)
    assert (await verify_stores(copy)).findings == ()


async def test_damaged_and_missing_objects_are_named_and_rebuilt(
    stored_there: Settings, client: Client, bucket: Any
) -> None:
    stored = await drained(stored_there, client)
    flipped, deleted, *_ = Lake(stored_there.lake).table("dead_letters").files
    thing = bucket.Object(f"dlq/lake/dead_letters/{flipped.path}")
    whole = thing.get()["Body"].read()
    thing.put(Body=whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    bucket.Object(f"dlq/lake/dead_letters/{deleted.path}").delete()
    found = (await verify_stores(stored_there)).findings
    damaged = {f.where: f.what for f in found if f.kind == "damaged_file"}
    assert set(damaged) == {f"dead_letters/{file.path}" for file in (flipped, deleted)}
    assert "it is missing" in damaged[f"dead_letters/{deleted.path}"]
    report = await verify_stores(stored_there, is_repair=True)
    assert report.is_well, report.findings
    check_exact(stored_there, stored)


async def test_upkeep_marts_and_sql(stored_there: Settings, client: Client, bucket: Any) -> None:
    stored = await drained(stored_there, client)
    report = maintain_lake(stored_there)
    assert {(t.table, t.files_before, t.files_after) for t in report.tables} >= {
        ("dead_letters", 3, 1)
    }
    check_exact(stored_there, stored)
    assert (await verify_stores(stored_there)).findings == ()
    for is_first in (True, False):  # the second adds what came since: nothing
        built = build_all_marts(stored_there)
        assert (built.is_rebuilt, built.rows["failures_by_type"]) == (is_first, 1)
    counted = query(stored_there, "SELECT service, count(*) FROM failures GROUP BY 1")
    assert counted.rows() == [("satellite-service", 60)]
    late = "SELECT max(dlq_sequence) FROM dead_letters WHERE published_at > now() - INTERVAL 1 DAY"
    assert query(stored_there, late).item() == 60
    assert query(stored_there, "SELECT count(*) FROM case_events").item() == 1
    assert query(stored_there, "SELECT count(*) FROM service_totals").item() == 0
    assert query(stored_there, "SELECT * FROM mart_failures_by_type").height == 1
    assert write_views(stored_there) is None
    assert not [key for key in objects(bucket) if key.endswith("views.sql")]


async def test_an_erasure_leaves_nothing_of_a_tenant_in_any_object(
    stored_there: Settings, client: Client, bucket: Any
) -> None:
    tenant = f"acme-{uuid.uuid4()}"
    for numbers in (range(0, 20, 2), range(20, 40, 2)):
        letters = [letter(n, tenant_id=tenant, error_message=tenant) for n in numbers]
        await publish(client, stored_there, letters)
        await drained(stored_there, client, 0)
    kept = await publish(client, stored_there, map(letter, range(1, 40, 2)))
    await drain_log(stored_there)
    build_all_marts(stored_there)
    maintain_lake(stored_there)
    assert len(naming(bucket, tenant)) > 3
    await erase_tenant(stored_there, tenant, actor="ann", reason="they left")
    assert naming(bucket, tenant) == []
    check_exact(stored_there, kept)
    assert (await verify_stores(stored_there)).findings == ()


def naming(bucket: Any, text: str) -> list[str]:
    """The objects that contain a text."""
    found = []
    for item in bucket.objects.all():
        content = item.get()["Body"].read()
        if content.startswith(b"PAR1"):
            content += str(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
        if text.encode() in content:
            found.append(item.key)
    return found
