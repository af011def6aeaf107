"""maintain-lake: few sorted files, none that nobody reads, none too old."""

import asyncio
from dataclasses import asdict

from prefect import State, flow

from sahool_dlq.jobs.upkeep import maintain_lake as maintain
from sahool_dlq.orchestration.show import table, told
from sahool_dlq.settings import load_settings


@flow(name="maintain-lake", flow_run_name="maintain-lake", timeout_seconds=4 * 3600)
async def maintain_lake() -> State:
    """Compact, expire and vacuum the lake's tables; drains go on meanwhile."""
    report = await asyncio.to_thread(maintain, load_settings())
    await table("lake", [asdict(care) for care in report.tables], "Files and rows of each table.")
    before = sum(care.files_before for care in report.tables)
    after = sum(care.files_after for care in report.tables)
    return await told(
        f"{before:,} files to {after:,}",
        f"{before:,} files became {after:,} in {report.seconds:.1f} s",
        report.as_dict(),
    )
