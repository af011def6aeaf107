"""A lake that an older version wrote is read, and extended with today's columns."""

import json
from dataclasses import replace

import polars as pl
import pytest
from nats.aio.client import Client

from sahool_dlq.deadletter.ids import redrive_id
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake import lake
from sahool_dlq.stores.lake.table import LakeTable
from support.platform_log import failures, in_lake, letter, publish

STATUS = "SELECT status, redrive_count, not_before IS NOT NULL AS is_asked_for FROM cases"


async def test_a_table_without_a_column_of_today(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(client, settings, [letter(1)])
    await drain_log(settings)
    failure = str(failures(settings)[0]["id"])
    published = {"failure_id": failure, "attempt": 1, "redrive_id": redrive_id(failure, 1)}
    await publish(client, settings, [json.dumps(published).encode()], "redrive.published")

    today = lake.LAYOUTS["case_events"]
    older = {name: kind for name, kind in today.schema.items() if name != "not_before"}
    with monkeypatch.context() as patch:
        patch.setitem(lake.LAYOUTS, "case_events", replace(today, schema=older))
        patch.setattr(LakeTable, "append", _without_it(LakeTable.append))
        (settings.home / "lake" / "case_events").rename(settings.home / "newer")
        await drain_log(settings)
    assert "not_before" not in in_lake(settings, "case_events").columns
    assert query(settings, STATUS).rows() == [("retried", 0, False)]

    unknown = json.dumps(published).encode()
    asked = published | {"attempt": 2, "redrive_id": redrive_id(failure, 2)}
    await publish(client, settings, [unknown], "redrive.outcome_unknown")
    await publish(client, settings, [json.dumps(asked).encode()], "redrive.requested")
    await drain_log(settings)
    assert in_lake(settings, "case_events")["not_before"].to_list() == [None, None, None]
    assert query(settings, STATUS).rows() == [("pending", 1, True)]


def _without_it(append):
    def older(self, frame: pl.DataFrame, *rest) -> None:
        append(self, frame.drop("not_before", strict=False), *rest)

    return older
