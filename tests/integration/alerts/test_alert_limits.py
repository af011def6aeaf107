"""Messages longer than their channel accepts, redirects, and messages that are given up."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.client import Client
from test_alerts_command import dlq

from sahool_dlq.alerts import evaluate, outbox
from sahool_dlq.alerts.channels import open_channels
from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.alerts.message import Message
from sahool_dlq.settings import Settings
from support.alert_rows import add_failures
from support.alert_services import Services, services
from support.platform_log import execute, query

SQL = "(psycopg.errors.UndefinedColumn) SELECT <a> & \"b\" FROM 'fields'  WHERE ndvi > 0.4; " * 6


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TRIES_SECONDS", (0.01,))
    monkeypatch.setattr(outbox, "TRIES_SECONDS", (0.01,))


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Any:
    with services(monkeypatch) as running:
        yield running


def to(settings: Settings, *urls: str) -> Settings:
    return Settings(**settings.model_dump() | {"alert_urls": list(urls)})


def later(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


def outage(settings: Settings) -> None:
    """Fourteen services that fail, now and a day ago, and one unreadable message."""
    for number in range(14):
        facts = {"service": f"service-{number}-irrigation-and-weather", "message": SQL[:500]}
        add_failures(settings, 1, error_type="OperationalError", **facts)
        add_failures(settings, 1, minutes_ago=1_500, error_type="OperationalError", **facts)
    add_failures(settings, 1, parse_error="not JSON", message=SQL[:500])


@pytest.mark.parametrize("name", ["discord", "telegram", "sms"])
async def test_a_message_that_is_too_long_says_what_counts_and_that_it_is_cut(
    settings: Settings, client: Client, box: Services, name: str
) -> None:
    outage(settings)
    settings = to(settings, box.url(name))
    report = await evaluate_alerts(settings)
    assert (report.delivered, report.waiting) == (1, 0)
    [stored] = query(settings, "SELECT title, body FROM alert_messages")
    assert len(stored["body"]) > 2_000
    [said] = box.said
    assert said.endswith("… (cut)")
    plain = said.replace("&nbsp;", " ")
    assert "FIRING: Critical errors: " in plain
    assert plain.count("What: ") == (1 if name == "sms" else 3)
    if name != "sms":
        assert plain.index("Next: ") < plain.index("Sample: ")


async def test_a_message_that_fits_is_sent_as_it_is(
    settings: Settings, client: Client, box: Services
) -> None:
    add_failures(settings, 1, error_type="DatabaseError")
    settings = to(settings, box.url("discord"))
    await evaluate_alerts(settings)
    [stored] = query(settings, "SELECT title, body FROM alert_messages")
    assert box.said[0].split() == f"{stored['title']} {stored['body']}".split()


async def test_who_asks_for_a_split_gets_it_all(
    settings: Settings, client: Client, box: Services
) -> None:
    outage(settings)
    report = await evaluate_alerts(to(settings, box.url("discord") + "?overflow=split"))
    assert (report.delivered, len(box.said)) == (1, 2)


@pytest.mark.parametrize("status", [301, 302, 303, 307])
@pytest.mark.parametrize("name", ["discord", "telegram", "sms", "moved"])
async def test_a_redirect_is_no_delivery(box: Services, name: str, status: int) -> None:
    box.status = status
    for option in ("", "&redirect=yes", "&optional=yes"):
        [channel] = open_channels([f"{box.url(name)}?x=1{option}"])
        assert not await channel.deliver(Message("t", "b"), ())
        channel.close()
    assert "/landed" not in box.asked


async def test_what_is_not_told_is_reported_and_ends_a_check_with_1(
    settings: Settings, client: Client, box: Services
) -> None:
    add_failures(settings, 1, error_type="DatabaseError")
    urls = json.dumps([f"team={box.url('moved')}"])
    status, checked, errors = await dlq(settings, "alerts", "check", DLQ_ALERT_URLS=urls)
    assert status == 1
    assert "Messages taken: 0, waiting: 1. Failures marked: 0." in checked
    assert "The alert is no longer sent" not in errors  # yet
    status, shown, _ = await dlq(settings, "alerts")
    assert status == 0
    assert "The channel team did not accept messages: 1 waiting, 0 given up" in shown
    execute(settings, "UPDATE alert_messages SET created_at = now() - interval '25 hours'")
    status, checked, errors = await dlq(settings, "alerts", "check", DLQ_ALERT_URLS=urls)
    assert (status, "waiting: 0, given up: 1." in checked) == (1, True)
    assert "The alert is no longer sent to team: FIRING: Critical errors" in errors
    _, shown, _ = await dlq(settings, "alerts", "--json")
    [left] = json.loads(shown)["undelivered"]
    assert left == {"channel": "team", "waiting": 0, "given_up": 1}
    status, _, _ = await dlq(settings, "alerts", "check", DLQ_ALERT_URLS=urls)
    assert status == 0  # nothing new


async def test_without_a_channel_a_check_ends_with_0(settings: Settings, client: Client) -> None:
    add_failures(settings, 1, error_type="DatabaseError")
    status, _, errors = await dlq(settings, "alerts", "check")
    assert (status, "ALERT: FIRING: Critical errors" in errors) == (0, True)
    _, shown, _ = await dlq(settings, "alerts", "--json")
    assert json.loads(shown)["undelivered"] == []
