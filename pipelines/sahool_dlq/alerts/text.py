"""The text of a message about alerts: what, since when, how many, a sample, a link, what to do."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from sahool_dlq.alerts.rules import EVERYTHING, AlertRules, Rule
from sahool_dlq.alerts.states import Alert

__all__ = [
    "OngoingIncident",
    "Sample",
    "compose",
    "headline",
    "incidents_of",
    "plain",
    "quantity",
    "singular",
]

_MOST_LISTED = 5
_MOST_INCIDENTS = 3
_SOON = timedelta(minutes=10)  # the window of a rule begins before what it finds
_LINE_LIMIT = 500  # characters
_MOST_OF_NAME = 100
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+"
)
# Texts that chats treat as a command: <!channel>, <@user>, <https://link|text>, @everyone.
_MENTION = re.compile(r"<(?=[!@#/a-zA-Z])|@(?=(?:everyone|here|channel|all)\b)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the failures of an alert, from PostgreSQL: redacted."""

    failure_id: str
    error_type: str
    error_message: str
    service: str
    subject: str
    owner: str | None = None  # of its group
    ticket: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class OngoingIncident:
    """An incident that lasts, from `mart_incidents`."""

    incident_id: str
    services: list[str]  # in the order in which they joined
    group_count: int
    failure_count: int
    from_at: datetime


def plain(text: str, limit: int = _LINE_LIMIT) -> str:
    """Text of a message in one line, harmless in terminals and chats.

    If it is longer than `limit` characters, the rest is cut.
    """
    line = " ".join(_CONTROL.sub(" ", text).split())
    line = line if len(line) <= limit else f"{line[:limit]}…"
    return _MENTION.sub(lambda found: f"{found[0]}\u200b", line)


def quantity(value: float, unit: str) -> str:
    """A value with its unit, for people."""
    number = f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
    return f"{number} {singular(unit) if value == 1 else unit}"


def singular(unit: str) -> str:
    """The unit for one: if its first word is plural, the singular."""
    return re.sub(r"^(\w+?)(?:(?<=ch)es|(?<!s)s)\b", r"\1", unit)


def headline(alert: Alert, rule: Rule) -> str:
    """An alert in one line."""
    about = [plain(alert.subject)] if alert.subject else []
    if alert.scope != EVERYTHING and alert.scope != f"service {alert.subject}":
        about.append(f"({plain(alert.scope)})")
    return f"{rule.title}: {' '.join(about)}" if about else rule.title


def compose(
    kind: str,
    alerts: Sequence[Alert],
    rules: AlertRules,
    samples: Mapping[str, Sample],
    incidents: Sequence[OngoingIncident] = (),
) -> tuple[str, str]:
    """Title and body of one message about alerts of one kind: firing, reminder, acknowledged, …

    Alerts of the same rule are one section, so that an outage with many alerts is still a short
    message. Incidents of the alerts' services come first, and if all alerts are of one, the title
    names it. The most important part comes first, the samples last, because a channel may cut the
    rest.
    """
    ranked = sorted(alerts, key=lambda alert: (alert.severity != "critical", -alert.value))
    by_rule: dict[str, list[Alert]] = {}
    for alert in ranked:
        by_rule.setdefault(alert.rule, []).append(alert)
    sections, heads, quoted = [], [], []
    for name, group in by_rule.items():
        rule = rules.rule(name)
        assert rule is not None
        first, more = group[0], len(group) - 1
        heads.append(headline(first, rule) + (f" and {more} more" if more else ""))
        sections.append("\n".join(_section(kind, group, rule, rules)))
        if kind != "resolved" and (sample := samples.get(first.sample_id or "")):
            quoted.append(
                f"Sample: {plain(sample.error_type)} in {plain(sample.service)} on"
                f" {plain(sample.subject)}: {plain(sample.error_message)}"
            )
            said = (("Owner", sample.owner), ("Ticket", sample.ticket), ("Note", sample.note))
            quoted += [f"{name}: {plain(text)}" for name, text in said if text]
    word = "STILL FIRING" if kind == "reminder" else kind.upper()
    rest = f" (+{len(heads) - 1} more)" if len(heads) > 1 else ""
    end = ("\n" if len(heads) == 1 else "\n\n") + "\n".join(quoted) if quoted else ""
    title, body = f"{word}: {heads[0]}{rest}", "\n\n".join(sections) + end
    if kind == "resolved":
        return title, body
    ours, is_all = _all_incidents(alerts, rules, incidents)
    if is_all:
        title = f"{word}: incident of {_services(ours[0])}: {_rules_of(by_rule, rules)}"
    return title, "\n\n".join([*map(_told, ours[:_MOST_INCIDENTS]), body])


