"""A redrive counts as an attempt only if its consumer can receive the event."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import nats
import pytest
from click.testing import CliRunner
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig
from pydantic import SecretStr

from sahool_dlq.alerts.evaluate import AlertsReport, evaluate_alerts, what_is_found
from sahool_dlq.alerts.rules import alert_rules
from sahool_dlq.cli import _command
from sahool_dlq.cli.plan import unreached_facts
from sahool_dlq.embedded import NatsServer
from sahool_dlq.errors import RedriveError
from sahool_dlq.events import ConsumerContext, ProcessingResult
from sahool_dlq.jetstream.reach import Lookout, Reach
from sahool_dlq.jetstream.streams import ensure_streams
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.lake_views import query
from sahool_dlq.jobs.lookup import find_failure
from sahool_dlq.jobs.redrive import preview_redrive, redrive, transient_selection
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import database
from support.platform_log import environment, execute
from support.redriving import (
    TIMEOUTS,
    Service,
    dead_letters,
    fail,
    publish,
    quick,
    redrive_timeouts,
    rows,
)
from support.servers import nats as nats_of_tests

pytestmark = pytest.mark.xdist_group("reach")  # they have a NATS of their own


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Replaces the session's server: a redrive to another consumer also takes in what consumers of
    other tests gave up.
    """
    with nats_of_tests(tmp_path_factory.mktemp("reach")) as server:
        yield server.url


async def fail_and_stop(settings: Settings, client: Client, service: Service, count: int) -> None:
    """Let a service fail on this number of events, and stop it."""
    async with service.running():
        await fail(settings, client, service, count)
    await drain_log(settings)


async def by_hand(settings: Settings, **more: Any) -> RedriveReport:
    report = await redrive(
        quick(settings), TIMEOUTS, trigger="manual", requested_by="ana", reason="x", **more
    )
    assert report is not None
    return report


def address(settings: Settings, durable: str) -> str:
    return f"{settings.events_stream}/{durable}"


async def reason(settings: Settings) -> tuple[str, int]:
    """Why nothing of a plan would reach anybody, and of how many."""
    shown = await preview_redrive(settings, TIMEOUTS)
    [each] = shown.reached.unreached
    assert shown.expected_successes == 0
    return each.reason, each.count


async def test_a_consumer_without_pulls_spends_no_attempt(
    settings: Settings, client: Client
) -> None:
    service = Service(settings, TimeoutError("slow"))
    await fail_and_stop(settings, client, service, 12)
    why, count = await reason(settings)
    assert why.startswith(f"nobody pulls from {address(settings, 'ndvi')}, the last time at 20")
    assert count == 12
    for _ in range(2):
        report = await by_hand(settings)
        assert report.outcomes == {"cancelled": 12}
        assert list(report.reasons["cancelled"]) == [why]
    assert rows(settings, "SELECT DISTINCT status, redrive_count FROM failed_events") == [
        ("pending", 0)
    ]
    service.error = None
    async with service.running():
        assert (await by_hand(settings)).outcomes == {"succeeded": 12}


async def test_one_that_is_gone_or_has_another_filter_is_reported(
    settings: Settings, client: Client
) -> None:
    js, stream = client.jetstream(), settings.events_stream
    await fail_and_stop(settings, client, Service(settings, TimeoutError("slow")), 2)
    other = ConsumerConfig(durable_name="ndvi", filter_subject=f"{settings.subject_prefix}.x.y")
    await js.delete_consumer(stream, "ndvi")
    assert await reason(settings) == (f"there is no consumer {address(settings, 'ndvi')}", 2)
    await js.add_consumer(stream, other)
    pulled = await js.pull_subscribe_bind("ndvi", stream)
    pulling = asyncio.create_task(pulled.fetch(1, timeout=30))
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    try:
        wanted = f"{address(settings, 'ndvi')} does not get {subject}, only {other.filter_subject}"
        assert await reason(settings) == (wanted, 2)
        assert (await by_hand(settings)).outcomes == {"cancelled": 2}
    finally:
        pulling.cancel()
    await js.delete_stream(stream)
    assert await reason(settings) == (f"there is no stream {stream}", 2)
    assert (await by_hand(settings)).outcomes == {"cancelled": 2}
    assert rows(settings, "SELECT DISTINCT status, redrive_count FROM failed_events") == [
        ("pending", 0)
    ]


