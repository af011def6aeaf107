"""maintain-lake: few sorted files, no unused files, no expired rows."""

import asyncio
from dataclasses import asdict

from prefect import State, flow

from sahool_dlq.jobs.upkeep import MaintainReport
from sahool_dlq.jobs.upkeep import maintain_lake as maintain
from sahool_dlq.orchestration.show import table, told
from sahool_dlq.orchestration.stages import in_one_sentence, stage
from sahool_dlq.settings import load_settings


@flow(name="maintain-lake", flow_run_name="maintain-lake", timeout_seconds=4 * 3600)
@in_one_sentence
async def maintain_lake() -> State:
    """Compact, expire and vacuum the lake's tables; drains continue meanwhile."""
    settings = load_settings()
    report = await stage(
        "Expire, compact, vacuum",
        lambda: asyncio.to_thread(maintain, settings),
        _files,
        is_repeatable=True,
    )
    await table("lake", [asdict(care) for care in report.tables], "Files and rows of each table.")
    return await told(_files(report), f"{_files(report)} in {report.seconds:.1f} s")


def _files(report: MaintainReport) -> str:
    before = sum(care.files_before for care in report.tables)
    after = sum(care.files_after for care in report.tables)
    return f"{before:,} files to {after:,}"
