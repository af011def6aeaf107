"""The scheduled redrive, whole: what pays, and what a new version of a service has mended."""

from datetime import UTC, datetime

from sahool_dlq.connections import open_postgres
from sahool_dlq.jobs.redrive import redrive, transient_selection
from sahool_dlq.redrive.choose.policy import Policy, Verdict
from sahool_dlq.redrive.choose.schedule import policy_of
from sahool_dlq.redrive.choose.versions import Standing, judge_version, standings
from sahool_dlq.redrive.publish.ramp import RedriveReport
from sahool_dlq.redrive.steps import Step, plainly
from sahool_dlq.settings import Settings

__all__ = ["explain_versions", "redrive_scheduled"]

_BATCHES = 2  # the canaries, and what follows them


async def redrive_scheduled(
    settings: Settings, *, requested_by: str, reason: str, step: Step = plainly
) -> list[RedriveReport]:
    """What the schedule redrives now; what a new version is seen to have mended follows at once.

    The reports of its batches, of which there are none where nothing was to be redriven.
    """
    reports: list[RedriveReport] = []
    while len(reports) < _BATCHES:
        report = await redrive(
            settings,
            transient_selection(settings),
            trigger="automatic",
            requested_by=requested_by,
            reason=reason,
            step=step,
        )
        if report is None:
            break
        reports.append(report)
        if not any(verdict.kind == "redrive" for _, verdict in explain_versions(settings)):
            break
    return reports


def explain_versions(
    settings: Settings, policy: Policy | None = None
) -> list[tuple[Standing, Verdict]]:
    """What the schedule does with groups in the versions that run now, and why; touches nothing."""
    policy = policy or policy_of(settings)
    with open_postgres(settings) as connection:
        found = standings(connection, datetime.now(UTC))
    return [(each, judge_version(each, policy)) for each in found]
