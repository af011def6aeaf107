"""Maintenance of the stores: verify, regroup, maintain the lake, erase a tenant."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial

from sahool_dlq.analysis.marts.build import MARTS
from sahool_dlq.connections import open_postgres
from sahool_dlq.erasure.erase import ErasureReport, erase
from sahool_dlq.errors import DLQError, GroupError
from sahool_dlq.jobs.drain import drain_log
from sahool_dlq.jobs.groups import carry_words
from sahool_dlq.jobs.lake_views import write_views
from sahool_dlq.jobs.marts import build_all_marts
from sahool_dlq.settings import Settings
from sahool_dlq.stores.lake.lake import Lake
from sahool_dlq.stores.lake.maintenance import TableCare, care_for
from sahool_dlq.stores.postgres.verifications import keep_verification
from sahool_dlq.upkeep.carried_words import planned_carries
from sahool_dlq.upkeep.compare import settled
from sahool_dlq.upkeep.regroup import Carried, RegroupReport, regroup
from sahool_dlq.upkeep.regroup import Progress as RegroupProgress
from sahool_dlq.upkeep.verify import VerifyReport, repair, verify

_REGROUP = "dlq-regroup"
"""Who carries words, for the log and the audit."""


async def verify_stores(
    settings: Settings, *, is_repair: bool = False, bytes_per_second: float | None = None
) -> VerifyReport:
    """Compare stream, lake and PostgreSQL, and read every byte of the lake, at most at the given
    rate.

    With `is_repair`, repair first, drain what a sink lacks, and check again. PostgreSQL stores the
    findings.
    """
    found = []
    if is_repair:
        found = await repair(settings)
        await drain_log(settings)
    report = await verify(settings, bytes_per_second)
    report = replace(report, findings=tuple(settled(found, report.findings)))
    with open_postgres(settings) as connection:
        keep_verification(
            connection,
            started_at=report.started_at,
            seconds=report.seconds,
            files=report.files,
            read_bytes=report.read_bytes,
            unchecked_files=report.unchecked_files,
            findings=[asdict(finding) for finding in report.findings],
        )
    return report


def regroup_history(
    settings: Settings, progress: RegroupProgress | None = None, *, is_dry_run: bool = False
) -> RegroupReport:
    """Recompute the groups of old rows in both sinks; the next build updates the marts.

    What people said of a group is first carried to the one that gets its failures, so that a
    regroup that is killed loses none of it. Words that cannot be carried now are in the report.
    """
    with open_postgres(settings) as connection:
        words = planned_carries(connection, Lake(settings.lake), settings.rules.grouping)
    if not is_dry_run:
        words = _carry(settings, words)
    report = regroup(settings, progress, is_dry_run=is_dry_run)
    if not is_dry_run:
        write_views(settings)
    return replace(report, words=words)


def _carry(settings: Settings, words: Sequence[Carried]) -> list[Carried]:
    """Carry what can be carried; after an error, which others would meet too, nothing more."""
    done: list[Carried] = []
    failed = ""
    for each in words:
        if each.kept is None and not failed:
            said = carry_words(
                settings,
                each.group_id,
                each.to,
                actor=_REGROUP,
                reason=f"regrouped from {each.group_id}",
            )
            try:
                asyncio.run(said)
            except GroupError as error:  # it is about this one
                done.append(replace(each, kept=str(error)))
                continue
            except DLQError as error:
                failed = str(error)
        done.append(replace(each, kept=each.kept or failed or None))
    return done


async def erase_tenant(
    settings: Settings,
    tenant: str,
    *,
    actor: str,
    reason: str,
    tell: Callable[[str], object] = lambda _: None,
) -> ErasureReport:
    """Erase all data of a tenant, and compute the marts again; see `drain.erase`."""
    build = partial(build_all_marts, settings)
    return await erase(settings, tenant, build, actor=actor, reason=reason, tell=tell)


@dataclass(frozen=True, slots=True)
class MaintainReport:
    """The maintenance of the lake."""

    tables: tuple[TableCare, ...]
    seconds: float


def maintain_lake(settings: Settings) -> MaintainReport:
    """Expire, compact and vacuum the lake; drains may run meanwhile."""
    started, now = time.monotonic(), datetime.now(UTC)
    done = care_for(Lake(settings.lake), now, settings.lake_kept_since(now), list(MARTS))
    write_views(settings)
    return MaintainReport(tuple(done), round(time.monotonic() - started, 3))
