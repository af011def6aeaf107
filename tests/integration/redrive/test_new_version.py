"""A version brings a bug, and a later version repairs it or not; redrives follow by themselves."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from sahool_dlq.cli import _command
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.schedule import explain_versions, redrive_scheduled
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.settings import Settings
from support.platform_log import environment, execute, query
from support.redriving import Service, event_ids, fail, quick, rows

BUG = KeyError("price")


@contextlib.asynccontextmanager
async def deployed(client: Client, service: Service) -> AsyncIterator[Service]:
    """The service, once its totals contain the version in which it runs."""
    async with service.running():
        subject = service.settings.subjects.total(service.name, service.name)
        async with asyncio.timeout(20):
            while await _said(client, service.settings, subject) != service.version:
                await asyncio.sleep(0.05)
        yield service


async def _said(client: Client, settings: Settings, subject: str) -> str | None:
    try:
        message = await client.jetstream().get_last_msg(settings.totals_stream, subject)
    except NotFoundError:
        return None
    version: str = json.loads(message.data or b"{}")["consumer_version"]
    return version


async def scheduled(settings: Settings) -> list[RedriveReport]:
    return await redrive_scheduled(settings, requested_by="the schedule", reason="scheduled")


def deploys(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, list[str]]]:
    """The output of `dlq deploys`, by version."""
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    printed = CliRunner().invoke(_command(), ["deploys", "--json"], catch_exceptions=False).stdout
    told = ("brought", "cured", "brought_back")
    return {
        row["version"]: {name: row[name] for name in told} for row in json.loads(printed)["deploys"]
    }


async def test_a_version_that_mends_a_bug_cures_its_group(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(settings)
    # The bug comes with 2.3.
    async with deployed(client, Service(settings, BUG, version="2.3")) as broken:
        await fail(settings, client, broken, 14)
        assert await scheduled(settings) == []  # a KeyError does not pass by itself
        [(group,)] = rows(settings, "SELECT DISTINCT group_id FROM failed_events")
        assert deploys(settings, monkeypatch) == {
            "2.3": {"brought": [group], "cured": [], "brought_back": []}
        }
        assert explain_versions(settings) == []  # nothing waits that did not fail in it

    # It comes up as 2.4: one event is tried, and as that succeeds the others follow.
    async with deployed(client, Service(settings, version="2.4")) as mended:
        await drain_log(settings)
        [(standing, verdict)] = explain_versions(settings)
        assert (standing.pending, standing.version) == (14, "2.4")
        assert (verdict.kind, verdict.why) == ("canary", "it has never failed in 2.4: one canary")
        canary, rest = await scheduled(settings)
        assert (canary.outcomes, rest.outcomes) == ({"succeeded": 1}, {"succeeded": 13})
        assert len(event_ids(mended)) == 14
    assert query(settings, "SELECT DISTINCT status, consumer_version FROM failed_events") == [
        {"status": "resolved", "consumer_version": "2.3"}
    ]
    assert query(settings, "SELECT DISTINCT consumer_version FROM redrives") == [
        {"consumer_version": "2.4"}
    ]
    assert deploys(settings, monkeypatch) == {
        "2.3": {"brought": [group], "cured": [], "brought_back": []},
        "2.4": {"brought": [], "cured": [group], "brought_back": []},
    }

    # 2.5 brings it back.
    async with deployed(client, Service(settings, BUG, version="2.5")) as broken:
        await fail(settings, client, broken, 1)
        await drain_log(settings)
        assert await scheduled(settings) == []
    assert deploys(settings, monkeypatch)["2.5"] == {
        "brought": [], "cured": [], "brought_back": [group]
    }  # fmt: skip


async def test_a_version_that_mends_nothing_gets_one_redrive(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    async with deployed(client, Service(settings, BUG, version="2.3")) as broken:
        await fail(settings, client, broken, 5)
    async with deployed(client, Service(settings, BUG, version="2.4")) as still_broken:
        [canary] = await scheduled(settings)
        assert (canary.outcomes, canary.state) == ({"failed_again": 1}, "done")
        for _ in range(2):
            assert await scheduled(settings) == []
        assert len(still_broken.seen) == 1
        [(_, verdict)] = explain_versions(settings)
        assert verdict.why == "2.4 does not repair it: it also failed there"
        # That is in the log: a database that was lost forgets nothing of it.
        execute(
            settings,
            "TRUNCATE failed_events, failed_payloads, drain_checkpoints, drain_epochs,"
            " drain_anchors, redrives, redrive_batches, service_totals CASCADE",
        )
        assert await scheduled(settings) == []
        assert explain_versions(settings)[0][1] == verdict
    async with deployed(client, Service(settings, BUG, version="2.5")) as still_broken:
        assert len(await scheduled(settings)) == 1
        assert await scheduled(settings) == []
        assert len(still_broken.seen) == 1


async def test_no_canary_while_two_versions_run(settings: Settings, client: Client) -> None:
    settings = quick(settings)
    async with deployed(client, Service(settings, BUG, version="2.3")) as old:
        await fail(settings, client, old, 2)
        await drain_log(settings)
        async with deployed(client, Service(settings, version="2.4")) as new:
            # Both publish to one subject; a drain sees the latest, so until it has seen both.
            async with asyncio.timeout(20):
                while rows(
                    settings,
                    "SELECT count(*) FROM service_totals t WHERE consumer_version = '2.3' AND"
                    " published_at > (SELECT max(started_at) FROM service_totals"
                    " WHERE consumer_version = '2.4')",
                ) == [(0,)]:
                    await drain_log(settings)
            assert await scheduled(settings) == []
            assert (old.seen, new.seen) == ([], [])
