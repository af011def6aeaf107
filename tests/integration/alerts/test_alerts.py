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
from sahool_dlq.alerts.message import group_of, message_of
from sahool_dlq.alerts.notifier import GroupNotifier, UndeliveredError
from sahool_dlq.deadletter.fingerprint.fingerprint import fingerprint
from sahool_dlq.deadletter.fingerprint.rules import Group, GroupingRules
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.errors import SettingsError
from sahool_dlq.events import DLQEvent
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.settings import Settings
from support.alert_inbox import Inbox, inbox
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


def notifier(channels: list[Channel], clock: Clock | None = None, **options: Any) -> GroupNotifier:
    return GroupNotifier(
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
    group = group_of(odd, Redactor(), GroupingRules())
    since = datetime(2026, 1, 1, tzinfo=UTC)
    message = message_of(odd, group, Redactor(), count=1, new_count=1, since=since)
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
    stored = {row["dlq_sequence"]: row["group_id"] for row in failures(settings)}
    events = [
        DLQEvent.read(LogMessage("sahool.dlq.x", n, 10**18, body), "S")
        for n, body in enumerate([*bodies, letter(2), b"odd"], 1)
    ]
    redactor = settings.redactor(rules)
    assert {e.sequence: group_of(e, redactor, rules.grouping) for e in events} == stored
    assert group_of(events[1], redactor, mine) != stored[2]


async def _has_refused(box: Inbox) -> bool:
    return box.refused > 0
