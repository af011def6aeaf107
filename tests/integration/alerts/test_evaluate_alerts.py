"""evaluate_alerts on real servers: what is sent, where and how often, and what is marked."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import DiscardPolicy

from sahool_dlq.alerts import evaluate, outbox
from sahool_dlq.alerts.channels import Channel
from sahool_dlq.alerts.evaluate import evaluate_alerts, send_test
from sahool_dlq.alerts.message import Message
from sahool_dlq.errors import SettingsError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.alert_inbox import inbox, mailbox
from support.alert_rows import add_failures
from support.platform_log import execute, failures, letter, publish, query


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TRIES_SECONDS", (0.01,))
    monkeypatch.setattr(outbox, "TRIES_SECONDS", (0.01,))


def with_channels(settings: Settings, *urls: str, rules: str = "") -> Settings:
    file = Path(settings.home) / "alerts.toml"
    file.write_text(rules)
    values = settings.model_dump() | {"alert_urls": list(urls), "alert_rules_file": file}
    return Settings(**values)


def minutes_later(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


async def test_an_outage_is_one_message_then_silence_then_its_end(
    settings: Settings, client: Client
) -> None:
    async with inbox() as box:
        settings = with_channels(settings, box.url)
        for service in ("ndvi", "weather"):
            add_failures(settings, 250, service=service, error_type="DatabaseError")
        first = await evaluate_alerts(settings)
        assert (len(first.firing), first.pending, first.delivered) == (2, 1, 1)
        again = [await evaluate_alerts(settings, minutes_later(n)) for n in (1, 1.5)]
        assert [report.told for report in again] == [(), ()]
        rate = await evaluate_alerts(settings, minutes_later(2.1))
        assert rate.told == ("FIRING: Dead letters come too fast",)
        past = "now() - interval '1 hour'"
        execute(settings, f"UPDATE failed_events SET dlq_timestamp = {past}, created_at = {past}")
        quiet = await evaluate_alerts(settings, minutes_later(8))
        assert quiet.resolved == 1
        assert quiet.firing == ()
    titles = [message["title"] for message in box.messages]
    assert titles[0] == "FIRING: Critical errors: ndvi and 1 more"
    assert len(titles) == 3
    assert titles[2].startswith("RESOLVED: ")
    assert [message["type"] for message in box.messages] == ["failure", "failure", "success"]
    assert "How many: 500 failures\n" in box.messages[0]["message"]


async def test_alerts_of_an_incident_speak_of_it(settings: Settings, client: Client) -> None:
    columns = "incident_id, from_at, until_at, services, group_count, failure_count"
    since = "now() - interval '3 minutes'"
    for row in (
        f"'20260302-11-2a56f4', {since}, NULL, 'weather, ndvi', 2, 906",
        f"'20260302-10-b47fc4', {since}, now(), 'weather, billing', 2, 77",  # is over
    ):
        execute(settings, f"INSERT INTO mart_incidents ({columns}) VALUES ({row})")
    async with inbox() as box:
        settings = with_channels(settings, box.url)
        for service in ("ndvi", "weather"):
            add_failures(settings, 30, service=service, error_type="DatabaseError")
        await evaluate_alerts(settings)
    [message] = box.messages
    assert message["title"] == "FIRING: incident of weather, ndvi: Critical errors"
    first, second = message["message"].splitlines()[:2]
    assert first.startswith("Incident: weather, ndvi; 906 failures in 2 groups since ")
    assert second == "Timeline: dlq incident 20260302-11-2a56f4"
    assert "billing" not in message["message"]


async def test_what_an_alert_named_is_marked_through_the_log(
    settings: Settings, client: Client
) -> None:
    now = datetime.now(UTC).isoformat()
    facts = {"error_type": "DatabaseError", "dlq_timestamp": now, "error_message": "<!channel> x"}
    await publish(client, settings, [letter(n, **facts) for n in range(3)])
    await publish(client, settings, [letter(9, dlq_timestamp=now)])
    await drain_log(settings)
    async with inbox() as box:
        settings = with_channels(settings, box.url)
        report = await evaluate_alerts(settings)
        assert report.marked == 3
        await evaluate_alerts(settings)  # decided again before the drain: no second alert
    await drain_log(settings)
    marked = {row["event_id"] for row in failures(settings) if row["alert_sent"]}
    assert marked == {"event-0", "event-1", "event-2"}
    assert all(row["alert_sent_at"] for row in failures(settings) if row["alert_sent"])
    info = await client.jetstream().stream_info(settings.dlq_stream)
    assert info.state.messages == 4 + 3
    assert "<!channel>" not in box.messages[0]["message"]
    [message] = query(settings, "SELECT * FROM alert_messages")
    assert (
        f"Next: dlq show {query(settings, 'SELECT sample_id FROM alerts')[0]['sample_id']}"
        in (message["body"])
    )


async def test_nothing_is_marked_without_an_alert_about_it(
    settings: Settings, client: Client
) -> None:
    add_failures(settings, 5, error_type="DatabaseError")
    alone = await evaluate_alerts(settings)
    assert (len(alone.firing), alone.marked, alone.waiting) == (1, 0, 0)
    assert (await evaluate_alerts(settings)).told == ()


async def test_a_channel_that_is_down_holds_up_no_other_and_gets_it_at_a_later_run(
    settings: Settings, client: Client
) -> None:
    add_failures(settings, 1, error_type="DatabaseError")
    async with inbox(status=503) as down, inbox() as up:
        settings = with_channels(settings, down.url, up.url)
        report = await evaluate_alerts(settings)
        assert (report.delivered, report.waiting, len(up.messages)) == (1, 1, 1)
        assert down.refused == 2
        down.status = 200
        later = await evaluate_alerts(settings, minutes_later(1))
        assert (later.delivered, later.waiting, later.told) == (1, 0, ())
    assert down.messages == up.messages
    assert len(up.messages) == 1


async def test_a_message_that_a_channel_refuses_holds_up_none_behind_it(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = Channel.deliver

    async def choosy(channel: Channel, message: Message, *rest: Any) -> bool:
        return "critical" not in message.title.lower() and await deliver(channel, message, *rest)

    monkeypatch.setattr(Channel, "deliver", choosy)
    add_failures(settings, 1, error_type="DatabaseError")
    async with inbox() as box:
        settings = with_channels(settings, box.url)
        assert (await evaluate_alerts(settings)).waiting == 1
        add_failures(settings, 1, parse_error="not JSON")
        report = await evaluate_alerts(settings, minutes_later(1))
    assert (report.delivered, report.waiting) == (1, 1)
    assert box.messages[0]["title"] == "FIRING: Messages could not be read as dead letters"


async def test_an_evaluation_that_failed_does_not_count_as_one(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise SettingsError("no")

    monkeypatch.setattr(evaluate, "what_is_found", fail)
    with pytest.raises(SettingsError):
        await evaluate_alerts(settings)
    assert query(settings, "SELECT * FROM stream_samples") == []


async def test_a_run_that_died_before_it_sent_says_it_at_the_next(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_failures(settings, 1, error_type="DatabaseError")

    async def die(*_: Any) -> Any:
        raise KeyboardInterrupt

    async with inbox() as box:
        settings = with_channels(settings, box.url)
        with monkeypatch.context() as patched:
            patched.setattr(evaluate, "deliver", die)
            with pytest.raises(KeyboardInterrupt):
                await evaluate_alerts(settings)
        assert box.messages == []
        assert (await evaluate_alerts(settings)).delivered == 1
    assert len(box.messages) == 1


async def test_each_alert_goes_where_its_rule_or_service_says(
    settings: Settings, client: Client
) -> None:
    rules = """
    [rules.critical_errors]
    channels = ["oncall"]
    [[overrides]]
    service = "billing-*"
    channels = ["billing", "oncall"]
    """
    add_failures(settings, 1, error_type="DatabaseError")
    add_failures(settings, 1, error_type="DatabaseError", service="billing-api")
    add_failures(settings, 1, parse_error="not JSON")
    async with inbox() as oncall, inbox() as billing, inbox() as others:
        urls = (f"oncall={oncall.url}", f"billing={billing.url}", f"others={others.url}")
        await evaluate_alerts(with_channels(settings, *urls, rules=rules))
    told = [{m["title"] for m in box.messages} for box in (oncall, billing, others)]
    everywhere = "FIRING: Messages could not be read as dead letters"
    of_billing = "FIRING: Critical errors: billing-api (service billing-*)"
    assert told[0] == {everywhere, of_billing, "FIRING: Critical errors: ndvi-service"}
    assert told[1] == {everywhere, of_billing}
    assert told[2] == {everywhere}


async def test_a_route_to_a_channel_that_is_not_there_is_refused(settings: Settings) -> None:
    settings = with_channels(settings, rules='[defaults]\nchannels = ["oncall"]')
    with pytest.raises(SettingsError, match='give it an entry "oncall=…"'):
        await evaluate_alerts(settings)


async def test_an_alert_by_mail_contains_no_markup_or_control_characters(
    settings: Settings, client: Client
) -> None:
    message = "<script>alert(1)</script>\x1b[31m"
    add_failures(settings, 2, error_type="AuthenticationError", message=message)
    async with mailbox() as box:
        report = await evaluate_alerts(with_channels(settings, box.url))
        assert report.delivered == 1
    [mail] = box.messages
    assert mail["Subject"] == "FIRING: Critical errors: ndvi-service"
    body = mail.get_body(("html", "plain"))
    assert body is not None
    text = body.get_content().replace("&nbsp;", " ")
    assert "AuthenticationError 2" in text
    assert "<script" not in text
    assert "\x1b" not in text


async def test_a_log_that_is_full_or_gone_is_an_alert(settings: Settings, client: Client) -> None:
    js = client.jetstream()
    info = await js.stream_info(settings.dlq_stream)
    info.config.max_msgs, info.config.discard = 2, DiscardPolicy.NEW
    await js.update_stream(info.config)
    await publish(client, settings, [letter(1), letter(2)])
    report = await evaluate_alerts(settings)
    assert {text.partition(":")[0] for text in report.firing} == {
        "The dead-letter stream cannot be read or written",
        "The dead-letter stream is near its limits",
    }
    row = query(settings, "SELECT detail FROM alerts WHERE rule = 'dlq_unwritable'")[0]
    assert row["detail"] == "it is full: 2 of 2 messages, and it refuses new ones"
    await js.delete_stream(settings.dlq_stream)
    gone = await evaluate_alerts(settings, minutes_later(1))
    assert any("cannot be read" in text for text in gone.firing)


async def test_a_consumer_that_holds_its_dead_letters_is_an_alert(
    settings: Settings, client: Client
) -> None:
    for service, is_writable in (("ndvi", False), ("weather", True)):
        body = {"service": service, "consumer": "c", "is_dlq_writable": is_writable}
        subject = settings.subjects.total(service, "c")
        await client.jetstream().publish(subject, json.dumps(body).encode())
    await evaluate_alerts(settings)
    row = query(settings, "SELECT detail FROM alerts WHERE rule = 'dlq_unwritable'")[0]
    assert row["detail"] == "ndvi cannot write dead letters and hold them back"


async def test_without_nats_the_rest_is_evaluated_and_that_is_an_alert(settings: Settings) -> None:
    add_failures(settings, 1, error_type="DatabaseError")
    settings = Settings(**settings.model_dump() | {"nats_url": "nats://127.0.0.1:1"})
    report = await evaluate_alerts(settings)
    assert len(report.firing) == 2


async def test_a_consumer_without_totals_is_looked_at_for_progress(
    settings: Settings, client: Client
) -> None:
    js, durable = client.jetstream(), f"d{uuid.uuid4().hex[:6]}"
    subject = f"{settings.subject_prefix}.analysis.x"
    subscription = await js.pull_subscribe(subject, durable, stream=settings.events_stream)
    await js.publish(subject, b"1")
    add_failures(settings, 6, stream=settings.events_stream, consumer=durable)
    report = await evaluate_alerts(settings)
    assert [text.partition(":")[0] for text in report.unknown] == ["ndvi-service"]
    execute(settings, "UPDATE consumer_samples SET at = at - interval '2 minutes'")
    stuck = await evaluate_alerts(settings)
    assert "A service fails all its messages: ndvi-service" in stuck.firing
    [message] = await subscription.fetch(1)
    await message.ack_sync()
    await evaluate_alerts(settings, minutes_later(0.1))
    samples = query(settings, "SELECT acknowledged_sequence FROM consumer_samples ORDER BY at")
    assert [row["acknowledged_sequence"] for row in samples] == [0, 0, 1]


async def test_what_dead_letters_say_of_consumers_and_totals_stops_no_evaluation(
    settings: Settings, client: Client
) -> None:
    js, durable = client.jetstream(), f"خدمة{uuid.uuid4().hex[:6]}"
    subject = f"{settings.subject_prefix}.analysis.x"
    await js.pull_subscribe(subject, durable, stream=settings.events_stream)
    impossible = ("a b", "a.*", ">", "x/y", "tab\t", "\x0b", "", "\u2028")
    for name in impossible:
        add_failures(settings, 1, stream=settings.events_stream, consumer=name)
        add_failures(settings, 1, stream=name, consumer=durable)
    add_failures(settings, 1, stream="NO_SUCH", consumer=durable)
    add_failures(settings, 6, stream=settings.events_stream, consumer=durable)
    for number, service in enumerate(("a\0b", "\ud800", ["x"], "s" * 5_000)):
        body = {"service": service, "consumer": "c", "is_dlq_writable": False}
        await js.publish(settings.subjects.total(f"t{number}", "c"), json.dumps(body).encode())
    await js.publish(settings.subjects.total("t9", "c"), b"[" * 100_000)
    report = await evaluate_alerts(settings)
    samples = query(settings, "SELECT consumer FROM consumer_samples")
    assert [row["consumer"] for row in samples] == [durable]
    assert [text for text in report.unknown if text.startswith(f"{2 * len(impossible)} consumers")]
    row = query(settings, "SELECT detail FROM alerts WHERE rule = 'dlq_unwritable'")[0]
    assert "a\N{REPLACEMENT CHARACTER}b" in row["detail"]
    assert len(row["detail"]) < 1_000
    assert (await evaluate_alerts(settings, minutes_later(1))).firing == report.firing


async def test_a_test_is_sent_to_every_channel(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="set DLQ_ALERT_URLS"):
        await send_test(settings)
    async with inbox() as up, inbox(status=500) as down:
        results = await send_test(with_channels(settings, up.url, f"x={down.url}"))
    assert list(results.values()) == [True, False]
    assert up.messages[0]["title"] == "TEST: alerts of sahool-dlq arrive here"
