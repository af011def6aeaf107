"""report: the current state, as a page with charts in DLQ_HOME and as an artifact."""

import asyncio
from datetime import UTC, datetime

from prefect import State, flow

from sahool_dlq.analysis.report.section import as_markdown
from sahool_dlq.jobs.report import make_report
from sahool_dlq.orchestration.show import markdown, told
from sahool_dlq.orchestration.stages import in_one_sentence, stage
from sahool_dlq.settings import load_settings


@flow(name="report", flow_run_name="report", timeout_seconds=3600)
@in_one_sentence
async def report() -> State:
    """Write `report.html` in DLQ_HOME, from the lake, and show its tables here."""
    settings, now = load_settings(), datetime.now(UTC)
    file = (settings.home / "report.html").absolute()
    made = await stage(
        "Compute the marts",
        lambda: asyncio.to_thread(make_report, settings, now),
        lambda done: done.headline,
        is_repeatable=True,
    )
    await stage(
        "Draw the page", lambda: asyncio.to_thread(made.write_page, file), lambda _: f"{file}"
    )
    await markdown(
        "report", as_markdown(made.sections, now, made.headline), "The report without its charts."
    )
    strip = ", ".join(f"{what} {value}" for what, value, _ in made.sections[0].rows[:3])
    return await told(strip, f"Wrote {file}: {strip}", {"file": str(file)})
