"""Alerts and redrive plans detect a consumer that has stopped."""

from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from sahool_dlq.alerts import observe
from sahool_dlq.alerts.evaluate import AlertsReport, evaluate_alerts
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.redrive import preview_redrive
from sahool_dlq.settings import Settings
from support.platform_log import query
from support.redriving import TIMEOUTS, Service, fail, publish, seen


async def at(settings: Settings, minutes: float) -> AlertsReport:
    return await evaluate_alerts(settings, datetime.now(UTC) + timedelta(minutes=minutes))


def stopped(settings: Settings) -> list[tuple[str, int]]:
    rows = query(settings, "SELECT reason, waiting_count FROM stopped_consumers")
    return [(row["reason"], row["waiting_count"]) for row in rows]


async def test_it_fires_when_the_backlog_grows_and_ends_when_somebody_pulls(
    settings: Settings, client: Client
) -> None:
    address = f"{settings.events_stream}/ndvi"
    title = f"A consumer stopped and its backlog grows: {address}"
    service = Service(settings, TimeoutError("slow"))
    async with service.running():
        await fail(settings, client, service, 2)
        assert title not in (await at(settings, 0)).firing
        assert stopped(settings) == []
    await at(settings, 1)
    [(reason, waiting)] = stopped(settings)
    assert reason.startswith(f"nobody pulls from {address}, the last time at ")
    assert waiting == 0
    assert title not in (await at(settings, 7)).firing  # nothing waits for it
    await publish(client, settings, 5)
    assert title not in (await at(settings, 8)).firing  # it may be starting
    assert title in (await at(settings, 14)).firing
    away = settings.model_copy(update={"nats_url": SecretStr("nats://127.0.0.1:1")})
    assert title in (await at(away, 15)).firing  # without the right to read, nothing is known
    service.error = None
    async with service.running():
        await seen(service, 5)
        await at(settings, 16)
        assert stopped(settings) == []
        ended = await at(settings, 22)
    assert title not in ended.firing
    assert ended.resolved == 1


async def test_unanswered_events_of_a_silent_service_are_no_sign_of_life(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    js, address = client.jetstream(), f"{settings.events_stream}/ndvi"
    service = Service(settings, TimeoutError("slow"))
    async with service.running():
        await fail(settings, client, service, 1)
    await drain_log(settings)
    await publish(client, settings, 1)
    in_hand = await js.pull_subscribe_bind("ndvi", settings.events_stream)
    await in_hand.fetch(1, timeout=20)  # as of a process that died just now
    await at(settings, 0)
    assert stopped(settings) == []  # it published totals in the last minutes
    assert (await preview_redrive(settings, TIMEOUTS)).reached.unreached == ()
    monkeypatch.setattr(observe, "_FRESH", timedelta(0))
    await at(settings, 1)
    said = f"nobody pulls from {address}, and its service no longer publishes totals"
    assert stopped(settings) == [(said, 1)]
    shown = await preview_redrive(settings, TIMEOUTS)
    assert [(each.reason, each.count) for each in shown.reached.unreached] == [(said, 1)]
    assert shown.expected_successes == 0
    service.error = None
    async with service.running():  # the table is older than this: the present state decides
        await publish(client, settings, 1)
        await seen(service, 1)
        assert (await preview_redrive(settings, TIMEOUTS)).reached.unreached == ()


async def test_one_that_is_deleted_is_not_stopped(settings: Settings, client: Client) -> None:
    async with Service(settings).running():
        pass
    await at(settings, 0)
    assert len(stopped(settings)) == 1
    await client.jetstream().delete_consumer(settings.events_stream, "ndvi")
    await at(settings, 1)
    assert stopped(settings) == []
