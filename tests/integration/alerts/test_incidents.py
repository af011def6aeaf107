"""Alerts as incidents: each alert opens, acknowledges and closes one incident by its key."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from test_alerts_command import dlq

from sahool_dlq.alerts import evaluate, outbox
from sahool_dlq.alerts.evaluate import evaluate_alerts, send_test
from sahool_dlq.alerts.outbox import acknowledge_alerts
from sahool_dlq.settings import Settings
from support.alert_inbox import inbox
from support.alert_rows import add_failures
from support.alert_services import KEY, Services, services
from support.platform_log import execute, query

KEEPERS = ("pagerduty", "opsgenie", "alertmanager", "webhook")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TRIES_SECONDS", (0.01,))
    monkeypatch.setattr(outbox, "TRIES_SECONDS", (0.01,))


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Any:
    with services(monkeypatch) as running:
        yield running


def to(settings: Settings, *urls: str, rules: str = "") -> Settings:
    file = Path(settings.home) / "alerts.toml"
    file.write_text(rules)
    values = settings.model_dump() | {"alert_urls": list(urls), "alert_rules_file": file}
    return Settings(**values)


def later(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


def end(settings: Settings) -> None:
    past = "now() - interval '1 hour'"
    execute(settings, f"UPDATE failed_events SET dlq_timestamp = {past}, created_at = {past}")


async def test_an_alert_is_one_incident_from_its_beginning_to_its_end(
    settings: Settings, client: Client, box: Services
) -> None:
    async with inbox() as chat:
        settings = to(settings, *map(box.url, KEEPERS), chat.url)
        for service in ("ndvi", "weather"):
            add_failures(settings, 3, service=service, error_type="DatabaseError")
        first = await evaluate_alerts(settings)
        assert (first.delivered, first.waiting) == (4 * 2 + 1, 0)
        await evaluate_alerts(settings, later(61))  # a reminder opens no second one
        alerts, untold = await acknowledge_alerts(settings, [], "ada", "rolling back")
        assert (len(alerts), untold) == (2, [])
        assert list(box.pages.values()) == [["trigger", "acknowledge"]] * 2
        assert len(box.firing()) == 2
        assert "ada: rolling back" in box.firing()[0]["annotations"]["description"]
        end(settings)
        over = await evaluate_alerts(settings, later(70))
        assert (over.resolved, over.waiting) == (1, 0)
    assert list(box.pages.values()) == [["trigger", "acknowledge", "resolve"]] * 2
    assert list(box.alerts.values()) == [["create", "acknowledge", "close"]] * 2
    assert set(box.pages) == set(box.alerts) == {hook["data"]["key"] for hook in box.hooks}
    kinds = [hook["type"].removeprefix("alert.") for hook in box.hooks]
    assert kinds == ["trigger"] * 4 + ["acknowledge"] * 2 + ["resolve"] * 2
    assert len({hook["id"] for hook in box.hooks}) == 8
    assert len(box.alertmanager) == 2
    assert box.firing() == []
    assert len(chat.messages) == 3  # fires, still fires, is over: not acknowledged


async def test_each_service_is_told_in_its_own_words(
    settings: Settings, client: Client, box: Services
) -> None:
    settings = to(settings, *map(box.url, KEEPERS))
    add_failures(settings, 3, service="ndvi", error_type="DatabaseError")
    await evaluate_alerts(settings)
    [event] = box.pagerduty
    payload = event["payload"]
    assert payload["summary"] == "FIRING: Critical errors: ndvi"
    assert (payload["severity"], payload["class"]) == ("critical", "critical_errors")
    assert (payload["source"], payload["component"]) == ("sahool-dlq", "ndvi")
    assert "Next: dlq show " in payload["custom_details"]["text"]
    [alert] = box.opsgenie
    assert (alert["priority"], alert["entity"]) == ("P1", "ndvi")
    assert alert["tags"] == ["dlq", "iot"]
    assert alert["responders"] == [{"type": "team", "name": "ops"}]
    assert alert["details"]["site"] == "north"
    [held] = box.firing()
    assert held["labels"] == {
        "alertname": "DlqCriticalErrors",
        "severity": "critical",
        "rule": "critical_errors",
        "scope": "all",
        "subject": "ndvi",
        "cluster": "eu",
    }
    [hook] = box.hooks
    assert hook["data"]["subject"] == "ndvi"
    assert "ndvi" not in hook["data"]["key"]  # does not contain the tenant, also after an erasure


async def test_the_next_episode_has_the_same_key(
    settings: Settings, client: Client, box: Services
) -> None:
    settings = to(settings, box.url("pagerduty"))
    for minutes in (0, 60):
        add_failures(settings, 1, error_type="DatabaseError")
        await evaluate_alerts(settings, later(minutes))
        end(settings)
        await evaluate_alerts(settings, later(minutes + 10))
    assert list(box.pages.values()) == [["trigger", "resolve"] * 2]


@pytest.mark.parametrize("name", KEEPERS)
async def test_what_a_service_could_not_take_comes_later_and_in_order(
    settings: Settings, client: Client, box: Services, name: str
) -> None:
    settings = to(settings, box.url(name))
    add_failures(settings, 1, error_type="DatabaseError")
    box.status = 503
    assert (await evaluate_alerts(settings)).waiting == 1
    end(settings)
    down = await evaluate_alerts(settings, later(10))
    assert (down.resolved, down.waiting) == (1, 2)
    asked = len(box.asked)
    box.status = 200
    up = await evaluate_alerts(settings, later(11))
    assert (up.delivered, up.waiting, len(box.asked)) == (2, 0, asked + 2)
    ends = {
        "pagerduty": [*box.pages.values()] == [["trigger", "resolve"]],
        "opsgenie": [*box.alerts.values()] == [["create", "close"]],
        "alertmanager": len(box.alertmanager) == 1 and box.firing() == [],
        "webhook": [hook["type"] for hook in box.hooks] == ["alert.trigger", "alert.resolve"],
    }
    assert ends[name]


async def test_one_that_refuses_its_first_message_is_told_nothing_that_follows(
    settings: Settings, client: Client, box: Services
) -> None:
    settings = to(settings, box.url("pagerduty"))
    add_failures(settings, 1, error_type="DatabaseError")
    box.status = 400
    await evaluate_alerts(settings)
    tries = len(box.asked)
    await acknowledge_alerts(settings, [], "ada", "")
    assert len(box.asked) > tries
    tries = len(box.asked)
    await evaluate_alerts(settings, later(1))
    assert len(box.asked) - tries == 2  # the first message, twice, and not what follows
    box.status = 200
    await evaluate_alerts(settings, later(2))
    assert list(box.pages.values()) == [["trigger", "acknowledge"]]


async def test_an_alertmanager_that_was_restarted_is_reported_again(
    settings: Settings, client: Client, box: Services
) -> None:
    settings = to(settings, box.url("alertmanager"), box.url("pagerduty"))
    add_failures(settings, 1, error_type="DatabaseError")
    await evaluate_alerts(settings)
    box.alertmanager.clear()
    again = await evaluate_alerts(settings, later(1))
    assert (again.told, again.delivered, len(box.firing())) == ((), 0, 1)
    assert len(box.pagerduty) == 1
    box.alertmanager.clear()
    box.status = 503
    assert (await evaluate_alerts(settings, later(2))).waiting == 1  # it does not know
    end(settings)
    box.status = 200
    await evaluate_alerts(settings, later(10))
    await evaluate_alerts(settings, later(11))
    assert box.firing() == []


async def test_an_incident_is_closed_where_it_was_opened_whatever_the_rules_say_now(
    settings: Settings, client: Client, box: Services
) -> None:
    page, hook = f"page={box.url('pagerduty')}", f"hook={box.url('webhook')}"
    add_failures(settings, 1, error_type="DatabaseError")
    rules = '[rules.critical_errors]\nchannels = ["page"]'
    await evaluate_alerts(to(settings, page, hook, rules=rules))
    end(settings)
    rules = '[rules.critical_errors]\nchannels = ["hook"]'
    await evaluate_alerts(to(settings, page, hook, rules=rules), later(10))
    assert list(box.pages.values()) == [["trigger", "resolve"]]
    assert box.hooks == []


async def test_two_platforms_with_one_service_have_incidents_of_their_own(
    settings: Settings, client: Client, box: Services
) -> None:
    settings = to(settings, box.url("pagerduty"))
    add_failures(settings, 1, error_type="DatabaseError")
    await evaluate_alerts(settings)
    execute(settings, "UPDATE schema_migrations SET applied_at = applied_at - interval '1 day'")
    execute(settings, "DELETE FROM alerts")
    await evaluate_alerts(settings, later(1))
    assert list(box.pages.values()) == [["trigger"], ["trigger"]]


async def test_a_redirect_does_not_count_as_told(
    settings: Settings, client: Client, box: Services, caplog: pytest.LogCaptureFixture
) -> None:
    settings = to(settings, *map(box.url, KEEPERS))
    add_failures(settings, 1, error_type="DatabaseError")
    box.status = 302
    report = await evaluate_alerts(settings)
    assert (report.delivered, report.waiting) == (0, 4)
    assert "/landed" not in box.asked
    assert "PagerDuty answers with 302, a redirect: give the address" in caplog.text
    assert KEY not in caplog.text


async def test_a_test_leaves_no_incident_open(settings: Settings, box: Services) -> None:
    results = await send_test(to(settings, *map(box.url, KEEPERS)))
    assert list(results.values()) == [True] * 4
    assert list(box.pages.values()) == [["trigger", "resolve"]]
    assert list(box.alerts.values()) == [["create", "close"]]
    assert (len(box.alertmanager), box.firing()) == (1, [])
    assert [hook["type"] for hook in box.hooks] == ["alert.trigger", "alert.resolve"]
    box.status = 500
    results = await send_test(to(settings, box.url("pagerduty")))
    assert list(results.values()) == [False]


async def test_dlq_alerts_ack_tells_at_once_or_says_who_does_not_know(
    settings: Settings, client: Client, box: Services
) -> None:
    urls = [f"hook={box.url('webhook')}"]
    add_failures(settings, 1, error_type="DatabaseError")
    await evaluate_alerts(to(settings, *urls))
    number = query(settings, "SELECT id FROM alerts")[0]["id"]
    said = f"Acknowledged {number}: Critical errors: ndvi-service\n"
    status, blind, _ = await dlq(settings, "alerts", "ack")  # without a separate channel
    assert (status, blind) == (
        0,
        f"{said}The channel hook has not been told yet: the next evaluation tells it.\n",
    )
    assert len(box.hooks) == 1
    _, told, _ = await dlq(settings, "alerts", "ack", DLQ_ALERT_URLS=json.dumps(urls))
    assert told == said
    kinds = [hook["type"] for hook in box.hooks]
    assert kinds == ["alert.trigger", "alert.acknowledge", "alert.acknowledge"]


async def test_what_waits_for_a_channel_that_is_not_there_is_kept(
    settings: Settings, client: Client, box: Services
) -> None:
    urls = (f"page={box.url('pagerduty')}",)
    add_failures(settings, 1, error_type="DatabaseError")
    box.status = 503
    await evaluate_alerts(to(settings, *urls))
    box.status = 200
    status, _, errors = await dlq(settings, "alerts", "check")  # by somebody without DLQ_ALERT_URLS
    assert status == 1
    assert "DLQ_ALERT_URLS has no entry page, but a message for it is waiting" in errors
    assert (await evaluate_alerts(to(settings, *urls))).delivered == 1


# One entry for an incident ------------------------------------------------------------------------


def incident(settings: Settings, *services: str, until: str = "NULL") -> None:
    """An incident of these services in the marts, which began five minutes ago."""
    execute(settings, "DELETE FROM mart_incidents")
    execute(
        settings,
        "INSERT INTO mart_incidents (incident_id, from_at, until_at, services, group_count,"
        f" failure_count) VALUES ('20260302-11-2a56f4', now() - interval '5 minutes', {until},"
        " %s, 20, 906)",
        ", ".join(services),
    )


def end_of(settings: Settings, service: str) -> None:
    past = "now() - interval '1 hour'"
    execute(
        settings,
        f"UPDATE failed_events SET dlq_timestamp = {past}, created_at = {past}"
        " WHERE consumer_service = %s",
        service,
    )


def fail(settings: Settings, *services: str) -> None:
    for service in services:
        add_failures(settings, 3, service=service, error_type="DatabaseError")


async def test_all_alerts_of_an_incident_are_one_entry_that_ends_with_the_last_of_them(
    settings: Settings, client: Client, box: Services
) -> None:
    async with inbox() as chat:
        settings = to(settings, *map(box.url, KEEPERS), chat.url)
        many = [f"service-{n:02}" for n in range(20)]
        incident(settings, *many, "late")
        fail(settings, *many)
        first = await evaluate_alerts(settings)
        assert (len(first.firing), first.delivered) == (20, 5)
        fail(settings, "late", "beside")  # one joins, one is no part of it
        await evaluate_alerts(settings, later(1))
        assert list(box.pages.values()) == [["trigger"], ["trigger"]]
        entry, other = box.pages
        texts = [event["payload"] for event in box.pagerduty if event["dedup_key"] == entry]
        assert all(text["summary"].startswith("FIRING: incident of service-00") for text in texts)
        assert "dlq incident 20260302-11-2a56f4" in texts[-1]["custom_details"]["text"]
        assert "and 16 more" in texts[-1]["custom_details"]["text"]  # 21 by now, of which 5 named
        alone = [event for event in box.pagerduty if event["dedup_key"] == other]
        assert [event["payload"]["component"] for event in alone] == ["beside"]
        for name in many:
            end_of(settings, name)
        assert (await evaluate_alerts(settings, later(8))).resolved == 1  # a message to the chat
        assert list(box.pages.values()) == [["trigger"], ["trigger"]]
        end(settings)
        await evaluate_alerts(settings, later(16))
    assert list(box.pages.values()) == [["trigger", "resolve"]] * 2
    assert list(box.alerts.values()) == [["create", "close"]] * 2
    assert (len(box.alertmanager), box.firing()) == (2, [])
    assert {hook["data"]["key"] for hook in box.hooks} == {entry, other}


async def test_alerts_that_were_told_before_the_incident_was_known_move_to_its_entry(
    settings: Settings, client: Client, box: Services
) -> None:
    settings = to(settings, *map(box.url, KEEPERS))
    fail(settings, "weather")
    await evaluate_alerts(settings)
    fail(settings, "ndvi", "soil")
    await evaluate_alerts(settings, later(0.5))
    assert list(box.pages.values()) == [["trigger"]] * 3
    incident(settings, "weather", "ndvi", "soil")
    known = await evaluate_alerts(settings, later(1))
    assert known.told == ()  # people know them
    assert list(box.pages.values()) == [["trigger"], *[["trigger", "resolve"]] * 2]
    [kept, *_] = box.pages
    assert box.pagerduty[2 + 1]["dedup_key"] == kept  # the entry says all before others are closed
    assert "- soil: " in box.pagerduty[3]["payload"]["custom_details"]["text"]
    closed = [hook["data"] for hook in box.hooks if hook["type"] == "alert.resolve"]
    assert {each["title"] for each in closed} == {
        "JOINED: Critical errors: ndvi",
        "JOINED: Critical errors: soil",
    }
    assert [held["labels"]["subject"] for held in box.firing()] == ["weather"]
    box.alertmanager.clear()  # a restart
    sent = len(box.asked)
    await evaluate_alerts(settings, later(2))
    assert len(box.asked) == sent + 1
    assert [held["labels"]["subject"] for held in box.firing()] == ["weather"]
    end_of(settings, "weather")  # the first one ends; its entry goes on with the others
    await evaluate_alerts(settings, later(9))
    assert box.pages[kept] == ["trigger"]
    assert len(box.firing()) == 1
    incident(settings, "weather", "ndvi", "soil", until="now()")
    end(settings)
    await evaluate_alerts(settings, later(17))
    assert [states[-1] for states in box.pages.values()] == ["resolve"] * 3
    assert box.pages[kept] == ["trigger", "resolve"]
    assert box.firing() == []


async def test_the_entry_of_an_incident_is_acknowledged_when_all_its_alerts_are(
    settings: Settings, client: Client, box: Services
) -> None:
    settings = to(settings, box.url("pagerduty"))
    incident(settings, "weather", "ndvi")
    fail(settings, "weather", "ndvi")
    await evaluate_alerts(settings)
    one, two = (row["id"] for row in query(settings, "SELECT id FROM alerts ORDER BY id"))
    await acknowledge_alerts(settings, [one], "ada", "")
    assert list(box.pages.values()) == [["trigger"]]
    await acknowledge_alerts(settings, [two], "ada", "")
    assert list(box.pages.values()) == [["trigger", "acknowledge"]]


async def test_each_owner_has_one_entry_of_an_incident_for_the_own_alerts(
    settings: Settings, client: Client, box: Services
) -> None:
    rules = (
        '[[overrides]]\nservice = "ndvi"\nchannels = ["ndvi"]\n'
        '[[overrides]]\nservice = "weather"\nchannels = ["weather"]'
    )
    urls = (f"ndvi={box.url('pagerduty')}", f"weather={box.url('webhook')}")
    settings = to(settings, *urls, rules=rules)
    incident(settings, "weather", "ndvi")
    fail(settings, "weather", "ndvi")
    await evaluate_alerts(settings)
    [page], [hook] = box.pagerduty, box.hooks
    assert page["dedup_key"] == hook["data"]["key"]
    end_of(settings, "ndvi")
    await evaluate_alerts(settings, later(8))
    assert list(box.pages.values()) == [["trigger", "resolve"]]  # no alert of it goes there
    assert [hook["type"] for hook in box.hooks] == ["alert.trigger"]
