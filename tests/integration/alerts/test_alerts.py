"""Alerts through Apprise to a real HTTP server, while another channel is down."""

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from sahool_dlq.alerts.channels import Channel, open_channels
from sahool_dlq.alerts.message import message_of, prints_of
from sahool_dlq.alerts.notifier import OutageNotifier, UndeliveredError
from sahool_dlq.deadletter.fingerprint.fingerprint import fingerprint
from sahool_dlq.deadletter.fingerprint.rules import Group, GroupingRules
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.errors import SettingsError
from sahool_dlq.events import DLQEvent
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.alert_inbox import Inbox, inbox
from support.alert_services import services
from support.consumer_log import until
from support.platform_log import failures, letter, publish

QUICK = (0.05, 0.05)


def event(number: int, **changes: Any) -> DLQEvent:
    body = letter(number, **changes)
    message = LogMessage("sahool.dlq.ndvi_computed", number, 2 * 10**18, body)
    return DLQEvent.read(message, "SAHOOL_DLQ")


@dataclass
class Clock:
    now: float = 0

    def __call__(self) -> float:
        return self.now


def notifier(channels: list[Channel], clock: Clock | None = None, **options: Any) -> OutageNotifier:
    return OutageNotifier(
        channels,
        Redactor(),
        GroupingRules(),
        **{"cooldown_seconds": 600, "gather_seconds": 0.2, "clock": clock or Clock(), **options},
    )


async def test_an_outage_is_one_message_that_says_what_is_needed() -> None:
    async with inbox() as box, notifier(open_channels([box.url])) as notify:
        await asyncio.gather(*(notify(event(n)) for n in range(1, 501)))
    [message] = box.messages
    group = fingerprint("ConnectionError", "no connection to host 1", None).group_id
    assert message["title"] == "ConnectionError in satellite-service: 500 dead letters"
    assert message["message"].splitlines() == [
        "What: ConnectionError: no connection to host 1",
        "Where: satellite-service, on sahool.analysis.ndvi_computed",
        "Since: 2026-01-02 03:04:07 UTC",
        "How many: 500",
        f"Next: dlq show {event(1).failure_id}",
        f"The group: dlq show {group}",
        'Sample: {"number":1,"name":"Gänse 1","list":[1,null,1.5]}',
    ]


async def test_nothing_is_sent_about_a_group_while_it_is_muted() -> None:
    group = fingerprint("ConnectionError", "no connection to host 1", None).group_id
    muted = {group}
    async with (
        inbox() as box,
        notifier(open_channels([box.url]), is_muted=muted.__contains__) as notify,
    ):
        await asyncio.gather(notify(event(1)), notify(event(2, error_type="DatabaseError")))
        muted.clear()
        await notify(event(3))
    assert [message["title"] for message in box.messages] == [
        "DatabaseError in satellite-service: 1 dead letter",
        "ConnectionError in satellite-service: 1 dead letter",
    ]


async def test_each_group_has_its_message_and_the_next_comes_after_the_cooldown() -> None:
    clock = Clock()
    async with inbox() as box, notifier(open_channels([box.url]), clock) as notify:
        await asyncio.gather(notify(event(1)), notify(event(2, error_type="DatabaseError")))
        clock.now = 300
        await asyncio.gather(*(notify(event(n)) for n in range(3, 13)))
        assert len(box.messages) == 2
        clock.now = 600
        await notify(event(13))
        assert len(box.messages) == 3
        assert "How many: 12, 11 of them new" in box.messages[2]["message"]
        clock.now = 1_201  # a silence longer than the cool-down: another outage
        await notify(event(14, dlq_timestamp="2026-02-01T00:00:00Z"))
    assert "Since: 2026-02-01 00:00:00 UTC\nHow many: 1\n" in box.messages[3]["message"]


def of_a_broker(number: int) -> DLQEvent:
    """A failure of one broker, each from another place of our code, of seven services."""
    trace = (
        "Traceback (most recent call last):\n"
        f'  File "/app/service_{number}.py", line 7, in handle_{number}\n'
        f"    store_{number}(event)\n"
        '  File "/usr/lib/python3/site-packages/redis/connection.py", line 698, in connect\n'
        "    raise ConnectionError(self._error_message(e))\n"
        "redis.exceptions.ConnectionError: Error 111 connecting to redis:6379. Refused.\n"
    )
    return event(
        number,
        error_type="redis.exceptions.ConnectionError",
        error_message="Error 111 connecting to redis:6379. Refused.",
        stack_trace=trace,
        source_service=f"service-{number % 7}",
    )


async def test_twenty_groups_of_one_cause_are_one_message_and_one_entry_that_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = [of_a_broker(number) for number in range(20)]
    prints = [prints_of(each, Redactor(), GroupingRules()) for each in events]
    assert len({group for group, _ in prints}) == 20
    assert len({cause for _, cause in prints}) == 1
    clock = Clock()
    with services(monkeypatch) as keepers:
        channels = open_channels([keepers.url("pagerduty"), keepers.url("webhook")])
        async with inbox() as box:
            channels += open_channels([box.url])
            async with notifier(channels, clock, look_seconds=0.01) as notify:
                await asyncio.gather(*map(notify, events))
                clock.now = 601
                await until(lambda: _is(len(keepers.hooks) == 2))
                assert list(keepers.pages.values()) == [["trigger", "resolve"]]
                await notify(events[3])  # it comes back: the same key again
        assert list(keepers.pages.values()) == [["trigger", "resolve", "trigger"]]
    assert [message["title"] for message in box.messages] == [
        "redis.exceptions.ConnectionError in service-0 and 6 more services: 20 dead letters",
        "redis.exceptions.ConnectionError in service-3: 1 dead letter",
    ]
    assert "How many: 20, in 20 groups\n" in box.messages[0]["message"]
    assert "The groups: dlq groups\n" in box.messages[0]["message"]
    assert [hook["type"] for hook in keepers.hooks][:2] == ["alert.trigger", "alert.resolve"]
    assert "No dead letter of it for 10 min." in keepers.hooks[1]["data"]["text"]


