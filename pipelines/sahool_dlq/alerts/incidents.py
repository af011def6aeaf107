"""Incident services: an alert opens an incident, and the same key closes it.

PagerDuty (Events v2) and Opsgenie with Apprise's URLs, Alertmanager (v2), and a signed webhook
(Standard Webhooks). A redirect is refused, because it would lose the body.
"""

import base64
import binascii
import hashlib
import hmac
import json
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from sahool_dlq.alerts.message import Incident, Message
from sahool_dlq.alerts.prometheus import alert_name

__all__ = ["IncidentService", "incident_service"]

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10.0
_STANDS_FOR = timedelta(hours=24)  # lifetime of an alert in Alertmanager that is not sent again
_LEAST_SECRET_BYTES = 24


@dataclass(frozen=True, slots=True)
class _Request:
    """What is posted."""

    url: str
    body: Any  # as JSON
    headers: dict[str, str]


class IncidentService(ABC):
    """One incident service; each kind builds its own request."""

    is_for_incidents, is_forgetful = True, False
    name = ""
    is_verified = True  # whether its certificate is checked

    @abstractmethod
    def _request(self, message: Message, incident: Incident) -> _Request:
        """What to post for a message about this incident."""

    def send(self, message: Message) -> bool:
        """Whether the service accepted it."""
        import httpx  # slow to import, and only needed with such a channel

        assert message.incident is not None
        request = self._request(message, message.incident)
        try:
            answer = httpx.post(
                request.url,
                content=_encode(request.body),
                headers={"Content-Type": "application/json", **request.headers},
                verify=self.is_verified,
                timeout=_TIMEOUT_SECONDS,
                follow_redirects=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            logger.warning("%s does not answer: %s", self.name, type(error).__name__)
            return False
        if answer.is_success:
            return True
        hint = ", a redirect: give the address that it leads to" if answer.is_redirect else ""
        logger.warning("%s answers with %d%s", self.name, answer.status_code, hint)
        return False


class _PagerDuty(IncidentService):
    name = "PagerDuty"

    def __init__(self, url: str) -> None:
        self._plugin = _apprise(url)
        self.is_verified = self._plugin.verify_certificate

    def _request(self, message: Message, incident: Incident) -> _Request:
        from apprise.plugins.pagerduty import PAGERDUTY_API_LOOKUP

        plugin = self._plugin
        event: dict[str, Any] = {
            "routing_key": plugin.integration_key,
            "event_action": incident.action,
            "dedup_key": incident.key,
        }
        if incident.action == "trigger":
            given = {name: _own(plugin, name) for name in ("source", "component")}
            event |= {
                "client": "sahool-dlq",
                "links": [{"href": plugin.click}] if plugin.click else [],
                "payload": {
                    "summary": message.title[:1024],
                    "severity": plugin.severity or incident.severity,
                    "source": given["source"] or "sahool-dlq",
                    "component": given["component"] or incident.subject,
                    "group": plugin.group or incident.scope,
                    "class": plugin.class_id or incident.rule,
                    "timestamp": incident.since.isoformat(),
                    "custom_details": plugin.details | {"text": message.body},
                },
            }
        return _Request(PAGERDUTY_API_LOOKUP[plugin.region_name], event, {})


class _Opsgenie(IncidentService):
    name = "Opsgenie"

    def __init__(self, url: str) -> None:
        self._plugin = _apprise(url)
        self.is_verified = self._plugin.verify_certificate
        given = type(self._plugin).parse_url(url)
        self._tags = list(given.get("tags") or [])
        self._priority = f"P{self._plugin.priority}" if given.get("priority") else None

    def _request(self, message: Message, incident: Incident) -> _Request:
        from apprise.plugins.opsgenie import OPSGENIE_API_LOOKUP

        plugin = self._plugin
        url = OPSGENIE_API_LOOKUP[plugin.region_name]
        body: dict[str, Any] = {"source": "sahool-dlq"}
        if plugin.user:
            body["user"] = plugin.user
        if incident.action == "trigger":
            by_severity = "P1" if incident.severity == "critical" else "P3"
            details = {"rule": incident.rule, "scope": incident.scope, "subject": incident.subject}
            body |= {
                "alias": incident.key,
                "message": message.title[:130],
                "description": message.body[:15_000],
                "priority": self._priority or by_severity,
                "entity": plugin.entity or incident.subject,
                "details": details | plugin.details,
                "tags": self._tags,
                "responders": plugin.targets,
            }
        else:
            verb = "close" if incident.action == "resolve" else incident.action
            url += f"/{quote(incident.key, safe='')}/{verb}?identifierType=alias"
            body["note"] = f"{message.title}\n{message.body}"[:25_000]
        return _Request(url, body, {"Authorization": f"GenieKey {plugin.apikey}"})


class _Alertmanager(IncidentService):
    """Keeps alerts in memory until a given time, so they are sent again and again."""

    name = "Alertmanager"
    is_forgetful = True

    def __init__(self, parts: SplitResult) -> None:
        options = _options(parts)
        self.is_verified = options.pop("verify", "yes") != "no"
        if unknown := [name for name in options if not name.startswith("+")]:
            raise ValueError(f"has the option {unknown[0]}: there are verify=no and +label=value")
        self._labels = {name[1:]: value for name, value in options.items()}
        port = "" if parts.port or parts.scheme.endswith("s") else ":9093"
        self._url = f"{_address(parts, port).rstrip('/')}/api/v2/alerts"
        self._headers = {}
        if parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"

    def _request(self, message: Message, incident: Incident) -> _Request:
        now = datetime.now(UTC)
        # If its clock is behind ours, an end of now would be in its future and not count: so use
        # the last evaluation.
        is_over = incident.action == "resolve"
        ends = min(incident.until or now, now) if is_over else now + _STANDS_FOR
        labels = {  # as in the rules file for Prometheus
            "alertname": alert_name(incident.rule),
            "severity": incident.severity,
            "rule": incident.rule,
            "scope": incident.scope,
            "subject": incident.subject,
            **self._labels,
        }
        alert = {
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {"summary": message.title, "description": message.body},
            "startsAt": min(incident.since, ends).isoformat(),
            "endsAt": ends.isoformat(),
        }
        return _Request(self._url, [alert], self._headers)


class _Webhook(IncidentService):
    name = "Webhook"

    def __init__(self, parts: SplitResult) -> None:
        options = _options(parts)
        self.is_verified = options.pop("verify", "yes") != "no"
        if options:
            raise ValueError(f"has the option {next(iter(options))}: there is only verify=no")
        self._secret = _secret(unquote(parts.username or ""))
        self._url = _address(parts)

    def _request(self, message: Message, incident: Incident) -> _Request:
        now = datetime.now(UTC)
        facts = {
            "type": f"alert.{incident.action}",
            "timestamp": now.isoformat(),
            "data": {
                "key": incident.key,
                "title": message.title,
                "text": message.body,
                "rule": incident.rule,
                "scope": incident.scope,
                "subject": incident.subject,
                "severity": incident.severity,
                "since": incident.since.isoformat(),
            },
        }
        stamp = str(int(now.timestamp()))
        signed = b".".join((incident.message_id.encode(), stamp.encode(), _encode(facts)))
        digest = hmac.digest(self._secret, signed, hashlib.sha256)
        headers = {
            "webhook-id": incident.message_id,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }
        return _Request(self._url, facts, headers)


def incident_service(url: str) -> IncidentService | None:
    """The service of a URL; None if the URL is of another kind.

    Raises ValueError, with words that follow "entry 2" and without the URL, if it is not valid.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "pagerduty":
        return _PagerDuty(url)
    if scheme == "opsgenie":
        return _Opsgenie(url)
    kinds: dict[str, type[_Alertmanager | _Webhook]] = {
        "alertmanager": _Alertmanager,
        "webhook": _Webhook,
    }
    if kind := kinds.get(scheme.removesuffix("s")):
        return kind(_split(url))
    return None


def _apprise(url: str) -> Any:
    """What Apprise reads from the URL of a service that it knows."""
    import apprise

    plugin = apprise.Apprise.instantiate(url)
    if plugin is None:
        raise ValueError(f"is not valid for Apprise: see how it spells {url.partition(':')[0]}://")
    return plugin


def _own(plugin: Any, name: str) -> str | None:
    """The URL's own values, without Apprise's defaults."""
    value = getattr(plugin, name)
    return None if value == plugin.template_tokens[name]["default"] else str(value)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("is no URL") from None
    if not parts.hostname:
        raise ValueError("names no host")
    return parts


def _options(parts: SplitResult) -> dict[str, str]:
    return dict(parse_qsl(parts.query.replace("+", "%2B"), keep_blank_values=True))


def _address(parts: SplitResult, port: str = "") -> str:
    scheme = "https" if parts.scheme.endswith("s") else "http"
    host = parts.netloc.rpartition("@")[2].rstrip(":")
    return f"{scheme}://{host}{port}{parts.path}"


def _secret(text: str) -> bytes:
    """The key of a signature, in both alphabets of base64."""
    try:
        letters = text.removeprefix("whsec_").translate(str.maketrans("-_", "+/")).rstrip("=")
        key = base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith("whsec_") or len(key) < _LEAST_SECRET_BYTES:
        raise ValueError(
            "has no secret: write webhooks://SECRET@host/path with whsec_ and what `openssl rand"
            " -base64 32` says, its / as _ and its + as -"
        )
    return key


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
