"""alert: what people should know now."""

from prefect import State, flow

from sahool_dlq.alerts.evaluate import evaluate_alerts
from sahool_dlq.analysis.report.section import escaped
from sahool_dlq.orchestration.show import table, told
from sahool_dlq.settings import load_settings


@flow(name="alert", flow_run_name="alert", timeout_seconds=600)
async def alert() -> State:
    """Evaluate the alert rules on Postgres and the stream, and tell people what changed.

    Channels are those of DLQ_ALERT_URLS; the rules are explained in docs/alerts.md.
    """
    report = await evaluate_alerts(load_settings())
    if report.firing or report.told:
        await table("alerts", [{"firing": escaped(text)} for text in report.firing], "Alerts.")
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
    did = f"{len(report.firing)} firing" if report.firing else "quiet"
    return await told(did, message, report.as_dict())
