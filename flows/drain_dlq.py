"""drain-dlq: what failed since the last run, into the lake and Postgres."""

from collections import Counter

from prefect import State, flow

from sahool_dlq.bridge.find_exhausted import Untold
from sahool_dlq.bridge.run import bridge_pending
from sahool_dlq.errors import DLQError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.orchestration.late import is_overtaken
from sahool_dlq.orchestration.show import happened, progress, table, told
from sahool_dlq.settings import load_settings


@flow(name="drain-dlq", flow_run_name="drain-dlq", timeout_seconds=3600)
async def drain_dlq() -> State:
    """Drain the dead-letter stream into the lake and Postgres, each message exactly once.

    First it brings in what consumers gave up that use none of our code (`dlq bridge`). Where that
    goes wrong the run fails, after the drain.
    Overlapping runs are harmless: a later one waits for the earlier, and a stuck one is fenced.
    """
    if await is_overtaken():
        return await told("late", "Late: a run since has drained all of it", state="Skipped")
    settings = load_settings()
    trouble: DLQError | None = None
    bridged, untold = Counter[str](), list[Untold]()
    try:
        bridged, untold = await bridge_pending(settings)
    except DLQError as error:  # told at the end: what is in the log is drained all the same
        trouble = error
    async with progress("Draining the dead-letter stream") as move:
        report = await drain_log(settings, move)
    await table(
        "drain", [report.as_dict() | {"notes": " ".join(report.notes)}], "What this run drained."
    )
    message = f"Drained {report.drained:,} messages in {report.seconds:.1f} s"
    if count := bridged["bridged"] + bridged["gone"] + bridged["found"]:
        message += f", {count:,} of them of consumers without our code"
    if bridged["removed"]:
        message += f"; {bridged['removed']:,} events left their stream in the hands of a consumer"
    if report.quarantined:
        message += f", {report.quarantined:,} quarantined"
    if report.gaps:
        message += f"; {report.gaps} gap in the stream: {' '.join(report.notes)}"
    if untold:
        count = sum(each.at_least for each in untold)
        message += f"; {count:,} more were dropped by other consumers; only the count is known"
    if report.drained:
        happened("dlq.drained", f"dlq.log.{report.stream}", report.stream, report.as_dict())
    if trouble is not None:
        raise trouble
    return await told(f"{report.drained:,} messages", message, report.as_dict())
