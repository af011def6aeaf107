"""The alert rules for Grafana: the same SQL, run by Grafana itself."""

import json
from typing import Any

from sahool_dlq.alerts.findings import finding_sql
from sahool_dlq.alerts.rules import AlertRules, Rule

__all__ = ["DATASOURCE", "grafana_rules", "value_sql"]

DATASOURCE = {"type": "grafana-postgresql-datasource", "uid": "dlq-postgres"}
"""The data source in grafana/provisioning/datasources."""

FOLDER = "Dead letters"


def grafana_rules(rules: AlertRules) -> str:
    """A provisioning file (JSON): one Grafana rule for each enabled rule."""
    group = {
        "orgId": 1,
        "name": "sahool-dlq",
        "folder": FOLDER,
        "interval": "1m",
        "rules": [_rule(rules, rule) for rule in rules.rules if rule.is_enabled],
    }
    return json.dumps({"apiVersion": 1, "groups": [group]}, indent=2, ensure_ascii=False) + "\n"


def value_sql(rules: AlertRules, name: str) -> str:
    """The value of a rule that counts failures, over all its scopes and subjects; 0 if none."""
    rule = rules.rule(name)
    if rule is None:
        raise ValueError(f"there is no alert rule {name}")
    return (
        "SELECT COALESCE(SUM(value), 0) AS value FROM (\n"  # noqa: S608 - our own SQL, quoted values
        f"{finding_sql(rules, rule)}) AS found\n"
    )


def firing_sql(rules: AlertRules, rule: Rule) -> str:
    """1 if the condition of a rule holds, else 0, by scope and subject."""
    return (
        "SELECT scope, subject, (value > above)::int AS firing FROM (\n"  # noqa: S608  (our own names, bound values)
        f"{finding_sql(rules, rule)}) AS found\nWHERE value IS NOT NULL\n"
    )


def _rule(rules: AlertRules, rule: Rule) -> dict[str, Any]:
    query = {
        "refId": "A",
        "datasource": DATASOURCE,
        "editorMode": "code",
        "rawQuery": True,
        "rawSql": firing_sql(rules, rule).replace(
            "$", "$$"
        ),  # Grafana replaces $x with an environment variable
        "format": "table",
    }
    threshold = {
        "refId": "B",
        "datasource": {"type": "__expr__", "uid": "__expr__"},
        "type": "threshold",
        "expression": "A",
        "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
    }
    command = rule.command.replace("{sample}", "GROUP")
    command = command.replace("{subject}", "{{ .Labels.subject }}")
    return {
        "uid": f"dlq-{rule.name.replace('_', '-')}",
        "title": rule.title,
        "condition": "B",
        "data": [
            {
                "refId": "A",
                "relativeTimeRange": {"from": 600, "to": 0},
                "datasourceUid": DATASOURCE["uid"],
                "model": query,
            },
            {
                "refId": "B",
                "relativeTimeRange": {"from": 0, "to": 0},
                "datasourceUid": "__expr__",
                "model": threshold,
            },
        ],
        "noDataState": "OK",
        "execErrState": "Error",
        "for": f"{rule.for_minutes * 60:g}s",
        "annotations": {
            "summary": f"{rule.title}{{{{ with .Labels.subject }}}}: {{{{ . }}}}{{{{ end }}}}",
            "description": f"{rule.first} Next: {command}",
        },
        "labels": {"severity": rule.severity, "rule": rule.name},
        "isPaused": False,
    }
