"""`dlq erase` deletes everything of a tenant, nothing of others, and it stays deleted."""

from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.embedded import NatsServer
from sahool_dlq.erasure import erase as steps
from sahool_dlq.erasure.erase import preview
from sahool_dlq.errors import FencedError
from sahool_dlq.jobs import upkeep
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from support.erasing import NOW, World, check_erased, dying
from support.platform_log import (
    InjectedError,
    check_exact,
    in_lake,
    letter,
    query,
)


async def test_nothing_is_left_of_a_tenant_and_all_of_the_others(
    world: World, nats_server: NatsServer
) -> None:
    settings = world.settings
    before = world.places(nats_server)
    assert {"failed_events", "failed_payloads", "redrive_batches", "alert_messages"} <= before
    assert any("mart_" in place for place in before)
    assert any(place.startswith("marts/") and "_delta_log" in place for place in before)
    assert any(place.endswith(".blk") for place in before)
    seen = await preview(settings, world.tenant)
    assert world.places(nats_server) == before
    report = await world.erase()
    for told in (seen, report):
        assert (told.stream_dead_letters, told.stream_case_events) == (10, 1)
        assert (told.lake_dead_letters, told.lake_case_events, told.payloads) == (7, 1, 7)
        assert told.failures == {"pending": 6, "parked": 1}
        assert (told.object_bodies, told.redrives, told.batches) == (1, 2, 1)
        assert (told.alert_messages, told.audit_mentions, told.left) == (2, 0, None)
    await check_erased(world, nats_server)
    assert (await preview(settings, world.tenant)).is_empty
    [batch] = query(settings, "SELECT selection FROM redrive_batches")
    assert batch["selection"] == {"tenant_id": "[erased]"}
    [said] = query(settings, "SELECT * FROM audit_log")
    assert query(settings, "SELECT title, body FROM alert_messages ORDER BY id DESC LIMIT 1") == [
        {"title": "others", "body": "others"}
    ]
    assert (said["actor"], said["action"], said["reason"]) == ("ann", "erase", "they left")
    assert said["detail"]["failures"] == {"pending": 6, "parked": 1}
    [erasure] = query(settings, "SELECT * FROM erasures")
    assert erasure["tenant_hash"] == said["detail"]["tenant_hash"] == report.tenant_hash
    assert erasure["finished_at"]
    assert not build_all_marts(settings).is_rebuilt  # what was drained since
    counted = Lake(settings.lake).read("marts/tenants_daily")
    build_all_marts(settings, is_rebuild=True)
    assert Lake(settings.lake).read("marts/tenants_daily").equals(counted)


async def test_what_the_tenant_fails_on_later_is_stored(world: World) -> None:
    await world.erase()
    later = await world.publish(world.letter(70), is_kept=True)
    assert (await drain_log(world.settings)).drained == 3 + 1
    check_exact(world.settings, world.kept)
    assert set(later) <= set(in_lake(world.settings)["dlq_sequence"])
    assert (await verify_stores(world.settings)).findings == ()


STEPS: list[tuple[Any, str, int]] = [
    (steps, "remember", 1),
    (steps, "erase_objects", 1),
    (steps, "copy_to_lake", 1),
    (steps, "erase_rows", 1),
    (steps, "erase_rows", 2),
    (steps, "erase_marts", 1),
    (steps, "delete_rows", 1),
    (upkeep, "build_all_marts", 1),
    (steps, "erase_messages", 1),
]


async def test_an_erasure_that_dies_after_any_step_brings_nothing_back_and_a_rerun_finishes_it(
    world: World, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run dies one step later than the run before; drains and repairs run in between."""
    left = world.places(nats_server)
    for owner, name, call in STEPS:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, dying(getattr(owner, name), call))
            with pytest.raises(InjectedError):
                await world.erase()
        report = await drain_log(world.settings)
        assert (report.gaps, report.notes) == (0, ())
        found = (await verify_stores(world.settings)).findings
        assert {finding.kind for finding in found} <= {"erased"}
        if name in ("erase_messages", "delete_rows"):
            await verify_stores(world.settings, is_repair=True)
        now = world.places(nats_server)
        assert {place for place in now if place.endswith(".blk")} <= left
        left = now
        assert set(in_lake(world.settings)["dlq_sequence"]) & {*world.kept} == {*world.kept}
    assert (await preview(world.settings, world.tenant)).is_unfinished
    await world.erase()
    await check_erased(world, nats_server)
    assert len(query(world.settings, "SELECT FROM erasures WHERE finished_at IS NOT NULL")) == 1


async def test_a_writer_with_an_older_snapshot_of_the_lake_brings_nothing_back(
    settings: Settings, client: Client
) -> None:
    """No rows of these tables are erased, but their files in use would be deleted."""
    world = World(settings, client)
    await world.publish(letter(1), is_kept=True)
    await drain_log(world.settings)
    await world.publish(world.letter(2))
    drain, compaction = (Lake(settings.lake).table("dead_letters") for _ in range(2))
    await world.erase()
    [epoch] = query(settings, "SELECT epoch FROM drain_checkpoints")
    with pytest.raises(FencedError):
        drain.append(drain.empty_frame(), epoch["epoch"], 2)
    rows = map(compaction.read, compaction.files)
    with pytest.raises(FencedError):
        compaction.replace(compaction.files, rows, NOW, is_data_change=False, is_compaction=True)
    await drain_log(world.settings)
    check_exact(world.settings, world.kept)