def _all_incidents(
    alerts: Sequence[Alert], rules: AlertRules, incidents: Sequence[OngoingIncident]
) -> tuple[list[OngoingIncident], bool]:
    """The incidents that alerts about failures belong to, and whether all alerts belong to one.

    An alert about the failures of all services belongs to each that began before it.
    """

    of_each = [incidents_of(alert, rules, incidents) for alert in alerts]
    found = [each for each in incidents if any(each in those for those in of_each)]
    return found, len(found) == 1 and all(of_each)


def incidents_of(
    alert: Alert, rules: AlertRules, incidents: Sequence[OngoingIncident]
) -> list[OngoingIncident]:
    """The incidents that an alert about failures belongs to."""
    rule = rules.rule(alert.rule)
    if rule is None or not rule.by_service:
        return []
    return [
        incident
        for incident in incidents
        if alert.since >= incident.from_at - _SOON and alert.subject in ("", *incident.services)
    ]


def _told(incident: OngoingIncident) -> str:
    """Two lines about an incident."""
    groups = quantity(incident.group_count, "groups")
    return (
        f"Incident: {_services(incident)}; {_failures(incident.failure_count)} in {groups} since"
        f" {_time(incident.from_at)}\nTimeline: dlq incident {incident.incident_id}"
    )


def _services(incident: OngoingIncident) -> str:
    """The services in the order in which they joined; of many the first ones."""
    more = len(incident.services) - _MOST_LISTED
    shown = ", ".join(plain(service, _MOST_OF_NAME) for service in incident.services[:_MOST_LISTED])
    return f"{shown} and {more} more" if more > 0 else shown


def _rules_of(names: Iterable[str], rules: AlertRules) -> str:
    first, *more = [rule.title for name in names if (rule := rules.rule(name))]
    return f"{first} (+{len(more)} more)" if more else first


def _section(kind: str, group: Sequence[Alert], rule: Rule, rules: AlertRules) -> list[str]:
    first = group[0]
    since = min(alert.since for alert in group)
    lines = [f"What: {headline(first, rule) if len(group) == 1 else rule.title}"]
    if kind == "resolved":
        ended = max(alert.seen_at for alert in group)
        lines.append(f"From: {_time(since)} to {_time(ended)}")
        return lines if len(group) == 1 else lines + _listed(group, rule)
    if len(group) == 1:
        lines.append(f"Now: {_limits(first, rule)}")
    else:
        lines += _listed(group, rule)
    lines.append(f"Since: {_time(since)}")
    counts = [alert.failure_count for alert in group if alert.failure_count is not None]
    if counts:
        lines.append(f"How many: {_failures(sum(counts))}")
    if first.detail and len(group) == 1:
        lines.append(f"Who: {plain(first.detail)}")
    if first.acked_by:
        reason = f": {plain(first.ack_reason)}" if first.ack_reason else ""
        lines.append(f"Assigned to: {plain(first.acked_by)}{reason}")
    lines.append(f"First: {rule.first}")
    lines.append(f"Next: {command(first, rule)}")
    if rules.link:
        subject = quote(first.subject, safe="")
        lines.append(
            f"Link: {rules.link.replace('{rule}', rule.name).replace('{subject}', subject)}"
        )
    return lines


def command(alert: Alert, rule: Rule) -> str:
    """The next command."""
    if "{sample}" in rule.command and not alert.sample_id:
        return "dlq groups"
    text = rule.command.replace("{subject}", shlex.quote(plain(alert.subject)))
    return text.replace("{sample}", alert.sample_id or "")


def _listed(group: Sequence[Alert], rule: Rule) -> list[str]:
    lines = [
        f"- {plain(alert.subject) or alert.scope}: {plain(alert.detail) or _limits(alert, rule)}"
        for alert in group[:_MOST_LISTED]
    ]
    more = len(group) - _MOST_LISTED
    return [*lines, f"- and {more} more"] if more > 0 else lines


def _limits(alert: Alert, rule: Rule) -> str:
    return f"{quantity(alert.value, rule.unit)} (fires above {alert.above:,g})"


def _failures(count: int) -> str:
    return f"{count:,} {'failure' if count == 1 else 'failures'}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
