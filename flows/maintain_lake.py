"""maintain-lake: few sorted files, none that nobody reads, none too old."""

from dataclasses import asdict

from prefect import State, flow
from prefect.states import Completed

from flows.show import table
from pipelines.jobs import maintain_lake as maintain
from pipelines.settings import load_settings


@flow(name="maintain-lake", timeout_seconds=4 * 3600)
async def maintain_lake() -> State:
    """Compact, expire and vacuum the lake's tables; drains go on meanwhile."""
    report = maintain(load_settings())
    await table("lake", [asdict(care) for care in report.tables])
    before = sum(care.files_before for care in report.tables)
    after = sum(care.files_after for care in report.tables)
    return Completed(
        message=f"{before:,} files became {after:,} in {report.seconds:.1f} s",
        data=report.as_dict(),
    )
