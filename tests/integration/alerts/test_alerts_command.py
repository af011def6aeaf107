"""The command `dlq alerts`, as a user runs it."""

import asyncio
import json
import subprocess
from pathlib import Path

from nats.aio.client import Client

from sahool_dlq.alerts.rules import read_alert_rules
from sahool_dlq.jobs.decisions import audit_trail
from sahool_dlq.settings import Settings
from support.alert_inbox import inbox
from support.alert_rows import add_failures
from support.platform_log import DLQ, ROOT, environment


async def dlq(settings: Settings, *words: str, **more: str) -> tuple[int, str, str]:
    """Run `dlq …` to its end: exit status, output, errors."""
    done = await asyncio.to_thread(
        subprocess.run,
        [*DLQ, *words],
        cwd=ROOT,
        env=environment(settings, COLUMNS="200", **more),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


async def test_from_a_quiet_platform_to_one_that_is_looked_after(
    settings: Settings, client: Client
) -> None:
    status, quiet, _ = await dlq(settings, "alerts")
    assert (status, quiet.splitlines()[0]) == (0, "Nothing fires.")
    assert "Never evaluated: run `dlq alerts check`" in quiet
    add_failures(settings, 3, error_type="DatabaseError", message="\x1b[31m[bold]x")
    async with inbox() as box:
        urls = json.dumps([f"team={box.url}"])
        _, checked, _ = await dlq(settings, "alerts", "check", DLQ_ALERT_URLS=urls)
    assert checked.splitlines() == [
        "FIRING: Critical errors: ndvi-service",
        "Firing: 1. Pending: 0. Messages taken: 1, waiting: 0. Failures marked: 3.",
        "● Critical errors: ndvi-service",
    ]
    assert len(box.messages) == 1
    _, shown, _ = await dlq(settings, "alerts")
    assert shown.splitlines()[0].startswith("● firing Critical errors: ndvi-service critical, ")
    assert "  Now: 3 failures, fires above 0\n" in shown
    assert "\x1b" not in shown
    _, text, _ = await dlq(settings, "alerts", "--json")
    [alert] = json.loads(text)["alerts"]
    assert (alert["rule"], alert["state"], alert["told_count"]) == ("critical_errors", "firing", 1)
    _, acked, _ = await dlq(settings, "alerts", "ack", str(alert["id"]), "--reason", "rolling back")
    assert acked == f"Acknowledged {alert['id']}: Critical errors: ndvi-service\n"
    [row] = audit_trail(settings, action="alert")
    assert (row["action"], row["reason"]) == ("alert.acknowledged", "rolling back")
    assert row["detail"] == {"alerts": [[alert["id"], "critical_errors", "ndvi-service"]]}
    _, past, _ = await dlq(settings, "alerts", "history", "--json")
    history = json.loads(past)
    assert history["alerts"][0]["ack_reason"] == "rolling back"
    assert history["messages"][0]["channel"] == "team"
    assert history["messages"][0]["delivered_at"] is not None


async def test_what_goes_wrong_is_one_sentence(settings: Settings) -> None:
    rules = Path(settings.home) / "alerts.toml"
    rules.write_text("[rules.dlq_rat]\nabove = 3")
    answers = await asyncio.gather(
        dlq(settings, "alerts", "test"),
        dlq(settings, "alerts", "ack", "7"),
        dlq(settings, "alerts", "rules", DLQ_ALERT_RULES_FILE=str(rules)),
        dlq(settings, "exporter", "--listen", "9877"),
    )
    assert [(status, output) for status, output, _ in answers] == [(1, "")] * 4
    assert [errors.splitlines() for _, _, errors in answers] == [
        ["dlq: There is no channel to test: set DLQ_ALERT_URLS."],
        ["dlq: No alert 7 fires: `dlq alerts` shows those that do."],
        [
            f"dlq: The alert rules in {rules} cannot be used: there is no rule dlq_rat, there are "
            + ", ".join(rule.name for rule in read_alert_rules().rules)
            + "."
        ],
        ["dlq: --listen 9877 is not an address and port, such as 127.0.0.1:9877."],
    ]
