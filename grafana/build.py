"""Write the provisioned dashboards and alert rules, and Prometheus' rules: `make grafana`."""

import json
import sys
from pathlib import Path

from boards import DASHBOARDS
from panels import complete, dashboard

from sahool_dlq.alerts.grafana import grafana_rules
from sahool_dlq.alerts.prometheus import prometheus_rules
from sahool_dlq.alerts.rules import read_alert_rules

ROOT = Path(__file__).parent.parent


def files() -> dict[str, str]:
    """Every generated file by its path in the repository."""
    folder, rules = "grafana/provisioning", read_alert_rules()
    made = {
        f"{folder}/dashboards/{board.uid}.json": json.dumps(
            complete(dashboard(board)), indent=2, ensure_ascii=False
        )
        + "\n"
        for board in DASHBOARDS
    }
    return made | {
        f"{folder}/alerting/dlq-rules.json": grafana_rules(rules),
        "prometheus/dlq-rules.yml": prometheus_rules(rules),
    }


if __name__ == "__main__":
    for name, text in files().items():
        (ROOT / name).write_text(text)
        sys.stdout.write(f"{name}\n")
