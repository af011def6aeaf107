"""verify: every byte of the lake read, and stream, lake and Postgres compared."""

import os
from contextlib import suppress
from dataclasses import asdict

from prefect import State, flow

from sahool_dlq.analysis.report.section import escaped
from sahool_dlq.jobs.upkeep import verify_stores
from sahool_dlq.orchestration.show import table, told
from sahool_dlq.orchestration.stages import in_one_sentence, stage
from sahool_dlq.settings import load_settings
from sahool_dlq.upkeep.verify import VerifyReport


@flow(name="verify", flow_run_name="verify", timeout_seconds=20 * 3600)
@in_one_sentence
async def verify(megabytes_per_second: float = 20) -> State:
    """Search for damage and differences at a limited rate; repairs nothing.

    Findings fire the alert `damage`, and are in the report.

    Args:
        megabytes_per_second: Maximum read rate of the lake, so that drains are not delayed.
    """
    with suppress(OSError):
        os.nice(max(0, 10 - os.nice(0)))  # a run is a process of its own
    settings = load_settings()
    report = await stage(
        "Read and compare",
        lambda: verify_stores(settings, bytes_per_second=megabytes_per_second * 1e6),
        _read,
    )
    if report.findings:
        rows = [
            {name: escaped(value) for name, value in asdict(finding).items()}
            for finding in report.findings
        ]
        await table("verification", rows, "What is wrong: `dlq verify --repair` mends it.")
    return await told(_found(report), _read(report), report.as_dict())


def _found(report: VerifyReport) -> str:
    return f"{len(report.findings):,} wrong" if report.findings else "nothing wrong"


def _read(report: VerifyReport) -> str:
    return (
        f"Read {report.files:,} files, {report.read_bytes / 1e6:,.1f} MB, in"
        f" {report.seconds:.1f} s: {_found(report)}"
    )
