"""alert: what people should know now."""

from prefect import State, flow
from prefect.states import Completed

from flows.show import table
from pipelines.alerts.evaluate import evaluate_alerts
from pipelines.settings import load_settings


@flow(name="alert", timeout_seconds=600)
async def alert() -> State:
    """Evaluate the alert rules on Postgres and the stream, and tell people what changed.

    Channels are those of DLQ_ALERT_URLS; the rules are explained in docs/alerts.md.
    """
    report = await evaluate_alerts(load_settings())
    if report.firing or report.told:
        await table("alerts", [{"firing": text} for text in report.firing])
    message = (
        f"{len(report.firing)} firing: {'; '.join(report.firing)}" if report.firing else "Quiet"
    )
    if report.waiting:
        message += f"; {report.waiting} messages wait for a channel"
    return Completed(message=message, data=report.as_dict())
