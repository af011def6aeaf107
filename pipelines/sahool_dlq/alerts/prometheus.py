"""The alert rules as a rules file of Prometheus, on the metrics of `dlq exporter`."""

import json

from sahool_dlq.alerts.rules import AlertRules, Rule, Scope
from sahool_dlq.alerts.text import singular

__all__ = ["alert_name", "prometheus_rules"]

_HEAD = """\
# Made by `dlq alerts rules --format prometheus`: do not edit it, change the alert rules instead.
groups:
  - name: sahool-dlq
    rules:
"""

_ABSENT = """\
      - alert: DlqExporterAbsent
        expr: absent(dlq_up{server="postgres"}) or dlq_up{server="postgres"} == 0
        for: 5m
        labels:
          severity: critical
        annotations:
          summary: The metrics of dead letters are missing
          description: "dlq exporter does not run, or PostgreSQL does not answer it."
          runbook: Check that dlq exporter and PostgreSQL run.
"""


def prometheus_rules(rules: AlertRules) -> str:
    """A rules file: one alert for each rule and for each part with its own threshold."""
    entries = [
        _entry(rule, scope)
        for rule in rules.rules
        if rule.is_enabled
        for scope in rules.scopes(rule)
        if scope.above != float("inf")
    ]
    return _HEAD + "".join(entries) + _ABSENT


def alert_name(rule: str) -> str:
    """The alert name of a rule in Prometheus and Alertmanager."""
    name = "".join(word.capitalize() for word in rule.split("_"))
    return name if name.startswith("Dlq") else f"Dlq{name}"


def _entry(rule: Rule, scope: Scope) -> str:
    limit = f"{scope.above:g}"
    unit, space, rest = rule.unit.partition(" ")
    if (one := singular(unit)) != unit:
        unit = f"{{{{ if eq $value 1.0 }}}}{one}{{{{ else }}}}{unit}{{{{ end }}}}"
    value = f"{{{{ $value | printf `%.4g` }}}} {unit}{space}{rest}, fires above {limit}"
    facts = {
        "expr": f"{rule.metric}{{scope={_quoted(scope.name)}}} > {limit}",
        "for": f"{rule.for_minutes * 60:g}s",
        "keep_firing_for": f"{rule.keep_minutes * 60:g}s",
    }
    labels = {"severity": scope.severity, "rule": rule.name, "scope": scope.name}
    notes = {
        "summary": rule.title,
        "description": f"{{{{ with $labels.subject }}}}{{{{ . }}}}: {{{{ end }}}}{value}",
        "runbook": rule.first,
    }
    return (
        f"      - alert: {alert_name(rule.name)}\n"
        f"{_lines(facts, 8)}        labels:\n{_lines(labels, 10)}"
        f"        annotations:\n{_lines(notes, 10)}"
    )


def _lines(values: dict[str, str], indent: int) -> str:
    return "".join(f"{' ' * indent}{key}: {json.dumps(text)}\n" for key, text in values.items())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