async def test_a_paused_one_is_left_alone_until_it_continues(
    settings: Settings, client: Client
) -> None:
    service = Service(settings, TimeoutError("slow"))
    async with service.running():
        await fail(settings, client, service, 3)
        await drain_log(settings)
        until = datetime.now(UTC) + timedelta(hours=1)
        await pause(client, settings, until)
        why = f"{address(settings, 'ndvi')} is paused until {until:%Y-%m-%d %H:%M} UTC"
        assert await reason(settings) == (why, 3)
        assert (await by_hand(settings)).outcomes == {"cancelled": 3}
        await pause(client, settings, datetime(2020, 1, 1, tzinfo=UTC))
        service.error = None
        assert (await by_hand(settings)).outcomes == {"succeeded": 3}


async def pause(client: Client, settings: Settings, until: datetime) -> None:
    where = f"$JS.API.CONSUMER.PAUSE.{settings.events_stream}.ndvi"
    body = json.dumps({"pause_until": until.isoformat()}).encode()
    assert "error" not in json.loads((await client.request(where, body, timeout=10)).data)


async def test_one_that_works_on_events_without_asking_for_more_is_reached(
    settings: Settings, client: Client
) -> None:
    """All its slots are in use: it pulls again when a handler ends."""
    js, stream = client.jetstream(), settings.events_stream
    subject = f"{settings.subject_prefix}.analysis.ndvi"
    sub = await js.pull_subscribe(subject, "busy", stream=stream)
    await publish(client, settings, 1)
    [msg] = await sub.fetch(1, timeout=10)
    busy = address(settings, "busy")
    assert await Lookout(js).reach(busy, subject, is_patient=False) == Reach()
    await msg.ack_sync(timeout=10)
    idle = await Lookout(js).reach(busy, subject, is_patient=False)
    assert idle.problem is not None
    assert idle.problem.startswith(f"nobody pulls from {busy}, the last time at ")
    # One without our code may fetch now and then.
    assert await Lookout(js).reach(busy, subject, is_patient=True) == Reach()


async def test_a_renamed_durable_has_its_successor_offered(
    settings: Settings, client: Client
) -> None:
    old = Service(settings, TimeoutError("slow"), durable="ndvi-v1")
    await fail_and_stop(settings, client, old, 3)
    new = Service(settings, durable="ndvi-v2")
    stranger = Service(settings, name="yield", durable="yield-v2")
    idle = ConsumerConfig(durable_name="ndvi-v0", ack_policy=AckPolicy.EXPLICIT)
    await client.jetstream().add_consumer(settings.events_stream, idle)
    async with new.running(), stranger.running():
        shown = await preview_redrive(settings, TIMEOUTS)
        [each] = shown.reached.unreached
        assert (each.consumer, each.count) == (address(settings, "ndvi-v1"), 3)
        assert each.successors == (address(settings, "ndvi-v2"),)
        [fact] = unreached_facts(shown)
        assert fact.startswith("3 would reach no consumer, and stay pending: nobody pulls from ")
        assert fact.endswith(f"dlq redrive … --for {address(settings, 'ndvi-v2')}")
        assert shown.as_dict()["unreached"][0]["successors"] == [address(settings, "ndvi-v2")]


