"""doctor: what happens to failures at every stream and consumer, as tables and a page."""

import asyncio
from datetime import UTC, datetime

from prefect import State, flow

from sahool_dlq.analysis.report.section import as_markdown
from sahool_dlq.doctor.diagnosis import TITLE, as_json, as_sections, examine, keep, write_page
from sahool_dlq.orchestration.show import markdown, told
from sahool_dlq.orchestration.stages import in_one_sentence, stage
from sahool_dlq.settings import load_settings


@flow(name="doctor", flow_run_name="doctor", timeout_seconds=1800)
@in_one_sentence
async def doctor(listen_seconds: float = 10, stalled_seconds: float = 900) -> State:
    """Check the account of DLQ_NATS_URL; changes nothing there. Writes `doctor.html` in DLQ_HOME.

    A finding that loses data fires the alert `loses_data`.

    Args:
        listen_seconds: How long to listen to acknowledgements.
        stalled_seconds: Time without a delivery after which a consumer is stalled.
    """
    settings, now = load_settings(), datetime.now(UTC)
    found = await stage(
        "Listen and look",
        lambda: examine(settings, listen_seconds=listen_seconds, stalled_seconds=stalled_seconds),
        lambda done: done.summary,
        is_repeatable=True,
    )
    file = (settings.home / "doctor.html").absolute()
    write_page(found, file, now)
    await stage("Keep what was found", lambda: asyncio.to_thread(keep, settings, found, now))
    await markdown("doctor", as_markdown(as_sections(found), now, title=TITLE), found.summary)
    return await told(found.summary.rstrip("."), f"Wrote {file}. {found.summary}", as_json(found))
