"""Least privilege: each role can do all of its work, and nothing else.

NATS has the users of deploy/nats.conf, PostgreSQL a login in each role of the migration.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import nats
import polars as pl
import psycopg
import pytest
from click.testing import CliRunner
from nats.js.api import ConsumerConfig

from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.bridge.advisory import Advisory, read_advisory
from sahool_dlq.bridge.late import LateAcks
from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.cli import _command
from sahool_dlq.deadletter import ids
from sahool_dlq.deadletter.group_changes import Mute
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.errors import (
    ComparisonError,
    DLQError,
    FencedError,
    NotPermittedError,
    SchemaError,
    ServerUnavailableError,
)
from sahool_dlq.events import (
    DLQAction,
    DLQConsumer,
    DLQEvent,
)
from sahool_dlq.jetstream.access import Access
from sahool_dlq.jetstream.acks import ACKS, all_of_consumer
from sahool_dlq.jetstream.connection import connect_service
from sahool_dlq.jetstream.permissions import check_heard
from sahool_dlq.jetstream.stored import stored_message
from sahool_dlq.jobs.adoption import adopt
from sahool_dlq.jobs.contract import contract_of
from sahool_dlq.jobs.decisions import audit_trail, decide
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.groups import GroupEdit, change_group
from sahool_dlq.jobs.payloads import raw_event
from sahool_dlq.jobs.redrive import preview_redrive, redrive, run_redrive
from sahool_dlq.jobs.replay import plan_replay
from sahool_dlq.jobs.status import platform_status
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.jobs.watch import monitor_config
from sahool_dlq.jobs.why import why_these
from sahool_dlq.redrive.choose.plan import Order
from sahool_dlq.redrive.choose.selection import Selection
from sahool_dlq.redrive.publish.outcomes import OutcomeFollower
from sahool_dlq.redrive.replay.selection import ReplaySelection
from sahool_dlq.stores.postgres.database import database, locking, migrate
from sahool_dlq.stores.postgres.marts import fill_marts
from support.foreign_consumers import refuse
from support.platform_log import environment
from support.roles import LARGE, LOGINS, Roles, logged, service

pytestmark = pytest.mark.xdist_group("roles")  # they share a NATS and a platform of their own

USERS = ("operator", "service", "drain", "bridge", "reader", "redriver")


MAY_NOT_PUBLISH = {
    "operator": ["sahool.analysis.ndvi", "sahool.dlq.ndvi", "sahool.triage.discarded"],
    "service": [
        *("sahool.triage.discarded", "sahool.redrive.published", "sahool.redrive.requested"),
        *("sahool.triage.group", "sahool.triage.unmuted"),
        *("$JS.API.STREAM.MSG.GET.SAHOOL_DLQ", "$JS.API.DIRECT.GET.SAHOOL_DLQ"),
        *("$JS.API.CONSUMER.CREATE.SAHOOL_DLQ", "$JS.API.CONSUMER.CREATE.SAHOOL_DLQ.a.sahool.dlq"),
        *("$JS.API.CONSUMER.MSG.NEXT.SAHOOL_DLQ.dlq-monitor", "$JS.ACK.SAHOOL_DLQ.dlq-monitor.1"),
        # the newer form, and the older one that a wildcard for the newer one's domain would permit
        "$JS.ACK._.h4sh.SAHOOL_DLQ.dlq-monitor.1.1.1.1.1",
        "$JS.ACK.SAHOOL_DLQ.dlq-monitor.SAHOOL_EVENTS.1.1.1.1",
        *("$JS.API.STREAM.CREATE.MIRROR", "$JS.API.STREAM.UPDATE.SAHOOL_EVENTS"),
        *("$JS.API.STREAM.PURGE.SAHOOL_EVENTS", "$JS.API.CONSUMER.DELETE.SAHOOL_EVENTS.ndvi"),
        "$JS.EVENT.METRIC.CONSUMER.ACK.SAHOOL_EVENTS.ndvi",
    ],
    "drain": [
        *("sahool.analysis.ndvi", "sahool.dlq.ndvi", "sahool.redrive.succeeded"),
        *("sahool.triage.discarded", "sahool.totals.a.b", "$JS.API.STREAM.MSG.DELETE.SAHOOL_DLQ"),
        "sahool.triage.group",
        *("$JS.API.STREAM.DELETE.SAHOOL_DLQ", "$JS.API.STREAM.UPDATE.SAHOOL_DLQ"),
        "$JS.API.CONSUMER.MSG.NEXT.SAHOOL_EVENTS.ndvi",
    ],
    "bridge": [
        *("sahool.analysis.ndvi", "sahool.triage.resolved", "sahool.redrive.succeeded"),
        *("$JS.API.STREAM.MSG.GET.SAHOOL_DLQ", "$JS.API.CONSUMER.CREATE.SAHOOL_DLQ"),
        *("$JS.API.STREAM.CREATE.MIRROR", "$JS.ACK.SAHOOL_EVENTS.ndvi.1"),
        *("$JS.API.CONSUMER.CREATE.SAHOOL_EVENTS.a", "$JS.EVENT.METRIC.CONSUMER.ACK.S.c"),
    ],
    "reader": [
        *("sahool.analysis.ndvi", "sahool.dlq.ndvi", "sahool.triage.resolved"),
        *("$JS.API.CONSUMER.CREATE.SAHOOL_EVENTS.a", "$JS.API.CONSUMER.CREATE.SAHOOL_DLQ"),
        *("$JS.API.CONSUMER.MSG.NEXT.SAHOOL_EVENTS.ndvi", "$JS.ACK.SAHOOL_EVENTS.ndvi.1"),
        *("$JS.API.STREAM.MSG.DELETE.SAHOOL_EVENTS", "$O.sahool-dlq-bodies.C.a"),
    ],
    "redriver": [
        *("$JS.API.STREAM.MSG.DELETE.SAHOOL_DLQ", "$JS.ACK.SAHOOL_EVENTS.a.1"),
        "$JS.EVENT.METRIC.CONSUMER.ACK.SAHOOL_EVENTS.a",
        *("$JS.API.STREAM.CREATE.MIRROR", "$JS.API.STREAM.PURGE.SAHOOL_EVENTS"),
    ],
}
NOBODY_MAY_HEAR = ("_INBOX.>", "_INBOX.other.>", ">", "sahool.triage.>", "$JS.EVENT.ADVISORY.>")


@pytest.mark.parametrize("user", USERS)
async def test_nats_refuses_the_rest_at_once_and_names_it(roles: Roles, user: str) -> None:
    heard = [*NOBODY_MAY_HEAR, *(["sahool.dlq.>"] if user != "redriver" else [])]
    async with asyncio.timeout(10), roles.client(user) as client:
        for subject in MAY_NOT_PUBLISH[user]:
            said = all_of_consumer(subject) if subject.startswith(ACKS) else subject
            words = re.escape(f"NATS does not permit {user} to publish to {said}:")
            with pytest.raises(NotPermittedError, match=words):
                await client.request(subject, b"{}", timeout=10)
        for subject in heard:
            await client.subscribe(subject)
            words = re.escape(f"NATS does not permit {user} to subscribe to {subject}:")
            with pytest.raises(NotPermittedError, match=words):
                await check_heard(client, subject)


MAY_NOT = {
    "drain": [
        *("SELECT data FROM failed_payloads", "DELETE FROM failed_events", "TABLE audit_log"),
        *("INSERT INTO audit_log (actor, action) VALUES ('a', 'b')", "DELETE FROM redrives"),
        *("INSERT INTO redrive_batches SELECT * FROM redrive_batches", "TABLE redrive_batches"),
        *("UPDATE alerts SET state = 'resolved'", "CREATE TABLE a ()"),
    ],
    "redriver": [
        *("SELECT data FROM failed_payloads", "DELETE FROM failed_events", "TABLE audit_log"),
        *("UPDATE audit_log SET actor = 'a'", "DELETE FROM audit_log", "TRUNCATE audit_log"),
        *("DELETE FROM redrives", "DELETE FROM alerts"),
    ],
    "alerts": [
        *("UPDATE failed_events SET status = 'resolved'", "TABLE failed_payloads"),
        *("TABLE audit_log", "UPDATE audit_log SET actor = 'a'", "CREATE TABLE a ()"),
        *("UPDATE redrives SET state = 'succeeded'", "SELECT patch FROM redrive_batches"),
        "UPDATE group_decisions SET owner = 'a'",
    ],
    "analyst": [
        *("TABLE failed_payloads", "SELECT patch FROM redrive_batches", "TABLE audit_log"),
        *("UPDATE failed_events SET status = 'resolved'", "DELETE FROM failed_events"),
        *("DELETE FROM mart_metrics", "CREATE TABLE a ()", "DELETE FROM alerts"),
        *("UPDATE group_decisions SET owner = 'a'", "DELETE FROM ruled_owners"),
    ],
    "auditor": [
        *("UPDATE audit_log SET actor = 'a'", "DELETE FROM audit_log", "TRUNCATE audit_log"),
        *("INSERT INTO audit_log (actor, action) VALUES ('a', 'b')", "TABLE failed_events"),
        *("TABLE failed_payloads", "UPDATE redrives SET state = 'succeeded'"),
    ],
    "reader": [
        *("DELETE FROM failed_payloads", "TABLE audit_log", "DELETE FROM audit_log"),
        *("UPDATE failed_events SET status = 'resolved'", "SELECT patch FROM redrive_batches"),
    ],
    "maintenance": [
        *("UPDATE audit_log SET actor = 'a'", "DELETE FROM audit_log", "TRUNCATE audit_log"),
        *("INSERT INTO redrive_batches SELECT * FROM redrive_batches", "DELETE FROM alerts"),
    ],
}


@pytest.mark.parametrize("login", LOGINS)
def test_postgres_refuses_the_rest(roles: Roles, login: str) -> None:
    with psycopg.connect(roles.dsn(login), autocommit=True) as connection:
        for statement in MAY_NOT[login]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


ADOPT = "adopt SAHOOL_EVENTS/quiet --proof --reason a --json"
SENTENCES = [
    ("drain", "service", "drain", "NATS does not permit service to publish to $JS.API.STREAM.MSG."),
    ("drain", "nobody", "drain", "refuses the login in the address: check its user and password"),
    ("status", "drain", "nobody", 'refuses the login (role "nobody" does not exist): check user'),
    ("drain", "drain", "analyst", "refused: permission denied for view lock_drain: grant it"),
    ("alerts check", "drain", "drain", "permission denied for view lock_alerts: grant it"),
    ("bridge --once", "service", "analyst", "publish to $JS.API.STREAM.INFO.SAHOOL_ADVISORIES: "),
    ("redrive --type TimeoutError --reason a", "drain", "redriver", "permit drain to publish to "),
    (
        "park --type TimeoutError --reason a",
        "drain",
        "redriver",
        "drain to publish to sahool.triage.",
    ),
    ("park --type TimeoutError --reason a", "redriver", "drain", "table audit_log: grant it"),
    ("audit", "drain", "redriver", "permission denied for table audit_log: grant it"),
    (
        "export --type TimeoutError --raw",
        "redriver",
        "redriver",
        "permission denied for table failed_payloads: grant it",
    ),
    (
        "export --type TimeoutError --raw",
        "doctor",
        "reader",
        "doctor to publish to $JS.API.STREAM.MSG",
    ),
    (ADOPT, "service", "redriver", "service to publish to $JS.API.CONSUMER.CREATE.SAHOOL_TOTALS: "),
    (ADOPT, "bridge", "redriver", "bridge to publish to $JS.API.STREAM.CREATE.SAHOOL_ACKS: "),
    (ADOPT, "operator", "drain", "permission denied for table audit_log: grant it"),
]


@pytest.mark.parametrize(("arguments", "user", "login", "words"), SENTENCES)
def test_a_verb_without_a_right_names_it_in_one_line(
    roles: Roles,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    user: str,
    login: str,
    words: str,
) -> None:
    for name, value in environment(roles.settings(user, login)).items():
        if name.startswith("DLQ_"):
            monkeypatch.setenv(name, value)
    result = CliRunner().invoke(_command(), arguments.split(), catch_exceptions=False)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


async def test_a_service_whose_login_is_refused_says_so(roles: Roles) -> None:
    with pytest.raises(ServerUnavailableError, match="refuses the login in the address: check"):
        await connect_service(
            Access(servers=[roles.nats_url("nobody")]), name="t", timeout_seconds=0.3
        )


def test_a_mart_that_is_created_again_has_its_rights_whoever_makes_it(roles: Roles) -> None:
    """A migration drops and creates it, and any user that drains fills it."""
    frame = pl.DataFrame({"metric": ["a"], "label": [""], "value": [1.0]})
    for _ in range(2):
        for filler in ("postgres", "drain", "redriver", "maintenance"):
            with database(roles.dsn(filler)) as connection:
                fill_marts(connection, {"metrics": frame})
            assert roles.rows("analyst", "TABLE dlq.mart_metrics") == [("a", "", 1.0)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles.rows("analyst", "DELETE FROM dlq.mart_metrics")
        with psycopg.connect(roles.dsn("postgres")) as connection:
            connection.execute("DROP TABLE dlq.mart_metrics")
            connection.execute("DELETE FROM dlq.schema_migrations WHERE name = '0018_rights'")
        with (
            pytest.raises(SchemaError, match=r"no table dlq\.mart_metrics with the columns"),
            database(roles.dsn("drain"), is_checked=False) as connection,
        ):
            fill_marts(connection, {"metrics": frame})
        with (
            pytest.raises(SchemaError, match="this login does not find them"),
            database(roles.dsn("drain"), is_checked=False) as connection,
        ):
            connection.execute("TABLE mart_metrics")
        assert migrate(roles.dsn("postgres")) == ["0018_rights"]


async def test_who_may_not_hear_outcomes_is_told_and_takes_none_for_unknown(roles: Roles) -> None:
    async with roles.client("bridge") as client:
        with pytest.raises(NotPermittedError, match=r"subscribe to sahool\.redrive"):
            await OutcomeFollower(client, Subjects()).__aenter__()


async def test_a_hung_drain_of_another_user_is_named(roles: Roles) -> None:
    with locking(roles.dsn("drain"), "drain") as hung:
        assert hung.take()
        with pytest.raises(
            FencedError, match=r"its session \d+ of drain \(.*could not be terminated: stop"
        ):
            await drain_log(roles.settings("redriver", "redriver", drain_lock_seconds=0.3))
        await drain_log(roles.settings("drain", "drain", drain_lock_seconds=0.3))


async def test_each_role_does_all_of_its_work(roles: Roles) -> None:
    """In one test, since each step needs the results of the steps before."""
    drain = roles.settings("drain", "drain")
    assert roles.rows("analyst", "SELECT count(*) FROM service_totals") == [(1,)]
    assert not (await verify_stores(drain)).findings
    assert (await platform_status(drain)).failures == {"pending": 2}

    decided: list[DLQEvent] = []

    async def handle(event: DLQEvent) -> DLQAction:
        decided.append(event)
        return DLQAction.ALERT

    monitor = DLQConsumer(monitor_config(drain))
    assert await monitor.connect()
    await monitor.subscribe(handle)
    monitor.start_in_background()
    await logged(roles, 4)
    await monitor.close()
    assert len(decided) == 2

    await evaluate_alerts(roles.settings("drain", "alerts"))
    assert roles.rows("analyst", "SELECT DISTINCT problem FROM stream_samples") == [(None,)]

    redriver, by_hand = roles.settings("redriver", "redriver"), {"trigger": "manual"}
    by_hand |= {"requested_by": "t", "reason": "cured"}
    timeouts = Selection(error_types=("TimeoutError",))
    assert (await preview_redrive(redriver, timeouts)).payloads["in_stream"] == 2
    async with service(roles):
        report = await redrive(redriver, timeouts, **by_hand)
        assert report is not None
        assert report.outcomes == {"succeeded": 2}
        async with roles.client("redriver") as client:
            consumers = await client.jetstream().consumers_info("SAHOOL_EVENTS")
        [durable] = [each.name for each in consumers if each.name.startswith("ndvi")]
        wrong = ReplaySelection(durable, where="event_id LIKE 'e%'")
        planned = await plan_replay(redriver, wrong, Order("manual", "t", "rounded"))
        assert planned is not None
        report = await run_redrive(redriver, planned[0].id)
        assert report.outcomes == {"succeeded": 2}
    assert roles.rows("analyst", "SELECT count(*) FROM replays WHERE announced <> '{}'") == [(2,)]

    async with foreign(roles, "billing"):  # workers bridge, too
        assert await bridge_pending(redriver) == ({"bridged": 2}, [])
    billing = Selection(subject="sahool.actions.billing")
    decision = await decide(redriver, billing, "parked", actor="t", reason="a test")
    assert decision.changed == 2
    async with foreign(roles, "spraying") as acknowledge:
        bridged = await bridge_pending(roles.settings("bridge", "analyst"))
        assert bridged == ({"bridged": 2}, [])
        content = asyncio.create_task(acknowledge())
        spraying = Selection(subject="sahool.actions.spraying", limit=1)
        report = await redrive(redriver, spraying, **by_hand)
        await content
        assert report is not None
        assert report.outcomes == {"succeeded": 1}
        assert next(iter(report.reasons["succeeded"])).startswith("inferred: ")

        operator = roles.settings("operator", "maintenance")
        await adopt(operator, "spraying", actor="t", reason="to know")
        content = asyncio.create_task(acknowledge())
        report = await redrive(redriver, spraying, **by_hand)
        await content
        assert report is not None
        assert next(iter(report.reasons["succeeded"])).startswith("proved: ")
        for user in ("redriver", "bridge"):
            await bridge_pending(roles.settings(user, "analyst"))
        await drain_log(drain)
        totals = "SELECT handled FROM service_totals WHERE service = 'spraying' ORDER BY 1"
        assert (1,) in roles.rows("analyst", totals)
        await adopt(operator, "spraying", actor="t", reason="enough", is_undo=True)
    trail = audit_trail(roles.settings("drain", "auditor"))
    acted = {row["db_user"] for row in trail if not row["action"].startswith("payload.")}
    assert acted == {"redriver", "maintenance"}
    await _reads_raw_events(roles)

    with psycopg.connect(roles.dsn("postgres"), autocommit=True) as connection:
        connection.execute("DELETE FROM failed_events WHERE error_type = 'TimeoutError'")
    maintenance = roles.settings("redriver", "maintenance")
    assert (await verify_stores(maintenance, is_repair=True)).is_well
    kept = roles.rows("maintenance", "SELECT count(*) FROM failed_payloads")
    assert kept == [(4,)]  # of the failures that were not deleted


async def _reads_raw_events(roles: Roles) -> None:
    """Events in the stream, and a lost one whose large body is in the object store."""
    reader = roles.settings("reader", "reader")
    rows = roles.rows(
        "reader",
        "SELECT id::text, original_sequence FROM dlq.failed_events WHERE event_id = 'e1'"
        " AND root_failure_id IS NULL",
    )
    [(failure, sequence)] = rows
    # What is shown of them is redacted: that needs no right to payloads.
    analyst = roles.settings("reader", "analyst")
    [compared] = (await why_these(analyst, Selection(failure_ids=(failure,)))).consumers
    assert (compared.lost, len(compared.events[0])) == (0, 1)
    with pytest.raises(ComparisonError, match="has handled only"):
        await contract_of(analyst, compared.events[0][0].subject)
    event = await raw_event(reader, failure, actor="t")
    assert (event.source, len(event.body) > LARGE) == ("stream", True)
    async with roles.client("operator") as client:
        await client.jetstream().delete_msg("SAHOOL_EVENTS", sequence)
    copy = await raw_event(reader, failure, actor="t", reason="again")
    assert (copy.source, copy.body) == ("dead_letter", event.body)
    latest = "SELECT db_user, reason FROM dlq.audit_log ORDER BY id DESC LIMIT 2"
    read = roles.rows("auditor", latest)
    assert read == [("reader", "again"), ("reader", None)]


@contextlib.asynccontextmanager
async def foreign(roles: Roles, name: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A consumer without our library, as a service, gives two events up and acknowledges one.

    One of them is large, and the server has not sent an advisory yet.
    """
    client = await nats.connect(roles.nats_url("service"), inbox_prefix="_INBOX.service")
    js, subject = client.jetstream(), f"sahool.actions.{name}"
    for size in (10, LARGE):
        await js.publish(subject, json.dumps({"x": "y" * size}).encode())
    config = ConsumerConfig(max_deliver=2, ack_wait=1)
    sub = await js.pull_subscribe(subject, name, "SAHOOL_EVENTS", config)
    for _ in range(2):
        for msg in await sub.fetch(2):
            await refuse(client, msg)

    async def acknowledge() -> None:
        [msg] = await sub.fetch(1, timeout=20)
        await msg.ack()

    yield acknowledge
    await client.close()


