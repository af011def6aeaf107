"""`dlq export`: masked for readers of failures, raw for those with the right, always audited."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from nats.aio.client import Client

from sahool_dlq.reproduce import export
from sahool_dlq.settings import Settings
from support.platform_log import query
from support.reproducing import fail_on
from support.running import dlq, files_in

BODY = b'{"event_id": "=1+1", "password": "hunter2"}'


async def test_a_group_in_each_format_masked_and_whole(
    settings: Settings, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_FETCHED", 2)
    ids = await fail_on(settings, client, [BODY] * 5, {"Authorization": "Bearer abc"})
    [row] = query(settings, "SELECT DISTINCT group_id FROM failed_events")
    group = ("--group", row["group_id"][:6])
    done = await dlq(settings, "export", *group)
    assert done.exit_code == 0, done.stderr
    assert "5 failures were written." in done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(each["failure_id"] for each in rows) == sorted(ids)
    assert {each["body"]["event_id"] for each in rows} == {"=1+1"}
    done = await dlq(settings, "export", *group, "--format", "csv", "--limit", "2")
    assert "There may be more: --limit." in done.stderr
    assert done.stdout.count('"\'=1+1"') == 2
    folder = tmp_path / "out"
    folder.mkdir()
    file = folder / "group.parquet"
    done = await dlq(settings, "export", *group, "--format", "parquet", "-o", str(file), "--json")
    assert json.loads(done.stdout) == {"failures": 5, "missing": 0, "limit_reached": False}
    table = pq.read_table(file)
    assert table["service"].to_pylist() == ["ndvi"] * 5
    for text in (done.stdout, str(table.to_pylist()), str(rows)):
        assert "hunter2" not in text
        assert "abc" not in text
    assert files_in(folder) == ["group.parquet"]
    assert query(settings, "SELECT * FROM audit_log") == []


async def test_raw_events_are_told_to_the_audit_part_by_part_and_before_they_are_read(
    settings: Settings, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_PLACES", 2)
    ids = await fail_on(settings, client, [BODY] * 4 + [b"\xff\x00"], {"Nats-Expected-Stream": ""})
    await client.jetstream().delete_msg(settings.events_stream, 4)
    await client.jetstream().delete_msg(settings.dlq_stream, 4)
    done = await dlq(
        *(settings, "export", "--service", "ndvi", "--raw", "--format", "parquet"),
        *("--by", "ana", "--reason", "token=hunter2"),
    )
    assert done.exit_code == 0, done.stderr
    assert "Of 1 the event is gone" in done.stderr
    table = pq.read_table(io.BytesIO(done.stdout_bytes))
    rows = {row["failure_id"]: row for row in table.to_pylist()}
    bodies = [rows[failure]["body"] for failure in ids]
    assert bodies == [BODY, BODY, BODY, None, b"\xff\x00"]
    assert rows[ids[3]]["missing"] == "the stream no longer has its dead letter"
    audit = query(settings, "SELECT * FROM audit_log ORDER BY id")
    assert [len(row["failure_ids"]) for row in audit] == [2, 2, 1]
    assert {str(each) for row in audit for each in row["failure_ids"]} == set(ids)
    assert len({row["batch_id"] for row in audit}) == 1
    for row in audit:
        assert (row["action"], row["actor"]) == ("payload.exported", "ana")
        assert row["reason"] == "token=[redacted:secret]"
        assert row["detail"]["selection"] == {"service": "ndvi"}


async def test_what_cannot_be_written_leaves_no_half_a_file_and_says_so(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    await fail_on(settings, client, [BODY], {})
    folder = tmp_path / "out"
    folder.mkdir()
    kept = folder / "kept.jsonl"
    kept.write_text("before")
    done = await dlq(settings, "export", "--service", "ndvi", "--where", "no = 1", "-o", str(kept))
    assert done.exit_code == 1
    assert kept.read_text() == "before"
    done = await dlq(settings, "export", "--service", "ndvi", "-o", str(tmp_path / "no" / "file"))
    assert "was not written: No such file or directory." in done.stderr
    assert files_in(folder) == ["kept.jsonl"]
    assert (await dlq(settings, "export")).exit_code == 1
    assert (await dlq(settings, "export", "--service", "ndvi", "--json")).exit_code == 2
