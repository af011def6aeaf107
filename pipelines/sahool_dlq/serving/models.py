"""Requests and answers for OpenAPI: the reports of the verbs, with the columns of the lake."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from sahool_dlq.alerts.states import Alert
from sahool_dlq.analysis.dictionary import Column, relation
from sahool_dlq.analysis.report.incidents import Step
from sahool_dlq.jobs.care import CARE
from sahool_dlq.redrive.batches import Batch
from sahool_dlq.redrive.choose.selection import CONDITIONS, Selection
from sahool_dlq.redrive.decisions import Decision, DecisionReport

__all__ = [
    "Acknowledged",
    "Alerts",
    "Audit",
    "BatchShown",
    "Batches",
    "Care",
    "Decided",
    "Decisions",
    "GroupChange",
    "Groups",
    "Health",
    "IncidentShown",
    "Incidents",
    "PlannedBatch",
    "Reason",
    "Redrive",
    "Replay",
    "Selected",
    "Shown",
    "Why",
    "fields_of",
]

_TYPES = {
    "varchar": str,
    "boolean": bool,
    "double": float,
    "timestamptz": datetime,
    "date": str,
} | dict.fromkeys(("bigint", "integer", "ubigint", "uinteger", "hugeint", "smallint"), int)


def _row(name: str, table: str, **more: Any) -> type[BaseModel]:
    """A model of a row of the lake, with the descriptions of docs/data.md."""
    fields: dict[str, Any] = {column.name: _field(column) for column in relation(table).columns}
    return create_model(name, __config__=ConfigDict(extra="forbid"), **(fields | more))


def _field(column: Column) -> tuple[Any, Any]:
    unit = f" ({column.unit})" if column.unit else ""
    kind: Any = _TYPES.get(column.kind, Any)
    return kind | None if kind is not Any else Any, Field(description=f"{column.meaning}{unit}")


_CARE: dict[str, Any] = {
    name: (str | None, Field(description=what))
    for name, what in zip(
        CARE,
        (
            "who takes care of the group",
            "where the owner comes from: person, rule or CODEOWNERS",
            "a text for whoever looks at it",
            "the address of its ticket",
            "its labels, comma-separated",
            "how long its alerts are muted, in words",
        ),
        strict=True,
    )
}
Group = _row(
    "Group",
    "mart_failure_groups",
    **_CARE,
    trend=(list[int], Field(description="failures in steps of 6 hours, of 7 days")),
    next=(str | None, Field(description="the command to run next")),
)
Failure = _row(
    "Failure",
    "dead_letters",
    status=(str, Field(description="pending, retried, parked, resolved, discarded, superseded")),
    redrive_count=(int | None, Field(description="failed redrives (count)")),
    closed_at=(datetime | None, Field(description="when its case was closed (UTC)")),
    cause=(str | None, Field(description="what closed it")),
    opening=(int, Field(description="1, or more where it failed again after it was closed")),
    last_closed_at=(datetime | None, Field(description="when its previous opening was closed")),
    last_closed_as=(str | None, Field(description="how that one was closed")),
    handed_to=(str | None, Field(description="the addressed consumer of its latest redrive")),
    also_said=(
        list[dict[str, Any]],
        Field(description="other dead letters of the same failure that say something else"),
    ),
)
Incident = _row(
    "Incident",
    "mart_incidents",
    services=(list[str], Field(description="in the order in which they joined")),
    groups=(list[str], Field(description="ids of its groups")),
    causes=(list[str], Field(description="ids of common causes")),
)


class Health(BaseModel):
    """The service answers."""

    status: Literal["ok"] = "ok"


class Groups(BaseModel):
    """A page of failure groups."""

    groups: list[Group]  # type: ignore[valid-type]
    total: int = Field(description="groups that match, on all pages")


class Shown(BaseModel):
    """A failure; of a group its latest one."""

    group: Group | None = None  # type: ignore[valid-type]
    failure: Failure  # type: ignore[valid-type]
    history: list[tuple[datetime, str, str | None, str | None]] = Field(
        description="time, what, by whom, reason"
    )


class Incidents(BaseModel):
    """A page of incidents."""

    incidents: list[Incident]  # type: ignore[valid-type]
    total: int = Field(description="incidents that match, on all pages")


class IncidentShown(BaseModel):
    """One incident with its groups and timeline."""

    incident: Incident  # type: ignore[valid-type]
    groups: list[dict[str, Any]]
    timeline: list[Step]


class Alerts(BaseModel):
    """What fires, as of the last evaluation."""

    evaluated_at: datetime | None
    alerts: list[Alert]
    undelivered: list[dict[str, Any]] = Field(
        description="channels that did not accept messages: channel, waiting, given_up"
    )


class Acknowledged(BaseModel):
    """Alerts that somebody looks after."""

    acknowledged: list[int] = Field(description="their ids")
    untold: list[str] = Field(description="channels that the next evaluation tells")


class Audit(BaseModel):
    """Who did what, newest first."""

    audit: list[dict[str, Any]]


class Batches(BaseModel):
    """The latest batches, those that have not ended first."""

    batches: list[Batch]


class BatchShown(BaseModel):
    """A batch with its current state."""

    batch: Batch
    is_running: bool = Field(description="whether it runs here, or waits for its turn")
    problem: str | None = Field(description="why its run here waits or ended early")
    history: list[dict[str, Any]] | None = Field(
        None, description="its rows of the audit, for a token with the role auditor"
    )


class PlannedBatch(BaseModel):
    """A stored batch, which waits for approval, and what it would publish."""

    batch: Batch | None = Field(description="null: nothing matches")
    plan: dict[str, Any] | None


def _strict(**example: Any) -> ConfigDict:
    """Unknown fields are refused. The page /docs fills in the example, so it must do no harm."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [example]})


