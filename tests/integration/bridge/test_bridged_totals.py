"""Totals of consumers without our library count each acknowledgement and failure once."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.bridge.totals import latest_totals, publish_totals
from sahool_dlq.embedded import NatsServer
from sahool_dlq.jetstream.ack_metrics import ack_subject
from sahool_dlq.jobs.adoption import adopt
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query as in_lake
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.redrive.choose.schedule import handled_per_second
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from support.foreign_consumers import Platform, opened, refuse
from support.platform_log import query

pytestmark = pytest.mark.xdist_group("bridged_totals")  # they share a NATS of their own

COUNTED = ("handled", "succeeded", "retried", "dead_lettered")


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server."""
    with NatsServer(tmp_path_factory.mktemp("totals"), has_login=False) as server:
        yield server.url


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with opened(settings) as platform:
        yield platform


async def consumer(platform: Platform, name: str, *, stream: str | None = None) -> None:
    """A foreign consumer that is adopted before it receives anything."""
    where = stream or platform.settings.events_stream
    config = ConsumerConfig(
        durable_name=name, ack_policy=AckPolicy.EXPLICIT, max_deliver=2, ack_wait=5
    )
    await platform.js.add_consumer(where, config)
    await adopt(platform.settings, f"{where}/{name}", actor="me", reason="test")


async def work(platform: Platform, name: str, first: int, last: int) -> None:
    """Handle events `first` to `last`: terminate one, and refuse one until it is given up."""
    await platform.publish(*({"n": number} for number in range(first, last + 1)))
    answers = dict.fromkeys(range(first, last + 1), b"+ACK")
    answers |= {first: b"+TERM no", first + 1: b"-NAK"}
    await platform.fail(name, answers)


async def counted(platform: Platform, name: str) -> tuple[int, ...]:
    latest = await latest_totals(platform.client, platform.settings)
    total = latest.bridged[platform.settings.events_stream, name]
    return tuple(getattr(total, each) for each in COUNTED)


async def test_totals_of_a_foreign_service_are_in_both_sinks_and_its_failure_rate_in_the_marts(
    platform: Platform,
) -> None:
    settings = platform.settings.model_copy(update={"bridge_services": {"billing-*": "billing"}})
    platform.settings = settings
    await consumer(platform, "billing-v2")
    await drain_log(settings)  # a first sample, of zero
    await work(platform, "billing-v2", 1, 10)
    assert (await bridge_pending(settings))[0] == {"bridged": 2}
    assert (await bridge_pending(settings))[0] == {}  # nothing new
    await drain_log(settings)
    build_all_marts(settings)
    sample = query(
        settings,
        "SELECT DISTINCT service, consumer, handled, succeeded, retried, dead_lettered"
        " FROM service_totals WHERE handled > 0",
    )
    assert [tuple(row.values()) for row in sample] == [("billing", "billing-v2", 10, 8, 1, 2)]
    sql = (
        "SELECT has_totals, handled_count_24h, succeeded_count_24h, dead_lettered_count_24h,"
        " failure_rate_24h, failure_count FROM {} WHERE service = 'billing'"
    )
    expected = (True, 10, 8, 2, 0.2, 2)
    assert in_lake(settings, sql.format("mart_service_health")).rows() == [expected]
    [in_postgres] = query(settings, sql.format("mart_service_health"))
    assert tuple(in_postgres.values()) == expected
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        assert handled_per_second(connection)["billing"] > 0


async def test_the_time_to_acknowledge_is_in_the_totals(platform: Platform) -> None:
    await consumer(platform, "c")
    await platform.publish({})
    sub = await platform.js.pull_subscribe("", "c", stream=platform.settings.events_stream)
    [msg] = await sub.fetch(1, timeout=5)
    started = asyncio.get_running_loop().time()
    await asyncio.sleep(0.3)
    await msg.ack_sync()
    took = asyncio.get_running_loop().time() - started
    await bridge_pending(platform.settings)
    latest = await latest_totals(platform.client, platform.settings)
    [total] = latest.bridged.values()
    assert 0.3 <= total.handler_seconds < took + 0.5


