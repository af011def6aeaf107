"""Edits of headers, by JSON Patch and by a Python function, on real servers."""

import json
from pathlib import Path

import pytest
from nats.aio.client import Client

from sahool_dlq.errors import RedriveError
from sahool_dlq.jobs.batches import show_batch
from sahool_dlq.jobs.decisions import audit_trail
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import plan_redrive, preview_redrive, run_redrive
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.edit.patch import Edit
from sahool_dlq.redrive.edit.preview import ChangeCount
from sahool_dlq.settings import Settings
from support.platform_log import query
from support.redriving import TIMEOUTS, Service, dead_letters, quick

FUNCTION = """
def units(body, headers):
    if body["unit"] == "acre":
        body["unit"] = "ha"
        headers["X-Unit"] = "ha"
    if body["event_id"] == "e2":
        raise ValueError("what is this")


def gently(body, headers):
    if body["event_id"] != "e2":
        units(body, headers)
"""


async def failed(settings: Settings, client: Client, service: Service) -> None:
    """Three events, of which the last has another unit."""
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    for number, unit in enumerate(("acre", "acre", "m2")):
        body = {"event_id": f"e{number}", "unit": unit, "area": 1.1}
        await client.jetstream().publish(subject, json.dumps(body).encode())
    await dead_letters(client, settings, 3)
    await drain_log(settings)
    service.error = None
    service.seen.clear()


async def test_a_json_patch_and_headers_change_the_events_and_the_plan_counts_it(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    operations = [{"op": "replace", "path": "/unit", "value": "ha"}]
    patch = Edit(operations, {"X-Unit": "ha", "X-Token": "t0ken"}).stored()
    async with Service(settings, TimeoutError("slow")).running() as service:
        await failed(settings, client, service)
        shown = await preview_redrive(settings, TIMEOUTS, patch=patch)
        assert shown.edits is not None
        assert ChangeCount("unit", '"acre"', '"ha"', 2) in shown.edits.changes
        assert ChangeCount("unit", '"m2"', '"ha"', 1) in shown.edits.changes
        assert ChangeCount("headers.X-Unit", None, '"ha"', 3) in shown.edits.changes
        planned = await plan_redrive(settings, TIMEOUTS, Order("manual", "ann", "why", patch=patch))
        assert planned is not None
        report = await run_redrive(settings, planned[0].id)
    assert report.outcomes == {"succeeded": 3}
    assert all(b'"area":1.1' in c.data and b'"unit":"ha"' in c.data for c in service.seen)
    assert {context.headers["X-Unit"] for context in service.seen} == {"ha"}
    assert {context.headers["X-Token"] for context in service.seen} == {"t0ken"}
    [row] = audit_trail(settings, about=planned[0].id, action="redrive.planned")
    assert row["detail"]["patch"][0]["body"] == operations
    assert "t0ken" not in json.dumps([row, shown.as_dict(), planned[0].as_dict()], default=str)
    assert show_batch(settings, planned[0].id).as_dict()["patch"] == [
        "/unit", "headers.X-Token", "headers.X-Unit"
    ]  # fmt: skip


async def test_a_function_that_fails_for_one_event_publishes_none_and_its_results_are_stored(
    settings: Settings, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(settings)
    module = f"mend_{settings.subject_prefix}"
    file = tmp_path / f"{module}.py"
    file.write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    async with Service(settings, TimeoutError("slow")).running() as service:
        await failed(settings, client, service)
        order = Order("manual", "ann", "why", patch=Edit(function=f"{module}:units").stored())
        with pytest.raises(RedriveError, match=r"does not fit 1 of 3 events.*what is this"):
            await plan_redrive(settings, TIMEOUTS, order)
        assert query(settings, "SELECT count(*) AS n FROM redrive_batches") == [{"n": 0}]
        order = Order("manual", "ann", "why", patch=Edit(function=f"{module}:gently").stored())
        planned = await plan_redrive(settings, TIMEOUTS, order)
        assert planned is not None
        assert planned[1].edits is not None
        assert (planned[1].edits.events, planned[1].edits.unchanged) == (3, 1)
        file.unlink()  # the batch does not need it
        report = await run_redrive(settings, planned[0].id)
    assert report.outcomes == {"succeeded": 3}
    units = {json.loads(c.data)["event_id"]: json.loads(c.data)["unit"] for c in service.seen}
    assert units == {"e0": "ha", "e1": "ha", "e2": "m2"}
    [row] = audit_trail(settings, about=planned[0].id, action="redrive.planned")
    assert row["detail"]["patch"] == [{"function": f"{module}:gently"}]