async def test_a_redirect_to_its_own_subject_passes_over_a_durable_that_nobody_pulls(
    settings: Settings, client: Client
) -> None:
    old = Service(settings, TimeoutError("slow"), durable="ndvi-v1")
    await fail_and_stop(settings, client, old, 3)
    to = f"{settings.subject_prefix}.analysis.ndvi"
    report = await by_hand(settings, redirect_to=to)
    assert report.outcomes == {"cancelled": 3}
    [why] = report.reasons["cancelled"]
    assert why.startswith(f"nobody pulls from {address(settings, 'ndvi-v1')}")
    shown = await preview_redrive(settings, TIMEOUTS, redirect_to=to)  # it says so before
    [each] = shown.reached.unreached
    assert (each.consumer, each.reason, each.count) == (to, why, 3)
    assert (shown.expected_successes, len(shown.reached.unreached_ids)) == (0, 3)
    async with Service(settings, durable="ndvi-v2").running() as new:
        await seen_all(new, 3)
        new.seen.clear()
        assert not (await preview_redrive(settings, TIMEOUTS, redirect_to=to)).reached.unreached
        report = await by_hand(settings, redirect_to=to)
        assert report.outcomes == {"succeeded": 3}
        assert len(new.seen) == 3
    assert rows(settings, "SELECT DISTINCT status, redrive_count FROM failed_events") == [
        ("resolved", 0)
    ]


async def seen_all(service: Service, count: int) -> None:
    """Wait until a new consumer has received all older events of the stream."""
    async with asyncio.timeout(20):
        while len(service.seen) < count:
            await asyncio.sleep(0.05)


async def test_the_schedule_skips_what_no_consumer_takes_and_takes_the_rest(
    settings: Settings, client: Client
) -> None:
    settings = quick(settings)
    old = Service(settings, TimeoutError("slow"), durable="old")
    async with old.running():
        await fail(settings, client, old, 3)
    well = Service(settings, TimeoutError("slow"), durable="well")
    async with well.running():
        await dead_letters(client, settings, 6)  # it gets the same events
        well.error = None
        report = await redrive_timeouts(settings, selection=transient_selection(settings))
        assert report is not None
        assert (report.planned, report.outcomes) == (3, {"succeeded": 3})
        again = await redrive_timeouts(settings, selection=transient_selection(settings))
        assert again is None
    states = (
        "SELECT consumer_name, status, redrive_count, count(*) FROM failed_events GROUP BY 1, 2, 3"
    )
    assert sorted(rows(settings, states)) == [("old", "pending", 0, 3), ("well", "resolved", 0, 3)]
    # Neither the limit nor a time that was asked for brings them in.
    execute(
        settings, "UPDATE failed_events SET redrive_not_before = now() WHERE status = 'pending'"
    )
    assert await redrive_timeouts(settings, selection=transient_selection(settings)) is None


@pytest.mark.parametrize("text", ["a b/c", "no-stream", "x/y.z"])
async def test_an_address_that_no_consumer_has_is_reported(
    settings: Settings, client: Client, text: str
) -> None:
    await fail_and_stop(settings, client, Service(settings, TimeoutError("slow")), 1)
    stream, _, consumer = text.partition("/")
    execute(
        settings,
        "UPDATE failed_events SET original_stream = %s, consumer_name = %s",
        *(stream, consumer or "*"),
    )
    why, _ = await reason(settings)
    assert why == f"this is not a valid consumer name: {stream}/{consumer or '*'}"
    assert (await by_hand(settings)).outcomes == {"cancelled": 1}


