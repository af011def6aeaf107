"""Channels by their URLs: where each one sends, which URLs are invalid, and size limits."""

import base64

import apprise
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sahool_dlq.alerts.channels import open_channels
from sahool_dlq.alerts.chat import Chat
from sahool_dlq.alerts.message import Message
from sahool_dlq.errors import SettingsError

SECRET = base64.urlsafe_b64encode(bytes(range(32))).decode()

CHANNELS = {
    "discord://123456789012345678/abcdefghijklmnopqrstuvwxyz": 2_000,
    "tgram://123456789:abcdefghijklmnopqrstuvwxyz012345678/12345": 4_096,
    "clicksend://user:password@13055551234": 160,
    "pover://" + "u" * 30 + "@" + "t" * 30: 1_024,
    "ntfy://127.0.0.1/topic": 7_800,
    "mailto://127.0.0.1?from=a@example.org&to=b@example.org": 32_768,
    "json://127.0.0.1/": 32_768,
}


@pytest.mark.parametrize("url", CHANNELS)
@examples(max_examples=30, deadline=None)
@given(
    title=st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1),
    words=st.lists(st.text(st.sampled_from("aé<>&\"' \n\t"), min_size=1), min_size=1),
    times=st.sampled_from([1, 30, 3_000]),
)
def test_no_channel_is_given_more_than_it_takes(
    url: str, title: str, words: list[str], times: int
) -> None:
    chat, sent = Chat(url), []
    message = Message(title * times, ("What: " + " ".join(words)) * times)
    chat._target.send = lambda body, title="", **_: sent.append((title, body)) or True
    assert chat.send(message)
    [(title, body)] = sent
    target = chat._target
    shares = target.overflow_amalgamate_title
    assert len(body) + (len(title) if shares else 0) <= CHANNELS[url]
    assert len(title) <= target.title_maxlen
    assert body
    if "<" in body and target.notify_format is apprise.NotifyFormat.HTML:
        assert body.rstrip().rpartition("<")[2].count(">") == 1
        assert body.rpartition("&")[2].count(";") >= 1 or "&" not in body


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("webhook://127.0.0.1/x", "entry 1 has no secret: write webhooks://SECRET@host/path"),
        ("webhook://whsec_c2hvcnQ@h/", "entry 1 has no secret"),
        (f"webhook://{SECRET}@h/", "entry 1 has no secret"),
        (f"webhooks://whsec_{SECRET}@h/?token=hunter2", "entry 1 has the option token"),
        (f"webhook://whsec_{SECRET}@h:hunter2/", "entry 1 is no URL"),
        ("alertmanager:///x", "entry 1 names no host"),
        ("alertmanagers://hunter2@h/?cluster=eu", "entry 1 has the option cluster"),
        ("pagerduty://hunter2", "entry 1 is not valid for Apprise: see how it spells pagerduty"),
        ("opsgenie://?x=hunter2", "entry 1 is not valid for Apprise"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_without_showing_it(url: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refused:
        open_channels([url])
    assert reason in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("alertmanager://h", "http://h:9093/api/v2/alerts"),
        ("alertmanager://[::1]:80/am/", "http://[::1]:80/am/api/v2/alerts"),
        ("alertmanagers://u:p@h/am", "https://h/am/api/v2/alerts"),
        (f"webhooks://whsec_{SECRET.rstrip('=')}@h:8443/a/", "https://h:8443/a/"),
    ],
)
def test_where_a_url_leads(url: str, address: str) -> None:
    [channel] = open_channels([url])
    assert channel._target._url == address
    channel.close()
