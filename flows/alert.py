"""alert: evaluates the alert rules and sends messages."""

from dataclasses import asdict

from prefect import State, flow

from sahool_dlq.alerts.evaluate import AlertsReport, evaluate_alerts
from sahool_dlq.analysis.report.section import escaped
from sahool_dlq.orchestration.show import table, told
from sahool_dlq.orchestration.stages import in_one_sentence, stage
from sahool_dlq.settings import load_settings


@flow(name="alert", flow_run_name="alert", timeout_seconds=600)
@in_one_sentence
async def alert() -> State:
    """Evaluate the alert rules on PostgreSQL and the streams, and send what changed.

    The channels are those of DLQ_ALERT_URLS; docs/alerts.md explains the rules.
    """
    settings = load_settings()
    report = await stage("Evaluate and tell", lambda: evaluate_alerts(settings), _said)
    if report.firing or report.told:
        await table("alerts", [{"firing": escaped(text)} for text in report.firing], "Alerts.")
    did = f"{len(report.firing)} firing" if report.firing else "quiet"
    return await told(did, _said(report), asdict(report))


def _said(report: AlertsReport) -> str:
    message = (
        f"{len(report.firing)} firing: {'; '.join(report.firing)}" if report.firing else "Quiet"
    )
    if report.waiting:
        message += f"; {report.waiting} messages wait for a channel"
    if report.given_up:
        message += (
            f"; {report.given_up} messages are given up, because their channel never accepted them"
        )
    if report.unknown:
        message += f"; not known: {'; '.join(report.unknown)}"
    return message
