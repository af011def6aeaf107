"""Hundreds of malformed messages: each becomes one row in each sink, and none stops the drain."""

import json

import polars as pl
import pytest
from hypothesis import strategies as st
from nats.aio.client import Client

from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from support import wild
from support.platform_log import failures, in_lake, last_sequence, letter, publish, publish_raw
from support.seed import SEED

SUBJECTS = ("dlq.x", "dlq.x", "dlq.x", "triage.resolved", "triage.no.such", "redrive.published")


async def test_wild_messages_are_a_row_each_in_both_sinks(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"DLQ_TEST_SEED={SEED}")
    monkeypatch.setattr("sahool_dlq.jetstream.pull._GRACE_SECONDS", 0.5)
    monkeypatch.setattr("sahool_dlq.drain.run._PAUSES_SECONDS", (0.1, 0.1))
    bodies = wild.LETTERS | wild.CASE_EVENTS
    messages = st.tuples(st.sampled_from(SUBJECTS), wild.HEADER_BLOCKS, bodies)
    good: dict[int, bytes] = {}
    letters = events = 0
    for number, (subject, headers, body) in enumerate(wild.some(messages, 300, SEED)):
        if number % 10 == 0:
            good |= await publish(client, settings, [letter(number)])
        where = f"{settings.subject_prefix}.{subject}".encode()
        publish_raw(settings, where, headers, body)
        letters += subject.startswith("dlq.")
        events += not subject.startswith("dlq.")
    last = await last_sequence(client, settings)
    assert letters + events + len(good) == last
    small = settings.model_copy(update={"drain_batch_messages": 40})
    report = await drain_log(small)
    assert (report.drained, report.last_sequence, report.gaps) == (last, last, 0)
    lake, news, rows = in_lake(settings), in_lake(settings, "case_events"), failures(settings)
    assert (lake.height, news.height) == (letters + len(good), events)
    assert sorted([*lake["dlq_sequence"], *news["dlq_sequence"]]) == list(range(1, last + 1))
    assert sorted(str(row["id"]) for row in rows) == sorted(lake["failure_id"].unique())
    assert sum(row["seen_count"] for row in rows) == lake.height
    told = {row["dlq_sequence"]: row for row in rows}
    for sequence, body in good.items():
        assert told[sequence]["parse_error"] is None
        assert told[sequence]["original_data"] == json.loads(body)["original_data"]
    refused = [row for row in rows if "PostgreSQL refused" in (row["parse_error"] or "")]
    assert refused == []
    assert lake.filter(pl.col("parse_error").is_null()).height > len(good)
    assert (await verify_stores(settings)).findings == ()
    assert (await drain_log(settings)).drained == 0
