"""Analysis and action events, and the publisher that a whole service shares, on a real NATS."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import nats
import pytest

from sahool_dlq.embedded import NatsServer
from sahool_dlq.events import (
    AnalysisEvent,
    ConsumerContext,
    NATSConfig,
    NATSPublisher,
    ProcessingResult,
    get_publisher,
    publish_analysis_completed,
    publish_analysis_completed_sync,
)
from support.consumer_log import Log, opened, running, until

# What older consumers of these events read.
KEYS = {
    *("event_id", "event_type", "source_service", "timestamp", "tenant_id", "field_id"),
    *("farmer_id", "data", "action_template", "notification_priority", "notification_channels"),
}
NDVI = {
    "event_type": "ndvi.computed",
    "source_service": "satellite-service",
    "field_id": "field-1",
    "data": {"mean": 0.71},
}


@pytest.fixture
def server(
    nats_server_factory: Callable[..., NatsServer], monkeypatch: pytest.MonkeyPatch
) -> NatsServer:
    """A separate server, because a shared publisher uses the default names."""
    server = nats_server_factory()
    monkeypatch.setenv("NATS_URL", f"nats://127.0.0.1:1,{server.url}")
    return server


async def events(server: NatsServer) -> list[tuple[str, dict[str, Any]]]:
    """Subject and value of every event on the server."""
    async with await nats.connect(server.url) as client:
        js = client.jetstream()
        count = (await js.stream_info("SAHOOL_EVENTS")).state.messages
        stored = [await js.get_msg("SAHOOL_EVENTS", number + 1) for number in range(count)]
    return [(msg.subject or "", json.loads(msg.data or b"")) for msg in stored]


async def test_an_analysis_and_an_action_reach_a_consumer(nats_url: str) -> None:
    received: list[tuple[str, dict[str, Any]]] = []

    async def handle(context: ConsumerContext) -> ProcessingResult:
        received.append((context.subject, json.loads(context.data)))
        return ProcessingResult.SUCCESS

    async with opened(nats_url) as log:
        await _publish_both(log)
        async with running(log.config(), handle, f"{log.prefix}.analysis.*"):
            await log.settled()
        async with running(log.config(consumer_name="a"), handle, f"{log.prefix}.actions.>"):
            await log.settled("a")
        (subject, analysis), (action_subject, action) = received
        assert subject == f"{log.prefix}.analysis.ndvi_computed"
        assert action_subject == f"{log.prefix}.actions.irrigation.start"
    assert set(analysis) == set(action) == KEYS
    assert analysis["data"] == {"mean": None, "at": "2026-01-02T00:00:00Z"}
    assert datetime.fromisoformat(analysis["timestamp"]).utcoffset() is not None
    assert (analysis["notification_priority"], analysis["notification_channels"]) == (
        "medium",
        ["in_app"],
    )
    assert action["event_type"] == "action.irrigation.start"
    assert action["action_template"] == {"urgency": "high"}
    assert action["notification_priority"] == "high"
    assert action["notification_channels"] == ["push", "in_app"]


async def _publish_both(log: Log) -> None:
    publisher = NATSPublisher(
        NATSConfig(servers=[log.url], stream_name=log.names.events, subject_prefix=log.prefix)
    )
    assert await publisher.connect()
    data = {"mean": float("nan"), "at": datetime(2026, 1, 2, tzinfo=UTC)}
    event = AnalysisEvent(event_type="ndvi.computed", source_service="satellite", data=data)
    assert await publisher.publish_analysis_event(event)
    assert await publisher.publish_action_event(
        "irrigation.start", "field-1", {"urgency": "high"}, "irrigation-smart"
    )
    await publisher.close()


async def test_all_of_a_service_shares_one_connection(server: NatsServer) -> None:
    publishers = await asyncio.gather(*(get_publisher() for _ in range(5)))
    assert len(set(map(id, publishers))) == 1
    assert publishers[0].is_connected
    assert await publish_analysis_completed(**NDVI, priority="high", tenant_id="t")
    [(subject, event)] = await events(server)
    assert subject == "sahool.analysis.ndvi_computed"
    assert event | NDVI == event
    assert (event["notification_priority"], event["tenant_id"]) == ("high", "t")
    await publishers[0].close()
    assert not publishers[0].is_connected
    assert await publish_analysis_completed(**NDVI)  # connects again
    await (await get_publisher()).close()


def test_code_without_a_loop_publishes_and_leaves_nothing_open(server: NatsServer) -> None:
    assert publish_analysis_completed_sync(**NDVI)
    assert publish_analysis_completed_sync(**NDVI)
    assert len(asyncio.run(events(server))) == 2


async def test_inside_a_loop_the_sync_call_is_scheduled(server: NatsServer) -> None:
    assert publish_analysis_completed_sync(**NDVI)
    await until(lambda: _has_events(server))
    assert len(await events(server)) == 1
    await (await get_publisher()).close()


async def _has_events(server: NatsServer) -> bool:
    try:
        return bool(await events(server))
    except nats.js.errors.NotFoundError:
        return False


async def test_a_connection_that_the_server_ended_is_replaced(server: NatsServer) -> None:
    publisher = NATSPublisher()
    assert await publisher.connect()
    assert publisher._connection is not None
    await publisher._connection.close()  # as nats-py does after most errors from the server
    assert not publisher.is_connected
    assert await publisher.publish("sahool.analysis.x", b"{}")
    await publisher.close()
