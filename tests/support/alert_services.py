"""Stand-ins for the services that alerts are sent to; each refuses what the real one refuses."""

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import apprise.plugins.clicksend
import apprise.plugins.discord
import apprise.plugins.opsgenie
import apprise.plugins.pagerduty
import apprise.plugins.telegram
import pytest
from flask import Flask, Response, redirect, request
from werkzeug.serving import make_server

SECRET = base64.urlsafe_b64encode(bytes(range(32))).decode()
KEY = "0123456789abcdef0123456789abcdef"


@dataclass
class Services:
    """Their state, and their requests; while `status` is not 200, all refuse."""

    host: str = ""
    status: int = 200
    asked: list[str] = field(default_factory=list)  # paths
    pages: dict[str, list[str]] = field(default_factory=dict)  # PagerDuty: states of a key
    pagerduty: list[dict[str, Any]] = field(default_factory=list)
    alerts: dict[str, list[str]] = field(default_factory=dict)  # Opsgenie: states of an alias
    opsgenie: list[dict[str, Any]] = field(default_factory=list)
    alertmanager: dict[str, dict[str, Any]] = field(default_factory=dict)  # by labels
    hooks: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # to people

    def url(self, name: str) -> str:
        return {
            "pagerduty": f"pagerduty://{KEY}@{KEY}/",
            "opsgenie": f"opsgenie://{KEY}/%23ops/?tags=dlq,iot&+site=north",
            "alertmanager": f"alertmanager://ada:pass@{self.host}/am?+cluster=eu",
            "webhook": f"webhook://whsec_{SECRET}@{self.host}/hook",
            "discord": "discord://123456789012345678/abcdefghijklmnopqrstuvwxyz",
            "telegram": "tgram://123456789:abcdefghijklmnopqrstuvwxyz012345678/12345",
            "sms": "clicksend://user:password@13055551234",
            "moved": f"json://{self.host}/moved",
        }[name]

    def firing(self) -> list[dict[str, Any]]:
        """The alerts that Alertmanager considers firing now."""
        now = datetime.now(UTC)
        return [a for a in self.alertmanager.values() if _at(a["endsAt"]) > now]


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text)


class _Tags(HTMLParser):
    """The tags that Telegram's parser would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag in ("b", "i", "code", "pre", "a")
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _app(box: Services) -> Flask:  # noqa: C901  (one branch for each service)
    app = Flask(__name__)

    @app.before_request
    def refuse() -> Response | None:
        box.asked.append(request.path)
        if box.status in (301, 302, 303):
            return redirect("/landed", box.status)
        return None if box.status == 200 else Response(status=box.status)

    @app.get("/landed")
    def landed() -> Response:
        return Response("{}")

    @app.post("/v2/enqueue")
    def enqueue() -> Response:
        event = request.get_json()
        action, key = event["event_action"], event["dedup_key"]
        assert event["routing_key"] == KEY
        assert len(key) <= 255
        assert action in ("trigger", "acknowledge", "resolve")
        if action == "trigger":
            payload = event["payload"]
            assert 0 < len(payload["summary"]) <= 1024
            assert payload["severity"] in ("critical", "error", "warning", "info")
            assert payload["source"]
        box.pagerduty.append(event)
        states = box.pages.setdefault(key, [])
        if action == "trigger" and (not states or states[-1] == "resolve"):
            states.append("trigger")
        elif action != "trigger" and states and states[-1] != "resolve":
            states.append(action)
        return Response("{}", 202)

    @app.post("/v2/alerts")
    def create() -> Response:
        alert = request.get_json()
        assert request.headers["Authorization"] == f"GenieKey {KEY}"
        assert 0 < len(alert["message"]) <= 130
        assert len(alert["alias"]) <= 512
        box.opsgenie.append(alert)
        states = box.alerts.setdefault(alert["alias"], [])
        if not states or states[-1] == "close":
            states.append("create")
        return Response('{"requestId": "1"}', 202)

    @app.post("/v2/alerts/<alias>/<verb>")
    def change(alias: str, verb: str) -> Response:
        assert request.args["identifierType"] == "alias"
        assert verb in ("acknowledge", "close")
        if (states := box.alerts.get(alias)) and states[-1] != "close":
            states.append(verb)
        return Response('{"requestId": "2"}', 202)

    @app.post("/am/api/v2/alerts")
    def post_alerts() -> Response:
        login = request.authorization
        assert login is not None
        assert (login.username, login.password) == ("ada", "pass")
        for alert in request.get_json():
            labels = alert["labels"]
            assert labels["alertname"]
            assert all(labels.values())
            starts, ends = _at(alert["startsAt"]), _at(alert["endsAt"])
            assert starts <= ends
            key = str(sorted(labels.items()))
            held = box.alertmanager.get(key)
            if ends > datetime.now(UTC) and held and _at(held["endsAt"]) > ends:
                alert["endsAt"] = held["endsAt"]  # an end that has not come puts off none
            box.alertmanager[key] = alert
        return Response("", 200)

    @app.post("/hook")
    def hook() -> Response:
        number, stamp = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        signed = f"{number}.{stamp}.".encode() + request.get_data()
        digest = hmac.digest(bytes(range(32)), signed, hashlib.sha256)
        expected = f"v1,{base64.b64encode(digest).decode()}"
        if request.headers["webhook-signature"] != expected or abs(time.time() - int(stamp)) > 300:
            return Response(status=401)
        box.hooks.append({"id": number, **request.get_json()})
        return Response(status=204)

    @app.post("/api/webhooks/<number>/<token>")
    def discord(number: str, token: str) -> Response:
        return _say(box, request.get_json()["content"], 2_000)

    @app.post("/bot<token>/sendMessage")
    def telegram(token: str) -> Response:
        text = request.get_json()["text"]
        if text.rpartition("<")[2].count(">") == 0 and "<" in text:
            return Response('{"description": "can\'t parse entities"}', 400)
        tags = _Tags()
        tags.feed(text)
        assert tags.open == []
        return _say(box, text, 4_096)

    @app.post("/v3/sms/send")
    def sms() -> Response:
        return _say(box, request.get_json()["messages"][0]["body"], 160)

    @app.post("/moved")
    def moved() -> Response:
        return redirect("/landed", 302)

    return app


def _say(box: Services, text: str, limit: int) -> Response:
    if len(text) > limit:
        return Response('{"description": "message is too long"}', 400)
    box.said.append(text)
    return Response("{}")


@contextmanager
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """All services on one port of loopback."""
    box = Services()
    server = make_server("127.0.0.1", 0, _app(box), threaded=True)
    box.host = f"127.0.0.1:{server.server_port}"
    base = f"http://{box.host}"
    plugins = apprise.plugins
    monkeypatch.setitem(plugins.pagerduty.PAGERDUTY_API_LOOKUP, "us", f"{base}/v2/enqueue")
    monkeypatch.setitem(plugins.opsgenie.OPSGENIE_API_LOOKUP, "us", f"{base}/v2/alerts")
    for plugin, path in (
        (plugins.discord.NotifyDiscord, "/api/webhooks"),
        (plugins.telegram.NotifyTelegram, "/bot"),
        (plugins.clicksend.NotifyClickSend, "/v3/sms/send"),
    ):
        monkeypatch.setattr(plugin, "notify_url", base + path)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield box
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
