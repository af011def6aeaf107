"""build-marts: the small tables that explain the failures."""

from prefect import State, flow
from prefect.states import Completed

from flows.show import markdown, table
from pipelines.jobs import build_all_marts
from pipelines.settings import load_settings


@flow(name="build-marts", timeout_seconds=3600)
async def build_marts() -> State:
    """Compute every mart from the lake and write it to the lake and to Postgres."""
    report = build_all_marts(load_settings())
    await table("marts", [{"mart": name, "rows": rows} for name, rows in report.rows.items()])
    total = sum(report.rows.values())
    await markdown("marts-built", f"{len(report.rows)} marts, {total:,} rows.")
    return Completed(
        message=f"Built {len(report.rows)} marts, {total:,} rows, in {report.seconds:.1f} s",
        data=report.as_dict(),
    )