async def test_for_a_successor_its_outcome_counts_for_the_failure(
    settings: Settings, client: Client
) -> None:
    old = Service(settings, TimeoutError("slow"), durable="ndvi-v1")
    await fail_and_stop(settings, client, old, 2)
    to = address(settings, "ndvi-v2")
    bystander = Service(settings, name="yield")
    async with Service(settings, durable="ndvi-v2").running() as new, bystander.running():
        await seen_all(new, 2)
        new.error = TimeoutError("still slow")
        new.seen.clear()
        await seen_all(bystander, 2)
        assert (await by_hand(settings)).outcomes == {"cancelled": 2}  # which binds to no consumer
        report = await by_hand(settings, addressed_to=to)
        assert report.outcomes == {"failed_again": 1, "cancelled": 1}
        assert [context.redrive_of is None for context in new.seen] == [False]
        assert statuses(settings) == [
            ("pending", 0, None, 1), ("pending", 1, to, 1), ("superseded", 0, None, 1)
        ]  # fmt: skip
        assert query(settings, "SELECT status, redrive_count FROM cases ORDER BY 2").rows() == [
            ("pending", 0),
            ("pending", 1),
        ]
        [tried] = rows(settings, "SELECT id::text FROM failed_events WHERE redrive_count = 1")
        shown = find_failure(settings, tried[0])
        assert (shown["handed_to"], shown["consumer_name"]) == (to, "ndvi-v1")
        told = await asyncio.to_thread(
            CliRunner(env=environment(settings)).invoke, _command(), ["show", tried[0]]
        )
        assert f"handed_to          {to}" in told.output
        # Failures that were transferred stay with the new consumer, for the schedule too.
        new.error = None
        taken = await redrive_timeouts(quick(settings), selection=transient_selection(settings))
        assert taken is not None
        assert (taken.planned, taken.outcomes) == (1, {"succeeded": 1})
        report = await by_hand(settings, addressed_to=to)
        assert report.outcomes == {"succeeded": 1}
        assert len(bystander.seen) == 2
    assert [status for status, *_ in statuses(settings)] == ["resolved", "resolved", "superseded"]
    assert query(settings, "SELECT DISTINCT status FROM cases").rows() == [("resolved",)]
    assert query(
        settings, "SELECT outcome, count(*) FROM redrives GROUP BY 1 ORDER BY 1"
    ).rows() == [
        ("failed_again", 1),
        ("succeeded", 2),
    ]


def statuses(settings: Settings) -> list[tuple[object, ...]]:
    sql = "SELECT status, redrive_count, handed_to, count(*) FROM failed_events GROUP BY 1, 2, 3"
    return sorted(rows(settings, sql), key=str)


async def test_a_success_of_the_successor_that_comes_late_counts(
    settings: Settings, client: Client
) -> None:
    old = Service(settings, TimeoutError("slow"), durable="ndvi-v1")
    await fail_and_stop(settings, client, old, 1)
    gate = asyncio.Event()

    class Slow(Service):
        async def handle(self, context: ConsumerContext) -> ProcessingResult:
            if context.redrive_of is not None:
                await gate.wait()
            return await super().handle(context)

    async with Slow(settings, durable="ndvi-v2").running() as new:
        await seen_all(new, 1)
        to = address(settings, "ndvi-v2")
        hasty = settings.model_copy(update={"redrive_timeout_seconds": 0.5})
        report = await redrive(
            hasty, TIMEOUTS, trigger="manual", requested_by="ana", reason="x", addressed_to=to
        )
        assert report is not None
        assert report.outcomes == {"outcome_unknown": 1}
        gate.set()
        await dead_letters(client, settings, 4)
    await drain_log(settings)
    assert statuses(settings) == [("resolved", 1, to, 1)]
    assert rows(settings, "SELECT state FROM redrives") == [("succeeded",)]


async def test_for_a_successor_without_our_code_success_is_heard(
    settings: Settings, client: Client
) -> None:
    js, stream = client.jetstream(), settings.events_stream
    await fail_and_stop(settings, client, Service(settings, TimeoutError("slow")), 1)
    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_deliver=2)
    subject = f"{settings.subject_prefix}.analysis.*"
    sub = await js.pull_subscribe(subject, "go-worker", stream=stream, config=config)

    async def work() -> None:
        while True:
            try:
                for msg in await sub.fetch(1, timeout=1):
                    await msg.ack()
            except TimeoutError:
                continue

    working = asyncio.create_task(work())
    try:
        report = await by_hand(settings, addressed_to=address(settings, "go-worker"))
    finally:
        working.cancel()
    assert report.outcomes == {"succeeded": 1}
    assert next(iter(report.reasons["succeeded"])).startswith("inferred: ")
    assert rows(settings, "SELECT status FROM failed_events") == [("resolved",)]


@pytest.mark.parametrize(
    ("addressed_to", "redirect_to", "text"),
    [
        ("ndvi-v2", None, "'ndvi-v2' is not a consumer: write STREAM/CONSUMER"),
        ("A/b", "x.y", "give --to or --for, not both"),
    ],
)
def test_an_addressee_that_makes_no_sense_is_refused(
    addressed_to: str, redirect_to: str | None, text: str
) -> None:
    with pytest.raises(RedriveError, match=text):
        Order("manual", "ana", "x", redirect_to=redirect_to, addressed_to=addressed_to)


