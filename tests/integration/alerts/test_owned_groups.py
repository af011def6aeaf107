"""Groups that people own, on real servers: mutes and how they end, routes, a lost database."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nats.aio.client import Client

from sahool_dlq.alerts import evaluate, outbox
from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.alerts.rules import read_alert_rules, sql_pattern
from sahool_dlq.deadletter.group_changes import Mute
from sahool_dlq.errors import GroupError, SettingsError
from sahool_dlq.jobs.care import care_of, mute_in_words
from sahool_dlq.jobs.decisions import audit_trail
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.groups import GroupEdit, change_group
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.jobs.watch import Screen, monitor_config, watch
from sahool_dlq.settings import Settings
from sahool_dlq.stores.postgres.database import migrate
from support.alert_inbox import inbox
from support.consumer_log import seen
from support.platform_log import execute, in_lake, letter, publish, query

TRACE = """Traceback (most recent call last):
  File "/app/services/{service}/handler.py", line 12, in handle
    save(field)
  File "/app/services/{service}/store.py", line 40, in save
    raise DatabaseError("no space for {service}")
app.errors.DatabaseError: no space for {service}
"""

Fail = Callable[..., Awaitable[str]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TRIES_SECONDS", (0.01,))
    monkeypatch.setattr(outbox, "TRIES_SECONDS", (0.01,))


def failure(number: int, service: str, **facts: Any) -> bytes:
    """A failure of now."""
    now = datetime.now(UTC).isoformat()
    return letter(
        number,
        error_type="app.errors.DatabaseError",
        error_message=f"no space for {service}",
        source_service=service,
        stack_trace=TRACE.format(service=service),
        **dict.fromkeys(("first_attempt_at", "last_attempt_at", "dlq_timestamp"), now),
        **facts,
    )


@pytest.fixture
def fail(settings: Settings, client: Client) -> Fail:
    """Publish new failures of a service and drain them; the id of their group."""
    numbers = iter(range(10_000))

    async def fail(count: int = 1, service: str = "billing") -> str:
        bodies = [failure(next(numbers), service) for _ in range(count)]
        await publish(client, settings, bodies)
        await drain_log(settings)
        found = "SELECT group_id FROM failed_events WHERE source_service = %s LIMIT 1"
        return str(query(settings, found, service)[0]["group_id"])

    return fail


async def say(settings: Settings, group: str, **changes: Any) -> dict[str, Any]:
    return await change_group(settings, group, GroupEdit(**changes), actor="ana", reason="known")


def alerting(settings: Settings, **changes: Any) -> Settings:
    return Settings(**settings.model_dump() | changes)


async def firing(settings: Settings) -> tuple[str, ...]:
    return (await evaluate_alerts(settings)).firing


BILLING = ("Critical errors: billing",)


async def test_a_mute_ends_at_its_time(settings: Settings, client: Client, fail: Fail) -> None:
    group = await fail()
    until = datetime.now(UTC) + timedelta(hours=1)
    row = await say(settings, group, mute=Mute(until))
    assert mute_in_words(row) == f"until {until:%Y-%m-%d %H:%M} UTC"
    assert await firing(settings) == ()
    execute(settings, "UPDATE group_decisions SET mute_until = now()")  # an hour goes by
    assert not care_of(settings, group)["is_muted"]
    assert await firing(settings) == BILLING
    await drain_log(settings)
    assert care_of(settings, group)["muted_at"] is None
    [unmuted] = audit_trail(settings, action="group.unmuted")
    assert unmuted["reason"] == "its time is over"


async def test_a_mute_ends_after_a_number_of_further_failures_while_they_are_drained(
    settings: Settings, client: Client, fail: Fail
) -> None:
    group = await fail(5)
    row = await say(settings, group, mute=Mute(more=3))
    assert mute_in_words(row) == "until 3 more failures"
    await fail(2)
    assert mute_in_words(care_of(settings, group)) == "until 1 more failure"
    assert await firing(settings) == ()
    assert len(query(settings, "SELECT 1 FROM failed_events")) == 7
    await fail()
    assert await firing(settings) == BILLING
    await drain_log(settings)
    assert care_of(settings, group)["muted_at"] is None
    [unmuted] = audit_trail(settings, action="group.unmuted")
    assert (unmuted["actor"], unmuted["reason"]) == ("dlq-alerts", "3 more failures came")


async def test_a_mute_ends_when_the_group_escalates_and_stays_ended(
    settings: Settings, client: Client, fail: Fail
) -> None:
    group = await fail(3)
    build_all_marts(settings)
    row = await say(settings, group, mute=Mute())
    assert mute_in_words(row) == "until it escalates"
    assert await firing(settings) == ()
    await fail(10)
    assert await firing(settings) == ()  # not known before the marts are built
    build_all_marts(settings)
    assert await firing(settings) == BILLING
    assert await firing(settings) == BILLING  # its end is told once
    await drain_log(settings)
    with psycopg.connect(settings.postgres_dsn.get_secret_value(), autocommit=True) as connection:
        connection.execute("UPDATE dlq.mart_failure_groups SET is_escalating = FALSE")
    assert not care_of(settings, group)["is_muted"]
    assert await firing(settings) == BILLING
    [unmuted] = audit_trail(settings, action="group.unmuted")
    assert unmuted["reason"] == "it escalates"
    with pytest.raises(GroupError, match="is not muted"):
        await say(settings, group, is_unmuted=True)


async def test_an_older_mutes_end_does_not_end_a_newer_one(
    settings: Settings, client: Client, fail: Fail
) -> None:
    group = await fail()
    await say(settings, group, mute=Mute(more=1))
    await fail()
    await say(settings, group, mute=Mute(more=50))  # before the end of the first was told
    muted_at = care_of(settings, group)["muted_at"]
    await evaluate_alerts(settings)
    await drain_log(settings)
    assert care_of(settings, group)["muted_at"] == muted_at


async def test_a_group_that_escalates_is_not_muted_until_it_does(
    settings: Settings, client: Client, fail: Fail
) -> None:
    group = await fail(12)
    build_all_marts(settings)
    with pytest.raises(GroupError, match="escalates now: mute it until a time or a number"):
        await say(settings, group, mute=Mute())


async def test_a_muted_group_hides_no_other(settings: Settings, client: Client, fail: Fail) -> None:
    group = await fail()
    await fail(service="harvest")
    await say(settings, group, mute=Mute(more=9))
    assert await firing(settings) == ("Critical errors: harvest",)
    await say(settings, group, is_unmuted=True)
    assert len(await firing(settings)) == 2


async def test_a_lost_database_gets_owner_note_and_mute_back(
    settings: Settings, client: Client, fail: Fail
) -> None:
    group = await fail()
    first = {"owner": "team-billing", "note": "see the runbook", "mute": Mute(more=7)}
    await say(settings, group, **first, ticket="https://tracker.example/PAY-1", labels=["disk"])
    before = await say(settings, group, note="the disk is ordered", labels=["disk", "ordered"])
    assert (before["owner"], before["note"]) == ("team-billing", "the disk is ordered")
    told = in_lake(settings, "case_events").select("kind", "group_id", "failure_id", "parse_error")
    assert told.rows() == [("triage.group", group, None, None)] * 2

    js = client.jetstream()
    for sequence in range(1, (await js.stream_info(settings.dlq_stream)).state.last_seq + 1):
        await js.delete_msg(settings.dlq_stream, sequence)  # so that only the lake has it
    dsn = settings.postgres_dsn.get_secret_value()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA dlq CASCADE")
    migrate(dsn)
    await drain_log(settings)
    assert care_of(settings, group) == before
    assert await firing(settings) == ()
    assert [
        change["detail"]["group"] for change in audit_trail(settings)
    ] == []  # it is not the log


def routed(settings: Settings, folder: Path, **channels: str) -> Settings:
    """Owners by CODEOWNERS, and a channel for two of them."""
    (folder / "CODEOWNERS").write_text(
        "*                    @acme/platform\n/services/billing/   @acme/payments @bo\n"
    )
    (folder / "rules.toml").write_text('[ownership]\ncodeowners = "CODEOWNERS"\n')
    (folder / "alerts.toml").write_text(
        '[[overrides]]\ntenant = "test-*"\nenabled = false\n'
        '[[overrides]]\nowner = "*/payments"\nchannels = ["payments"]\n'
        '[[overrides]]\nowner = "team-harvest"\nchannels = ["harvest"]\n'
        '[rules.critical_errors]\nchannels = ["all"]\n'
    )
    return alerting(
        settings,
        alert_urls=[f"{name}={url}" for name, url in channels.items()],
        rules_file=folder / "rules.toml",
        alert_rules_file=folder / "alerts.toml",
    )


async def test_alerts_go_to_the_channel_of_the_owner(
    settings: Settings, client: Client, fail: Fail, tmp_path: Path
) -> None:
    async with inbox() as payments, inbox() as harvest, inbox() as others:
        told = routed(
            settings, tmp_path, payments=payments.url, harvest=harvest.url, all=others.url
        )
        billing = await fail()
        group = await fail(service="harvest")
        await fail(service="weather")
        await drain_log(told)  # names the owners of what an older drain stored
        owned = care_of(told, billing)
        assert (owned["owner"], owned["owner_source"]) == ("@acme/payments", "CODEOWNERS")
        assert care_of(told, group)["owner"] == "@acme/platform"
        row = await say(told, group, owner="team-harvest", ticket="https://tracker.example/7")
        assert (row["owner"], row["owner_source"]) == ("team-harvest", "person")
        await evaluate_alerts(told)
    assert [[m["title"] for m in box.messages] for box in (payments, harvest, others)] == [
        ["FIRING: Critical errors: billing (owner */payments)"],
        ["FIRING: Critical errors: harvest (owner team-harvest)"],
        ["FIRING: Critical errors: weather"],
    ]
    said = harvest.messages[0]["message"]
    assert "Owner: team-harvest\nTicket: https://tracker.example/7" in said


async def test_the_monitor_sends_to_the_channel_of_the_owner(
    settings: Settings, client: Client, fail: Fail, tmp_path: Path
) -> None:
    async with inbox() as payments, inbox() as harvest, inbox() as others:
        told = routed(
            settings, tmp_path, payments=payments.url, harvest=harvest.url, all=others.url
        )
        await say(told, await fail(service="harvest"), owner="team-harvest")
        shown: list[str] = []
        screen = Screen(
            lambda event, _: shown.append(event.event_id), lambda _: None, lambda _: None
        )
        stop = asyncio.Event()
        watching = asyncio.create_task(watch(told, monitor_config(told), screen, stop))
        try:
            await seen(harvest.messages, 1)  # whom a person named, from the log so far
            await publish(
                client,
                told,
                [failure(900, "billing", tenant_id="test-1"), failure(901, "weather")],
            )
            await seen(others.messages, 1)
            assert payments.messages == []  # the rules say that this tenant fires nothing
            await publish(client, told, [failure(902, "billing")])  # not drained when it is sent
            await seen(payments.messages, 1)
        finally:
            stop.set()
            await watching
    assert len(set(shown)) == 4
    assert [[m["title"] for m in box.messages] for box in (payments, harvest, others)] == [
        ["app.errors.DatabaseError in billing: 1 dead letter"],
        ["app.errors.DatabaseError in harvest: 1 dead letter"],
        ["app.errors.DatabaseError in weather: 1 dead letter"],
    ]


async def test_the_monitor_says_which_channel_does_not_exist(
    settings: Settings, client: Client, tmp_path: Path
) -> None:
    told = routed(settings, tmp_path)
    screen = Screen(lambda *_: None, lambda _: None, lambda _: None)
    with pytest.raises(SettingsError, match="send to the channel 'all'"):
        await watch(told, monitor_config(told), screen, asyncio.Event())


@pytest.mark.parametrize("wildcard", ["**", "ab*", "a?c", "a.c", "a%_\\", "*/pay[m]ents", "é*"])
def test_the_monitor_and_the_rules_match_the_same(settings: Settings, wildcard: str) -> None:
    texts = ["", "abc", "a.c", "a%_\\", "@x/payments", "@x/pay[m]ents", "éa\nb", "ABC"]
    rules = read_alert_rules(f"[[overrides]]\nowner = {json.dumps(wildcard)}\nabove = 1")
    scope = rules.scopes(rules.rules[0])[0]
    for text in texts:
        [row] = query(settings, "SELECT %s::text LIKE %s AS is_like", text, sql_pattern(wildcard))
        assert scope.takes("any", None, text) == row["is_like"], text
