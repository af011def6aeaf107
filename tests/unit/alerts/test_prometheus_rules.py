"""The rules file for Prometheus: made from the alert rules, checked by Prometheus' own tool."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sahool_dlq.alerts.prometheus import prometheus_rules
from sahool_dlq.alerts.rules import AlertRules, read_alert_rules
from support import ROOT

COMMITTED = ROOT / "prometheus" / "dlq-rules.yml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)"
)
OVERRIDES = """
[[overrides]]
service = "it's \\\\ *: #"
[[overrides]]
rule = "dlq_rate"
service = "import-*"
above = 200
[[overrides]]
rule = "dlq_rate"
service = "noisy"
enabled = false
"""


def promtool(*arguments: str) -> str:
    done = subprocess.run([PROMTOOL or "", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_committed_file_is_what_the_alert_file_makes() -> None:
    assert COMMITTED.read_text() == prometheus_rules(read_alert_rules()), (
        "out of date: make grafana"
    )


@needs_promtool
def test_prometheus_takes_the_rules_also_with_odd_overrides(tmp_path: Path) -> None:
    odd = tmp_path / "odd.yml"
    odd.write_text(prometheus_rules(read_alert_rules(OVERRIDES)))
    assert "SUCCESS: 18 rules found" in promtool("check", "rules", str(COMMITTED))
    assert "SUCCESS: 25 rules found" in promtool("check", "rules", str(odd))


def judge(tmp_path: Path, rules: AlertRules, *tests: dict[str, Any]) -> None:
    """Run promtool's test of the rules on these series and expectations."""
    file = tmp_path / "rules.yml"
    file.write_text(prometheus_rules(rules))
    cases = tmp_path / "tests.yml"
    whole = {"rule_files": [str(file)], "evaluation_interval": "1m", "tests": tests}
    cases.write_text(json.dumps(whole))  # which is YAML too
    promtool("test", "rules", str(cases))


def firing(at: str, *names: str) -> dict[str, Any]:
    """The names of all alerts that fire at a time."""
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)]
    expr = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {"expr": expr, "eval_time": at, "exp_samples": samples}


def series(metric: str, values: str, scope: str = "all", subject: str = "") -> dict[str, str]:
    subject = f', subject="{subject}"' if subject else ""
    return {"series": f'{metric}{{scope="{scope}"{subject}}}', "values": values}


def first_of(name: str) -> str:
    rule = read_alert_rules().rule(name)
    assert rule is not None
    return rule.first


UP = {"series": 'dlq_up{server="postgres"}', "values": "1x60"}


@needs_promtool
def test_each_rule_fires_above_its_threshold_and_not_at_it(tmp_path: Path) -> None:
    rules = read_alert_rules()
    tests = []
    for rule in rules.rules:
        word = "".join(part.capitalize() for part in rule.name.split("_"))
        name = word if word.startswith("Dlq") else f"Dlq{word}"
        for value, names in ((rule.above, ()), (rule.above + 0.1, (name,))):
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [UP, series(rule.metric, f"{value:g}x60")],
                    "promql_expr_test": [firing("30m", *names)],
                }
            )
    assert len(tests) == 34
    judge(tmp_path, rules, *tests)


@needs_promtool
def test_the_rate_must_hold_for_two_minutes_and_be_over_for_five(tmp_path: Path) -> None:
    values = "11 11 0 11 11 11 0 0 0 0 0 0 0"  # by minute
    case = {
        "interval": "1m",
        "input_series": [UP, series("dlq_rate_per_minute", values)],
        "promql_expr_test": [
            firing("1m"),
            firing("4m"),
            firing("5m", "DlqRate"),
            firing("9m", "DlqRate"),
            firing("12m"),
        ],
    }
    judge(tmp_path, read_alert_rules(), case)


@needs_promtool
def test_a_part_has_its_own_threshold_and_one_that_is_off_never_fires(tmp_path: Path) -> None:
    rate = "dlq_rate_per_minute"

    def case(scope: str, value: int, *names: str) -> dict[str, Any]:
        return {
            "interval": "1m",
            "input_series": [UP, series(rate, f"{value}x30", scope)],
            "promql_expr_test": [firing("20m", *names)],
        }

    judge(
        tmp_path,
        read_alert_rules(OVERRIDES),
        case("service import-*", 199),
        case("service import-*", 201, "DlqRate"),
        case("service noisy", 9_999),
        case("all", 11, "DlqRate"),
    )


@needs_promtool
def test_an_alert_says_what_and_an_exporter_that_is_gone_is_one(tmp_path: Path) -> None:
    failing = {
        "interval": "1m",
        "input_series": [UP, series("dlq_service_failing_share", "0.9x30", subject="ndvi")],
        "alert_rule_test": [
            {
                "eval_time": "5m",
                "alertname": "DlqServiceFailing",
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "rule": "service_failing",
                            "scope": "all",
                            "severity": "critical",
                            "subject": "ndvi",
                        },
                        "exp_annotations": {
                            "summary": "A service fails all its messages",
                            "description": "ndvi: 0.9 of its messages at least, fires above 0.5",
                            "runbook": first_of("service_failing"),
                        },
                    }
                ],
            }
        ],
    }
    one = {
        "interval": "1m",
        "input_series": [UP, series("dlq_aborted_redrives", "1x5 2x30")],
        "alert_rule_test": [
            {
                "eval_time": at,
                "alertname": "DlqRedriveAborted",
                "exp_alerts": [
                    {
                        "exp_labels": {
                            "rule": "redrive_aborted",
                            "scope": "all",
                            "severity": "warning",
                        },
                        "exp_annotations": {
                            "summary": "A redrive stopped itself",
                            "description": f"{value}, fires above 0",
                            "runbook": first_of("redrive_aborted"),
                        },
                    }
                ],
            }
            for at, value in (("5m", "1 batch"), ("9m", "2 batches"))
        ],
    }
    gone = {
        "interval": "1m",
        "input_series": [{"series": 'dlq_up{server="postgres"}', "values": "1x5 0x9 _x30"}],
        "promql_expr_test": [
            firing("5m"),
            firing("12m", "DlqExporterAbsent"),
            firing("40m", "DlqExporterAbsent"),
        ],
    }
    judge(tmp_path, read_alert_rules(), failing, one, gone)