def given_up(sequence: int) -> Advisory:
    """Whether the consumer `late` gave up an event."""
    said = {
        "type": "io.nats.jetstream.advisory.v1.max_deliver",
        "stream": "SAHOOL_EVENTS",
        "consumer": "late",
        "stream_seq": sequence,
        "deliveries": 2,
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return read_advisory(json.dumps(said).encode())


@pytest.mark.parametrize("user", ["bridge", "redriver"])
async def test_a_bridge_receives_late_acknowledgements_and_may_report_them(
    roles: Roles, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The last test: it leaves messages in the log about a failure that does not exist."""
    async with roles.client(user) as client:
        late, advisory = LateAcks(Subjects(), asyncio.Event()), given_up(7)
        acked = await late.listen(client, advisory)
        async with roles.client("service") as worker:
            await worker.publish("$JS.ACK.SAHOOL_EVENTS.late.2.7.1.1.0", b"+ACK")
            await asyncio.wait_for(acked, 10)
        assert await stored_message(client, "SAHOOL_ADVISORIES", 1, "a.b") is None
        failure = ids.failure_id("SAHOOL_EVENTS", 7, 1, "late")
        fields = {"failure_id": failure, "consumer_name": "late", "original_headers": {}}
        late.tell_of(acked, client, advisory, fields | {"original_stream": "SAHOOL_EVENTS"})
        await asyncio.sleep(0)  # in which a future calls its callbacks
        await late.close()
    assert late.told_count == 1
    assert not caplog.records


async def test_who_may_not_hear_acknowledgements_is_told_once_and_bridges_on(
    roles: Roles, caplog: pytest.LogCaptureFixture
) -> None:
    async with roles.client("drain") as client:
        late = LateAcks(Subjects(), asyncio.Event())
        for sequence in (1, 2):
            acked = await late.listen(client, given_up(sequence))
            assert not acked.done()
        assert client.is_connected
    said = "Late acknowledgements cannot be received: NATS does not permit drain to"
    assert caplog.text.count(said) == 1


async def test_who_may_decide_may_mute_a_group_and_the_alerts_end_its_mute(roles: Roles) -> None:
    [(group,)] = roles.rows("analyst", "SELECT min(group_id) FROM failed_events")
    edit = GroupEdit(owner="team", mute=Mute(more=5))
    for user, login, words in (
        ("drain", "redriver", "drain to publish to sahool.triage.group"),
        ("redriver", "drain", "permission denied for table audit_log: grant it"),
    ):
        with pytest.raises(DLQError, match=words):
            await change_group(roles.settings(user, login), group, edit, actor="a", reason="b")
    redriver = roles.settings("redriver", "redriver")
    row = await change_group(redriver, group, edit, actor="ana", reason="known")
    assert (row["owner"], row["is_muted"]) == ("team", True)
    with psycopg.connect(roles.dsn("postgres"), autocommit=True) as connection:
        connection.execute("UPDATE dlq.group_decisions SET mute_until = now(), mute_more = NULL")
    await evaluate_alerts(roles.settings("drain", "alerts"))
    await drain_log(roles.settings("drain", "drain"))
    seen = "SELECT owner, is_muted, muted_at FROM group_care WHERE owner IS NOT NULL"
    assert roles.rows("analyst", seen) == [("team", False, None)]