async def alerts_of(settings: Settings, minutes: float) -> tuple[set[str], AlertsReport]:
    report = await evaluate_alerts(settings, datetime.now(UTC) + timedelta(minutes=minutes))
    with database(settings.postgres_dsn.get_secret_value()) as connection:
        found = what_is_found(connection, alert_rules(settings))["redrive_unreached"]
    return {f"{finding.value} {finding.subject}: {finding.detail}" for finding in found}, report


async def test_an_alert_says_why_nothing_is_redriven_and_ends_when_somebody_pulls(
    settings: Settings, client: Client
) -> None:
    service = Service(settings, TimeoutError("slow"))
    await fail_and_stop(settings, client, service, 3)
    found, first = await alerts_of(settings, 0)
    [text] = found
    assert text.startswith(f"3.0 {address(settings, 'ndvi')}: nobody pulls from ")
    title = f"No consumer would get a redrive: {address(settings, 'ndvi')}"
    assert title not in first.firing  # it may be starting
    _, later = await alerts_of(settings, 11)
    assert title in later.firing
    # Without the right to check nothing is known: it continues.
    away = settings.model_copy(update={"nats_url": SecretStr("nats://127.0.0.1:1")})
    _, blind = await alerts_of(away, 12)
    assert title in blind.firing
    service.error = None
    async with service.running():
        found, _ = await alerts_of(settings, 13)
        assert found == set()
        _, ended = await alerts_of(settings, 19)
        assert ended.resolved == 1
        assert title not in ended.firing


async def test_an_alert_goes_by_whom_a_failure_was_handed_to(
    settings: Settings, client: Client
) -> None:
    old = Service(settings, TimeoutError("slow"), durable="ndvi-v1")
    await fail_and_stop(settings, client, old, 2)
    await client.jetstream().delete_consumer(settings.events_stream, "ndvi-v1")
    v1, v2 = (address(settings, each) for each in ("ndvi-v1", "ndvi-v2"))
    found, _ = await alerts_of(settings, 0)
    assert found == {f"2.0 {v1}: there is no consumer {v1}"}
    execute(settings, "UPDATE failed_events SET handed_to = %s", v2)
    found, _ = await alerts_of(settings, 1)
    assert found == {f"2.0 {v2}: there is no consumer {v2}"}
    execute(settings, "UPDATE failed_events SET status = 'parked'")
    assert (await alerts_of(settings, 2))[0] == set()


async def test_what_may_not_be_asked_is_unknown_and_redriven(
    settings: Settings, nats_server_factory: Callable[..., NatsServer]
) -> None:
    users = """
    authorization: { users: [ { user: all, password: x }, { user: some, password: x,
      permissions: { publish: { deny: "$JS.API.CONSUMER.INFO.EVENTS_>" } } } ] }
    """.replace("EVENTS_>", f"{settings.events_stream}.ndvi")
    server = nats_server_factory(config=users)
    urls = {name: server.url.replace("://", f"://{name}:x@") for name in ("all", "some")}
    settings = settings.model_copy(update={"nats_url": SecretStr(urls["all"])})
    asking = settings.model_copy(update={"nats_url": SecretStr(urls["some"])})
    async with await nats.connect(urls["all"]) as client:
        await ensure_streams(client.jetstream(timeout=60), settings.stream_names)
        service = Service(settings, TimeoutError("slow"))
        async with service.running():
            await fail(settings, client, service, 1)
            await drain_log(settings)
            service.error = None
            shown = await preview_redrive(asking, TIMEOUTS)
            assert shown.reached.unreached == ()
            [fact] = unreached_facts(shown)
            assert fact.startswith(
                "Whether 1 would reach a consumer is unknown: NATS does not permit"
            )
            where = f"$JS.API.CONSUMER.INFO.{settings.events_stream}.ndvi"
            assert where in fact
            found, _ = await alerts_of(asking, 0)
            [text] = found
            assert text.startswith(f"None {address(settings, 'ndvi')}: NATS does not permit some")
            assert (await by_hand(asking)).outcomes == {"succeeded": 1}