async def test_an_entry_that_was_not_closed_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    with services(monkeypatch) as keepers:
        channels = open_channels([keepers.url("pagerduty")])
        async with notifier(channels, clock, look_seconds=0.01) as notify:
            await notify(event(1))
            keepers.status = 503
            clock.now = 601
            asked = len(keepers.asked)
            await until(lambda: _is(len(keepers.asked) >= asked + 2))
            assert list(keepers.pages.values()) == [["trigger"]]
            keepers.status = 200
            await until(lambda: _is(list(keepers.pages.values()) == [["trigger", "resolve"]]))


async def _is(condition: bool) -> bool:
    return condition


async def test_no_secret_reaches_a_channel() -> None:
    failure = event(
        1,
        error_message="login failed: password=hunter2 for ada@example.org",
        original_data={"password": "hunter2", "ndvi": 0.5},
    )
    async with inbox() as box, notifier(open_channels([box.url])) as notify:
        await notify(failure)
    text = json.dumps(box.messages)
    assert "0.5" in text
    assert "hunter2" not in text
    assert "ada@" not in text


async def test_words_of_a_dead_letter_steer_no_chat() -> None:
    odd = "\x1b[31m\u202e<!channel> @everyone\nNext: rm -rf"
    failure = event(1, error_message=odd, error_type="@here", original_data={"x": odd})
    async with inbox() as box, notifier(open_channels([box.url])) as notify:
        await notify(failure)
    [message] = box.messages
    text = message["title"] + message["message"]
    for command in ("\x1b", "\u202e", "<!", "@everyone", "@here", "\nNext: rm"):
        assert command not in text


async def test_a_channel_that_is_down_blocks_no_other_and_gets_it_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Channel.deliver, "__defaults__", ((0.3,) * 20,))
    async with inbox(status=503) as down, inbox() as up:
        async with notifier(open_channels([down.url, up.url])) as notify:
            await notify(event(1))
            assert (down.messages, len(up.messages)) == ([], 1)
            await until(lambda: _has_refused(down))
            down.status = 200
        assert len(down.messages) == 1  # it was tried on until closing
        assert len(up.messages) == 1
    assert "hunter2" not in caplog.text
    assert "JSON (entry 1 of DLQ_ALERT_URLS) did not accept an alert" in caplog.text


async def test_an_alert_that_no_channel_took_is_refused_and_sent_again_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Channel.deliver, "__defaults__", (QUICK,))
    async with inbox(status=500) as box, notifier(open_channels([box.url])) as notify:
        with pytest.raises(UndeliveredError):
            await notify(event(1))
        assert box.refused == 1 + len(QUICK)
        box.status = 200
        await notify(event(1))
        assert "How many: 1\n" in box.messages[0]["message"]


async def test_without_channels_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with notifier([]) as notify:
            await notify(event(1))
            await notify(event(2))
    assert caplog.text.count("ALERT: ConnectionError in satellite-service: 1 dead letter\n") == 1


def test_an_invalid_url_is_refused_without_showing_it() -> None:
    with pytest.raises(SettingsError, match="entry 2 is not a channel") as refused:
        open_channels(["json://127.0.0.1/", "slakc://hunter2"])
    assert "hunter2" not in str(refused.value)
    with pytest.raises(SettingsError, match="two entries are named team"):
        open_channels(["team=json://127.0.0.1/a", "team=json://127.0.0.1/b"])


def test_any_bytes_make_a_message() -> None:
    odd = DLQEvent.read(LogMessage("sahool.dlq.x", 1, 10**18, b"\xff\x00"), "SAHOOL_DLQ")
    group, cause = prints_of(odd, Redactor(), GroupingRules())
    since = datetime(2026, 1, 1, tzinfo=UTC)
    counts = {"count": 1, "new_count": 1}
    where = {"groups": [group], "services": [odd.service]}
    message = message_of(odd, cause, Redactor(), **where, **counts, since=since)
    assert message.title == "unknown in unknown: 1 dead letter"


async def test_the_group_is_the_one_that_the_drain_finds(
    settings: Settings, client: Client
) -> None:
    trace = 'Traceback:\n  File "ndvi.py", line 3, in fetch\nValueError: password=hunter2'
    bodies = [letter(1, error_message="key=s3cr3t for ada@example.org", stack_trace=trace)]
    await publish(client, settings, [*bodies, letter(2), b"odd"])
    await drain_log(settings)
    rules = settings.rules
    mine = GroupingRules(group=(Group(name="mine", error_message="no connection"),))
    stored = {r["dlq_sequence"]: (r["group_id"], r["cause_id"]) for r in failures(settings)}
    events = [
        DLQEvent.read(LogMessage("sahool.dlq.x", n, 10**18, body), "S")
        for n, body in enumerate([*bodies, letter(2), b"odd"], 1)
    ]
    redactor = settings.redactor(rules)
    assert {e.sequence: prints_of(e, redactor, rules.grouping) for e in events} == stored
    assert prints_of(events[1], redactor, mine)[0] != stored[2][0]


async def _has_refused(box: Inbox) -> bool:
    return box.refused > 0