_WHY = "the tile server is back"
Why = Annotated[
    str,
    Field(
        min_length=3,
        max_length=2_000,
        description="the reason; stored in the audit",
        examples=[_WHY],
    ),
]


class Reason(BaseModel):
    """Why something is done."""

    model_config = _strict(reason=_WHY)

    reason: Why


_SOME = {"group_id": "1f0c", "since": "24h"}
_GIVEN: dict[str, Any] = {
    name: (
        list[str] if getattr(Selection(), name) == () else str | None,
        Field([] if getattr(Selection(), name) == () else None, description=each.what),
    )
    for name, each in CONDITIONS.items()
}
Selected: type[BaseModel] = create_model(
    "Selection",
    __config__=_strict(**_SOME),
    __doc__="Failures; all given conditions must hold, and one is needed.",
    **_GIVEN,
    limit=(int, Field(Selection().limit, ge=1, le=100_000, description="maximum number")),
)


def fields_of(selection: BaseModel) -> dict[str, Any]:
    """The fields of a `Selected`, as a selection has them: lists are tuples."""
    given = selection.model_dump()
    return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}


class Redrive(BaseModel):
    """Which failures to publish again, and how."""

    model_config = _strict(selection=_SOME)

    selection: Selected
    redirect_to: str | None = Field(None, description="a subject instead of their own")
    addressed_to: str | None = Field(
        None, description="STREAM/CONSUMER to address instead of the one that failed"
    )
    edit: dict[str, Any] | None = Field(None, description="a JSON merge patch of the bodies")
    per_second: float | None = Field(None, gt=0, description="redrives a second")
    max_age_seconds: float | None = Field(None, gt=0, description="of an event; older are parked")
    own_copy: bool = Field(False, description="publish the dead letter's copy of a lost event")


class Replay(BaseModel):
    """Events that a consumer handled wrongly; all given conditions must hold."""

    model_config = _strict(consumer="price-service", since="3h", until="1h")

    consumer: str = Field(description="who gets them: a durable name, or STREAM/NAME")
    since: str | None = Field(None, description="stored at or after this: 24h, a time, seq:120000")
    until: str | None = Field(None, description="stored before this")
    subject: str | None = Field(None, description="the event's subject, or a filter")
    where: str | None = Field(None, description="a condition over the event: data.crop = 'wheat'")
    limit: int = Field(Selection().limit, ge=1, le=100_000, description="maximum number")
    per_second: float | None = Field(None, gt=0, description="events a second")


class Decisions(Reason):
    """Failures to decide about."""

    model_config = _strict(selection=_SOME, decision="parked", reason="waits for 2.4")

    selection: Selected
    decision: Decision
    in_version: str | None = Field(
        None, description="resolved: the version that repairs the group, which must be selected"
    )


Decided = DecisionReport


class GroupChange(Reason):
    """What to change of a group: null leaves a value, an empty one removes it."""

    model_config = _strict(owner="team-payments", reason="asked them")

    owner: str | None = None
    note: str | None = None
    ticket: str | None = Field(None, description="an http(s) address")
    labels: list[str] | None = Field(None, description="replaces all labels")
    mute: str | None = Field(
        None, description="no alert until: 2026-12-24, 3d, '100 more' or escalating"
    )
    unmute: bool = False


class Care(BaseModel):
    """The row of a group's care."""

    group: dict[str, Any]
