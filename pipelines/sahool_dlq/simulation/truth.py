"""The known causes in a history: the ground truth for the analyses."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sahool_dlq.deadletter.assemble import dead_letter_frame
from sahool_dlq.deadletter.envelope.columns import decode_all
from sahool_dlq.deadletter.fingerprint.rules import GroupingRules
from sahool_dlq.deadletter.ids import failure_id
from sahool_dlq.deadletter.message import LogMessage
from sahool_dlq.deadletter.redaction.redactor import Redactor
from sahool_dlq.deadletter.subjects import Subjects
from sahool_dlq.simulation.fleet import BACKGROUND, BAD_DEPLOY, MENDED, REGRESSION, Kind, kind
from sahool_dlq.simulation.history import STREAM, History, Letter
from sahool_dlq.simulation.messages import Writer
from sahool_dlq.simulation.scenario import (
    FOLLOWERS,
    HABIT_HOURS,
    POISON_TENANT,
    Release,
    time_of,
)

__all__ = ["Truth", "truth_of"]


@dataclass(frozen=True, slots=True)
class Truth:
    """The planted causes; empty or null in a quiet history. Times are UTC."""

    seed: int
    from_at: datetime
    until: datetime
    groups: dict[str, str]  # group_id by service/error_type
    resolution_median_seconds: dict[str, float]  # by group: what only people end
    redrive_chance: dict[str, float]  # by group: of the first redrive
    outages: list[dict[str, Any]]  # leader, lag_seconds by follower, from, until
    spike: dict[str, Any] | None  # service and group_id that fail more right now, since when
    bad_deploy: dict[str, Any] | None  # service, version, at, and the group that it brought
    mended_deploy: dict[str, Any] | None  # the same; the versions that did not mend it, and did
    poison_tenant: dict[str, Any] | None  # tenant_id and group_id
    redriven_in_vain: list[str]  # failures that no redrive cures while others are cured
    several_consumers: list[int]  # sequences of events that fail wherever they are read
    regression: dict[str, Any] | None  # group_id, when all was resolved, when it returned
    habit: dict[str, Any] | None  # service and the hours of the week in which it fails more

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def truth_of(
    history: History, subjects: Subjects, redactor: Redactor, grouping: GroupingRules
) -> Truth:
    """The truth about a history that was iterated to its end."""
    scenario = history.scenario
    kinds = BACKGROUND if scenario.is_quiet else (*BACKGROUND, BAD_DEPLOY, MENDED, REGRESSION)
    groups = _groups(kinds, Writer(subjects, scenario.rng("samples")), redactor, grouping)

    def group(service: str, error_type: str) -> str:
        return groups[kind(service, error_type).name]

    is_planted = not scenario.is_quiet
    bug, useless, mended = scenario.mended_releases
    return Truth(
        seed=scenario.seed,
        from_at=time_of(scenario.start),
        until=scenario.until,
        groups=groups,
        resolution_median_seconds={
            groups[k.name]: k.cure.median_seconds for k in BACKGROUND if k.cure.median_seconds
        },
        redrive_chance={
            groups[k.name]: k.cure.redrive_chance for k in BACKGROUND if k.cure.redrive_chance
        },
        outages=[
            {
                "leader": "weather",
                "lag_seconds": FOLLOWERS,
                "from": time_of(outage.start),
                "until": time_of(outage.end),
            }
            for outage in scenario.outages
        ],
        spike={
            "service": "tiles",
            "group_id": group("tiles", "ClientConnectorError"),
            "since": time_of(scenario.end - 40 * 60),
        }
        if is_planted
        else None,
        bad_deploy={
            **_told(scenario.bad_release),
            "group_id": groups[BAD_DEPLOY.name],
        }
        if is_planted
        else None,
        mended_deploy={
            **_told(bug),
            "group_id": groups[MENDED.name],
            "not_mended_by": _told(useless),
            "mended_by": _told(mended),
        }
        if is_planted
        else None,
        poison_tenant={
            "tenant_id": POISON_TENANT,
            "group_id": group("soil", "ValidationError"),
        }
        if is_planted
        else None,
        redriven_in_vain=history.in_vain,
        several_consumers=history.shared,
        regression={
            "group_id": groups[REGRESSION.name],
            "resolved_at": time_of(scenario.repaired_at),
            "returned_at": time_of(scenario.returned_at),
        }
        if is_planted
        else None,
        habit={"service": "billing", "hours_of_week": list(HABIT_HOURS)} if is_planted else None,
    )


def _told(release: Release) -> dict[str, Any]:
    return {"service": release.service, "version": release.version, "at": time_of(release.at)}


def _groups(
    kinds: tuple[Kind, ...], writer: Writer, redactor: Redactor, grouping: GroupingRules
) -> dict[str, str]:
    """The group of each kind, by the fingerprint of a sample."""
    messages = []
    for number, sample in enumerate(kinds, 1):
        proof = failure_id(STREAM, number, 0, sample.service)
        letter = Letter(100.0, sample, "t", "f", "1", number, 0.0, proof)
        messages.append(LogMessage(*writer.write(letter)[:1], number, 1, writer.letter(letter)))
    frame = dead_letter_frame(decode_all(messages, "samples", "samples"), redactor, grouping)
    return dict(zip((k.name for k in kinds), frame["group_id"], strict=True))
