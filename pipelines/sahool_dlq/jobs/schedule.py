"""The complete scheduled redrive: by the policy, and for new versions of services."""

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
    """Redrive what is due now; if a canary of a new version succeeds, also the rest of its group.

    Returns the reports of the batches; none if there was nothing to redrive.
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
    """What the schedule does with groups in the running versions, and why; changes nothing."""
    policy = policy or policy_of(settings)
    with open_postgres(settings) as connection:
        found = standings(connection, datetime.now(UTC))
    return [(each, judge_version(each, policy)) for each in found]
