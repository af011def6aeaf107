"""Prefect flows: parameters in, one job called, its result shown. No logic lives here."""

from flows.alert import alert
from flows.build_marts import build_marts
from flows.doctor import doctor
from flows.drain_dlq import drain_dlq
from flows.maintain_lake import maintain_lake
from flows.redrive import redrive_selected, redrive_transient
from flows.report import report
from flows.verify import verify
from flows.watch_runs import watch_runs

FLOWS = {
    flow.name: flow
    for flow in (
        *(drain_dlq, build_marts, maintain_lake, verify, alert, report, doctor),
        *(redrive_transient, redrive_selected, watch_runs),
    )
}
"""Every flow by its name."""