async def test_bridges_that_die_or_count_at_once_count_nothing_twice(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = platform.settings
    await consumer(platform, "c")
    others = [await nats.connect(settings.nats_url.get_secret_value()) for _ in range(4)]
    for round_ in range(3):
        await work(platform, "c", 1 + 10 * round_, 10 + 10 * round_)
        done = await asyncio.gather(*(publish_totals(each, settings) for each in others))
        assert done == [1] * 4
        assert await counted(platform, "c") == tuple((round_ + 1) * n for n in (10, 8, 1, 2))

    async def dies(*_: Any, **__: Any) -> None:
        raise asyncio.CancelledError

    await work(platform, "c", 31, 40)
    with monkeypatch.context() as patched:  # before it could publish what it read
        patched.setattr("sahool_dlq.bridge.totals._publish", dies)
        with pytest.raises(asyncio.CancelledError):
            await publish_totals(others[0], settings)
    await publish_totals(others[1], settings)
    assert await counted(platform, "c") == (40, 32, 4, 8)
    for each in others:
        await each.close()


async def test_counting_continues_when_streams_are_created_again_or_services_are_called_otherwise(
    platform: Platform,
) -> None:
    settings = platform.settings
    await consumer(platform, "c")
    await work(platform, "c", 1, 10)
    await publish_totals(platform.client, settings)
    await platform.js.delete_stream(settings.ack_stream)
    await platform.js.add_stream(
        StreamConfig(name=settings.ack_stream, subjects=["$JS.EVENT.METRIC.CONSUMER.ACK.>"])
    )
    await work(platform, "c", 11, 20)
    await publish_totals(platform.client, settings)
    assert await counted(platform, "c") == (20, 16, 2, 4)

    called = settings.model_copy(update={"bridge_services": {"c": "carts"}})
    await work(platform, "c", 21, 30)
    await publish_totals(platform.client, called)
    await publish_totals(platform.client, called)
    latest = await latest_totals(platform.client, settings)
    total = latest.bridged[settings.events_stream, "c"]
    assert (total.service, total.handled) == ("carts", 10)
    assert len(latest.sequences) == 2


async def test_what_was_dropped_before_it_was_counted_is_reported(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    settings = platform.settings
    await consumer(platform, "c")
    await work(platform, "c", 1, 10)
    await publish_totals(platform.client, settings)
    await work(platform, "c", 11, 20)
    await platform.js.purge_stream(settings.ack_stream)
    await work(platform, "c", 21, 30)
    await publish_totals(platform.client, settings)
    assert await counted(platform, "c") == (22, 16, 3, 6)
    [warning] = [each.getMessage() for each in caplog.records if "too low" in each.getMessage()]
    assert f"{settings.ack_stream} dropped some of 8 messages" in warning


async def test_an_event_is_given_up_once_and_one_that_left_its_stream_is_no_failure(
    platform: Platform,
) -> None:
    settings, js = platform.settings, platform.js
    await js.add_stream(name="WORK", subjects=["work.>"], retention="workqueue")
    await consumer(platform, "c", stream="WORK")
    await js.publish("work.a", b"0")
    sub = await js.pull_subscribe("", "c", stream="WORK")
    for _ in range(2):
        [exhausted] = await sub.fetch(1, timeout=5)
        await refuse(platform.client, exhausted)
    await js.publish("work.a", b"1")
    [held] = await sub.fetch(1, timeout=5)
    await js.delete_msg("WORK", held.metadata.sequence.stream)
    await platform.client.publish(exhausted.reply, b"+TERM too late")
    await platform.client.flush()
    async with asyncio.timeout(20):
        while (await js.stream_info(settings.advisory_stream)).state.messages < 3:
            await asyncio.sleep(0.05)
    await publish_totals(platform.client, settings)
    total = (await latest_totals(platform.client, settings)).bridged["WORK", "c"]
    assert (total.handled, total.dead_lettered, total.retried) == (1, 1, 1)


async def test_a_consumer_that_is_adopted_again_begins_again(platform: Platform) -> None:
    settings = platform.settings
    await consumer(platform, "c")
    await work(platform, "c", 1, 10)
    where = f"{settings.events_stream}/c"
    await adopt(settings, where, actor="me", reason="r", is_undo=True)  # counts until then
    assert await counted(platform, "c") == (10, 8, 1, 2)
    await work(platform, "c", 11, 20)
    assert await publish_totals(platform.client, settings) == 0
    before = datetime.now(UTC)
    await adopt(settings, where, actor="me", reason="r")
    assert await counted(platform, "c") == (0, 0, 0, 0)
    await work(platform, "c", 21, 30)
    await publish_totals(platform.client, settings)
    assert await counted(platform, "c") == (10, 8, 1, 2)
    latest = await latest_totals(platform.client, settings)
    assert latest.bridged[settings.events_stream, "c"].started_at >= before


async def test_what_a_consumer_of_our_library_counts_itself_is_not_counted_again(
    platform: Platform,
) -> None:
    settings, stream = platform.settings, platform.settings.events_stream
    await consumer(platform, "c")
    own = {"service": "ndvi", "stream": stream, "consumer": "c", "handled": 3}
    subject = settings.subjects.total("ndvi", "c")
    await platform.js.publish(subject, json.dumps(own).encode())
    await platform.js.publish(settings.subjects.total("odd", "d"), b"\xff")
    assert await publish_totals(platform.client, settings) == 0


async def test_what_is_no_acknowledgement_is_left_out(platform: Platform) -> None:
    await consumer(platform, "c")
    subject = ack_subject(platform.settings.events_stream, "c")
    metric = {"type": "io.nats.jetstream.metric.v1.consumer_ack", "stream": "S", "consumer": "c"}
    for body in (b"\xff", b"[]", msgspec.json.encode(metric)):
        await platform.client.publish(subject, body)
    await platform.client.flush()
    await work(platform, "c", 1, 10)
    await publish_totals(platform.client, platform.settings)
    assert await counted(platform, "c") == (10, 8, 1, 2)


async def test_a_foreign_service_that_fails_all_its_messages_fires_the_alert(
    platform: Platform,
) -> None:
    settings = platform.settings
    await consumer(platform, "c")
    await drain_log(settings)
    await platform.publish(*({"n": number} for number in range(1, 7)))
    await platform.fail("c", dict.fromkeys(range(1, 7), b"+TERM no"))
    await bridge_pending(settings)
    await drain_log(settings)
    await evaluate_alerts(settings)
    rows = query(settings, "SELECT detail FROM alerts WHERE rule = 'service_failing'")
    assert [row["detail"] for row in rows] == ["none of 6 handler calls succeeded in 5 minutes"]
